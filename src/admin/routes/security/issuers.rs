//! `/api/security/issuers`: whose JWTs are trusted, and what they give.

use actix_web::http::header::ETAG;
use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::security::change::Change;
use rollbook_core::security::model::{Issuer, RoleClaim};
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
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::security::issuers;

/// One issuer, as the target of a right.
const ONE: &str = "security/issuers/{name}";

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/api/security/issuers", [get("security/issuers")]).route(web::get().to(list))).service(
        resource(
            "/api/security/issuers/{name}",
            [
                get(ONE),
                write("PUT", "security.issuer_set", Verb::AdminSecurity, ONE),
                write("DELETE", "security.issuer_delete", Verb::AdminSecurity, ONE),
            ],
        )
        .route(web::get().to(show))
        .route(web::put().to(set))
        .route(web::delete().to(delete)),
    );
}

/// A claim that gives a role.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct RoleClaimJson {
    /// Path of the claim, as in `realm_access.roles`.
    #[schema(example = "groups")]
    claim: String,
    /// The claim is this text, or a list that has it.
    #[schema(example = "ops")]
    contains: String,
    #[schema(example = "operator")]
    role: String,
}

/// An issuer. Its keys are at an address, or given, or a secret that is shared.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct IssuerJson {
    /// The claim `iss` of its tokens.
    #[schema(example = "https://id.example.com")]
    iss: String,
    /// One of these must be in `aud`; empty: any.
    #[serde(default)]
    audiences: Vec<String>,
    /// The algorithms that are accepted.
    #[schema(example = json!(["RS256"]))]
    algorithms: Vec<String>,
    /// Address of its keys.
    #[serde(default)]
    jwks_url: String,
    /// Its public keys, JWKS or PEM.
    #[serde(default)]
    keys: String,
    /// A secret for HS256, which is stored sealed. Needs `security.key_file`.
    #[serde(default)]
    secret: String,
    /// What its principals are; `user` by default.
    #[serde(default)]
    kind: String,
    /// The claim with the name of the principal; `sub` by default.
    #[serde(default)]
    principal_claim: String,
    /// Which claims give which roles.
    #[serde(default)]
    roles: Vec<RoleClaimJson>,
}

/// An issuer as it is shown: never with its secret.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct IssuerView {
    name: String,
    iss: String,
    audiences: Vec<String>,
    algorithms: Vec<String>,
    jwks_url: String,
    keys: String,
    /// Whether there is a secret.
    has_secret: bool,
    kind: String,
    principal_claim: String,
    roles: Vec<RoleClaimJson>,
    revision: u64,
}

impl From<&Issuer> for IssuerView {
    fn from(row: &Issuer) -> Self {
        let mapping = |row: &RoleClaim| RoleClaimJson {
            claim: row.claim.clone(),
            contains: row.contains.clone(),
            role: row.role.clone(),
        };
        Self {
            name: row.name.clone(),
            iss: row.iss.clone(),
            audiences: row.audiences.clone(),
            algorithms: row.algorithms.clone(),
            jwks_url: row.jwks_url.clone(),
            keys: row.keys.clone(),
            has_secret: !row.sealed_secret.is_empty(),
            kind: row.kind.clone(),
            principal_claim: row.principal_claim.clone(),
            roles: row.roles.iter().map(mapping).collect(),
            revision: row.revision,
        }
    }
}

/// The issuers of JWTs that are trusted. A secret is never shown.
#[utoipa::path(get, path = "/api/security/issuers", operation_id = "security_issuers", tag = "security", params(ConsistencyQuery), responses((status = 200, description = "the issuers", body = List<IssuerView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, _: Query<ConsistencyQuery>) -> Answer {
    Ok(page::whole(look(&admin, |security| security.issuers().map(IssuerView::from).collect())))
}

fn view(admin: &Admin, name: &str) -> Answer {
    let view = look(admin, |security| security.issuer(name).map(IssuerView::from));
    let view = view.ok_or_else(|| not_found("issuer", name))?;
    Ok(HttpResponse::Ok().insert_header((ETAG, etag(view.revision))).json(view))
}

/// An issuer by its name. The ETag is the revision of its last change.
#[utoipa::path(get, path = "/api/security/issuers/{name}", operation_id = "security_issuer", tag = "security", params(("name" = String, Path), ConsistencyQuery), responses((status = 200, description = "the issuer", body = IssuerView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    view(&admin, &name)
}

/// The row of an issuer, with a sealed secret.
fn row(admin: &Admin, name: &str, json: IssuerJson) -> Result<Issuer, Problem> {
    let sources = [&json.jwks_url, &json.keys, &json.secret].into_iter().filter(|text| !text.is_empty()).count();
    if sources != 1 {
        return Err(Problem::bad("an issuer has one of jwks_url, keys and secret"));
    }
    let key = admin.bus.authority().seal_key();
    let sealed_secret = if json.secret.is_empty() {
        Vec::new()
    } else {
        let no_key = || Problem::bad("secret: set security.key_file on all nodes first, with one key for all of them");
        let sealed = key.ok_or_else(no_key)?.seal(json.secret.as_bytes(), &issuers::seal_context(name));
        sealed.map_err(|error| Problem::storage(error.to_string()))?
    };
    let mapping = |json: RoleClaimJson| RoleClaim { claim: json.claim, contains: json.contains, role: json.role };
    let row = Issuer {
        name: name.to_owned(),
        revision: 0,
        iss: json.iss,
        audiences: json.audiences,
        algorithms: json.algorithms,
        jwks_url: json.jwks_url,
        keys: json.keys,
        sealed_secret,
        kind: if json.kind.is_empty() { "user".to_owned() } else { json.kind },
        principal_claim: json.principal_claim,
        roles: json.roles.into_iter().map(mapping).collect(),
    };
    issuers::check(&row, key).map_err(Problem::bad)?;
    Ok(row)
}

/// Creates or replaces an issuer. Tokens that it does not stand for any more end to count at once.
#[utoipa::path(put, path = "/api/security/issuers/{name}", operation_id = "security_issuer_set", tag = "security", params(("name" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body = IssuerJson, responses((status = 200, description = "the issuer as it is now", body = IssuerView), Problems))]
pub(in crate::admin) async fn set(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<IssuerJson>,
) -> Answer {
    let name = name.into_inner();
    let present = || Ok(look(&admin, |security| security.issuer(&name).map(|issuer| issuer.revision)));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    let row = row(&admin, &name, body)?;
    change(&admin, expected, Change::IssuerSet(row)).await?;
    view(&admin, &name)
}

/// Deletes an issuer: connections that its tokens opened end.
#[utoipa::path(delete, path = "/api/security/issuers/{name}", operation_id = "security_issuer_delete", tag = "security", params(("name" = String, Path)), responses((status = 204, description = "it is gone"), Problems))]
pub(in crate::admin) async fn delete(
    admin: web::Data<Admin>,
    request: HttpRequest,
    name: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let name = name.into_inner();
    let present = || Ok(look(&admin, |security| security.issuer(&name).map(|issuer| issuer.revision)));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    change(&admin, expected, Change::IssuerDelete(name.clone())).await?;
    Ok(HttpResponse::NoContent().finish())
}
