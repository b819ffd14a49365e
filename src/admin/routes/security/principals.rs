//! `/api/security/principals`: who there is, and what each may do.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::http::header::ETAG;
use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::security::change::Change;
use rollbook_core::security::model::PrincipalRow;
use rollbook_core::security::right::Verb;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::common::{change, look, not_found, principal, time};
use crate::admin::Admin;
use crate::admin::body::Object;
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{List, Page};
use crate::admin::preconditions::{Conditions, etag};
use crate::admin::problem::Problems;
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;

/// One principal, as the target of a right.
const ONE: &str = "security/principals/{principal}";

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/security/principals", [get("security/principals")]).route(web::get().to(list)))
        .service(
            resource(
                "/api/security/principals/{principal}",
                [
                    get(ONE),
                    write("PUT", "security.principal_set", Verb::AdminSecurity, ONE),
                    write("DELETE", "security.principal_delete", Verb::AdminSecurity, ONE),
                ],
            )
            .route(web::get().to(show))
            .route(web::put().to(set))
            .route(web::delete().to(delete)),
        );
}

/// A principal.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct PrincipalView {
    /// `kind:name`, or `anonymous`.
    #[schema(example = "service:billing")]
    principal: String,
    /// Names of its roles.
    roles: Vec<String>,
    /// Rights of its own.
    rights: Vec<String>,
    /// Whether it is shut out.
    disabled: bool,
    /// A text for people.
    description: String,
    /// The revision of the last change.
    revision: u64,
    /// When it was made.
    created_at: Option<String>,
}

impl From<&PrincipalRow> for PrincipalView {
    fn from(row: &PrincipalRow) -> Self {
        Self {
            principal: row.principal.clone(),
            roles: row.roles.clone(),
            rights: row.rights.clone(),
            disabled: row.disabled,
            description: row.description.clone(),
            revision: row.revision,
            created_at: time(row.created),
        }
    }
}

/// What a principal may do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
pub(in crate::admin) struct PrincipalJson {
    /// Names of roles.
    #[schema(example = json!(["service"]))]
    roles: Vec<String>,
    /// Rights beside those of the roles.
    #[schema(example = json!(["publish orders.>", "deny subscribe orders.secret.>"]))]
    rights: Vec<String>,
    /// Shuts the principal out.
    disabled: bool,
    /// A text for people.
    description: String,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ListQuery {
    /// Most items; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The principals of the cluster, by name. Also `anonymous`, if it was given rights.
#[utoipa::path(get, path = "/api/security/principals", operation_id = "security_principals", tag = "security", params(ListQuery), responses((status = 200, description = "the principals", body = List<PrincipalView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<ListQuery>) -> Answer {
    let page = Page::new("principals", query.limit, query.cursor.as_deref())?;
    let list =
        look(&admin, |security| page.of(security.principals().map(PrincipalView::from), |view| view.principal.clone()));
    Ok(HttpResponse::Ok().json(list))
}

fn view(admin: &Admin, name: &str) -> Answer {
    let view = look(admin, |security| security.principal(name).map(PrincipalView::from));
    let view = view.ok_or_else(|| not_found("principal", name))?;
    Ok(HttpResponse::Ok().insert_header((ETAG, etag(view.revision))).json(view))
}

/// A principal by its name. The ETag is the revision of its last change.
#[utoipa::path(get, path = "/api/security/principals/{principal}", operation_id = "security_principal", tag = "security", params(("principal" = String, Path), ConsistencyQuery), responses((status = 200, description = "the principal", body = PrincipalView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    view(&admin, &name)
}

/// Creates or replaces a principal. With `If-Match` only if it is still the one with that ETag.
#[utoipa::path(put, path = "/api/security/principals/{principal}", operation_id = "security_principal_set", tag = "security", params(("principal" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body = PrincipalJson, responses((status = 200, description = "the principal as it is now", body = PrincipalView), Problems))]
pub(in crate::admin) async fn set(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<PrincipalJson>,
) -> Answer {
    let name = principal(&name)?.to_string();
    let present = || Ok(look(&admin, |security| security.principal(&name).map(|row| row.revision)));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    let PrincipalJson { roles, rights, disabled, description } = body;
    let principal = name.clone();
    let row = PrincipalRow { principal, roles, rights, disabled, description, ..PrincipalRow::default() };
    change(&admin, expected, Change::PrincipalSet(row)).await?;
    view(&admin, &name)
}

/// Deletes a principal with its credentials: its connections end.
#[utoipa::path(delete, path = "/api/security/principals/{principal}", operation_id = "security_principal_delete", tag = "security", params(("principal" = String, Path)), responses((status = 204, description = "it is gone"), Problems))]
pub(in crate::admin) async fn delete(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let name = name.into_inner();
    let present = || Ok(look(&admin, |security| security.principal(&name).map(|row| row.revision)));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    change(&admin, expected, Change::PrincipalDelete(name.clone())).await?;
    Ok(HttpResponse::NoContent().finish())
}
