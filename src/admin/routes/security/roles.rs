//! `/api/security/roles`: named lists of rights, with limits.

use actix_web::http::header::ETAG;
use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::security::builtin::BUILT_IN;
use rollbook_core::security::change::Change;
use rollbook_core::security::model::{Role, RoleLimits};
use rollbook_core::security::right::Verb;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{change, look, not_found};
use crate::admin::Admin;
use crate::admin::body::Object;
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{self, List};
use crate::admin::preconditions::{Conditions, etag};
use crate::admin::problem::Problems;
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;

/// One role, as the target of a right.
const ONE: &str = "security/roles/{name}";

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/api/security/roles", [get("security/roles")]).route(web::get().to(list))).service(
        resource(
            "/api/security/roles/{name}",
            [
                get(ONE),
                write("PUT", "security.role_set", Verb::AdminSecurity, ONE),
                write("DELETE", "security.role_delete", Verb::AdminSecurity, ONE),
            ],
        )
        .route(web::get().to(show))
        .route(web::put().to(set))
        .route(web::delete().to(delete)),
    );
}

/// What each principal with the role may use at a node. A limit that is left out is none.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct LimitsJson {
    /// Most connections at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    connections: Option<u64>,
    /// Most new connections a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    connects_per_second: Option<u64>,
    /// Most published events a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    publishes_per_second: Option<u64>,
    /// Most published bytes a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    publish_bytes_per_second: Option<u64>,
    /// Most calls a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    calls_per_second: Option<u64>,
    /// Most open streams at a time.
    #[serde(skip_serializing_if = "Option::is_none")]
    streams: Option<u64>,
    /// Most stored bytes of a namespace to which the principal publishes.
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace_bytes: Option<u64>,
}

impl From<LimitsJson> for RoleLimits {
    fn from(json: LimitsJson) -> Self {
        Self {
            connections: json.connections,
            connects_per_second: json.connects_per_second,
            publishes_per_second: json.publishes_per_second,
            publish_bytes_per_second: json.publish_bytes_per_second,
            calls_per_second: json.calls_per_second,
            streams: json.streams,
            namespace_bytes: json.namespace_bytes,
        }
    }
}

impl From<RoleLimits> for LimitsJson {
    fn from(limits: RoleLimits) -> Self {
        Self {
            connections: limits.connections,
            connects_per_second: limits.connects_per_second,
            publishes_per_second: limits.publishes_per_second,
            publish_bytes_per_second: limits.publish_bytes_per_second,
            calls_per_second: limits.calls_per_second,
            streams: limits.streams,
            namespace_bytes: limits.namespace_bytes,
        }
    }
}

/// A role.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct RoleView {
    #[schema(example = "orders-writer")]
    name: String,
    rights: Vec<String>,
    limits: LimitsJson,
    /// A text for people.
    description: String,
    /// Whether the role is a part of rollbook, which nobody can change.
    built_in: bool,
    /// The revision of the last change; 0 for a built-in role.
    revision: u64,
}

impl From<&Role> for RoleView {
    fn from(role: &Role) -> Self {
        Self {
            name: role.name.clone(),
            rights: role.rights.clone(),
            limits: role.limits.unwrap_or_default().into(),
            description: role.description.clone(),
            built_in: false,
            revision: role.revision,
        }
    }
}

fn built_in() -> impl Iterator<Item = RoleView> {
    BUILT_IN.iter().map(|(name, description, rights)| RoleView {
        name: (*name).to_owned(),
        rights: rights.iter().map(ToString::to_string).collect(),
        limits: LimitsJson::default(),
        description: (*description).to_owned(),
        built_in: true,
        revision: 0,
    })
}

/// What a role gives.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct RoleJson {
    #[schema(example = json!(["publish orders.>", "call billing:*"]))]
    rights: Vec<String>,
    limits: LimitsJson,
    /// A text for people.
    description: String,
}

/// The roles of the cluster: the built-in ones first, then the others by name.
#[utoipa::path(get, path = "/api/security/roles", operation_id = "security_roles", tag = "security", params(ConsistencyQuery), responses((status = 200, description = "the roles", body = List<RoleView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, _: Query<ConsistencyQuery>) -> Answer {
    let own: Vec<RoleView> = look(&admin, |security| security.roles().map(RoleView::from).collect());
    Ok(page::whole(built_in().chain(own).collect()))
}

fn view(admin: &Admin, name: &str) -> Answer {
    let own = look(admin, |security| security.role(name).map(RoleView::from));
    let role = own.or_else(|| built_in().find(|role| role.name == name));
    let role = role.ok_or_else(|| not_found("role", name))?;
    Ok(HttpResponse::Ok().insert_header((ETAG, etag(role.revision))).json(role))
}

/// A role by its name. The ETag is the revision of its last change; that of a built-in role is 0.
#[utoipa::path(get, path = "/api/security/roles/{name}", operation_id = "security_role", tag = "security", params(("name" = String, Path), ConsistencyQuery), responses((status = 200, description = "the role", body = RoleView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    view(&admin, &name)
}

/// Creates or replaces a role. What its principals lose ends at once.
#[utoipa::path(put, path = "/api/security/roles/{name}", operation_id = "security_role_set", tag = "security", params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body = RoleJson, responses((status = 200, description = "the role as it is now", body = RoleView), Problems))]
pub(in crate::admin) async fn set(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<RoleJson>,
) -> Answer {
    let name = name.into_inner();
    let present = || Ok(look(&admin, |security| security.role(&name).map(|role| role.revision)));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    let RoleJson { rights, limits, description } = body;
    let role = Role { name: name.clone(), rights, limits: Some(limits.into()), description, revision: 0 };
    change(&admin, expected, Change::RoleSet(role)).await?;
    view(&admin, &name)
}

/// Deletes a role. Principals that have it keep its name, which gives them nothing.
#[utoipa::path(delete, path = "/api/security/roles/{name}", operation_id = "security_role_delete", tag = "security", params(("name" = String, Path)), responses((status = 204, description = "it is gone"), Problems))]
pub(in crate::admin) async fn delete(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let name = name.into_inner();
    let present = || Ok(look(&admin, |security| security.role(&name).map(|role| role.revision)));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    change(&admin, expected, Change::RoleDelete(name.clone())).await?;
    Ok(HttpResponse::NoContent().finish())
}
