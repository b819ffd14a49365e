//! What operators do with an account of Xbus: `/api/xbus/accounts/{account}` and the paths below.

use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::security::change::Change as SecurityChange;
use rollbook_core::security::model::Credential;
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::account::row::{AccountRow, AccountStatus};
use rollbook_core::xbus::change::{ApiKey, Change, Enable};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::accounts::{AccountView, show, view};
use super::common::{account, change, fresh};
use crate::admin::Admin;
use crate::admin::body::Optional;
use crate::admin::caller::identity;
use crate::admin::common::Answer;
use crate::admin::operation::{Operation, get, write};
use crate::admin::preconditions::Conditions;
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{NoParameters, Query};
use crate::admin::resource::resource;
use crate::base::clock;
use crate::bus::security::credentials::secret::Secret;
use crate::bus::xbus::{accept, api_key};

/// One account, as the target of a right.
const ONE: &str = "xbus/accounts/{account}";
/// Longest time that a certificate may count, in days: about 100 years.
const DAYS_MAX: u32 = 36_500;
/// A day, in milliseconds.
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

const fn post(action: &'static str) -> [Operation; 1] {
    [write("POST", action, Verb::AdminWrite, ONE)]
}

pub(super) fn mount(services: &mut web::ServiceConfig) {
    let path = |rest: &str| format!("/api/xbus/accounts/{{account}}{rest}");
    let enable = post("xbus.account_enable");
    services
        .service(
            resource(&path(""), [get(ONE), write("DELETE", "xbus.account_delete", Verb::AdminWrite, ONE)])
                .route(web::get().to(show))
                .route(web::delete().to(delete)),
        )
        .service(resource(&path("/accept"), post("xbus.account_accept")).route(web::post().to(accept_account)))
        .service(resource(&path("/reject"), enable).route(web::post().to(reject)))
        .service(resource(&path("/disable"), enable).route(web::post().to(disable)))
        .service(resource(&path("/enable"), enable).route(web::post().to(self::enable)))
        .service(
            resource(&path("/reset-certificate"), post("xbus.account_reset")).route(web::post().to(reset_certificate)),
        )
        .service(
            resource(
                &path("/api-key"),
                [
                    write("POST", "xbus.account_api_key", Verb::AdminWrite, ONE),
                    write("DELETE", "xbus.account_api_key", Verb::AdminWrite, ONE),
                ],
            )
            .route(web::post().to(make_key))
            .route(web::delete().to(remove_key)),
        );
}

/// The account that a request changes, and the revision that the change is bound to.
async fn target(admin: &Admin, request: &HttpRequest, named: &str) -> Result<(AccountRow, Option<u64>), Problem> {
    fresh(admin).await?;
    let row = account(admin, named, Verb::AdminWrite)?;
    let present = || Ok(Some(row.revision));
    let expected = Conditions::of(request)?.revision(admin, present).await?;
    Ok((row, expected))
}

/// Checks that the caller has every right that the principal of an account has, before it lets a program be that.
fn check_escalation(admin: &Admin, row: &AccountRow) -> Result<(), Problem> {
    let credential = Credential { principal: format!("actor:{}", row.name), ..Credential::default() };
    let change = SecurityChange::CredentialAdd(credential);
    Ok(admin.bus.authority().with_rights(|from| identity().check_escalation(from, &change))?)
}

/// Makes a change of an account and answers with the account.
async fn apply(admin: &Admin, expected: Option<u64>, change_of: Change) -> Answer {
    let account = change(admin, expected, change_of).await?.account.unwrap_or_default();
    view(admin, &account.account)
}

/// How an account is accepted.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct AcceptJson {
    /// How many days the certificate counts; about 5 years by default. Not for one that was signed elsewhere.
    #[schema(minimum = 1, maximum = 36500, example = 365)]
    certificate_days: Option<u32>,
    /// A certificate in PEM that another authority signed for the key of the request, with the name of the account as
    /// common name. The authority has to be in the client CA of the door.
    #[schema(example = json!(null))]
    certificate: Option<String>,
}

/// Accepts an account and its present key: its program gets the certificate when it registers again, and may connect. The
/// principal `actor:NAME` is made, if there is none, and the certificate is its credential.
#[utoipa::path(post, path = "/api/xbus/accounts/{account}/accept", operation_id = "xbus_account_accept", tag = "xbus", params(("account" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body = Option<AcceptJson>, responses((status = 200, description = "the account as it is now", body = AccountView), Problems))]
pub(in crate::admin) async fn accept_account(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
    Optional(body): Optional<AcceptJson>,
) -> Answer {
    let (row, expected) = target(&admin, &request, &named).await?;
    check_escalation(&admin, &row)?;
    if body.certificate_days.is_some_and(|days| !(1..=DAYS_MAX).contains(&days)) {
        return Err(Problem::bad(format!("certificate_days: 1 to {DAYS_MAX}")));
    }
    let wish = match &body.certificate {
        Some(_) if body.certificate_days.is_some() => {
            return Err(Problem::bad("certificate_days: the certificate says itself how long it counts"));
        }
        Some(pem) => accept::accept_signed(&row, pem)?,
        None => {
            let expires = |days: u32| clock::millis().saturating_add(u64::from(days).saturating_mul(DAY_MS));
            accept::accept(admin.bus.authority(), &row, body.certificate_days.map(expires))?
        }
    };
    apply(&admin, expected, wish).await
}

/// Rejects an account that was never accepted: its program is told so. To enable or delete the account is the way back.
#[utoipa::path(post, path = "/api/xbus/accounts/{account}/reject", operation_id = "xbus_account_reject", tag = "xbus", params(("account" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 200, description = "the account as it is now", body = AccountView), Problems))]
pub(in crate::admin) async fn reject(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let (row, expected) = target(&admin, &request, &named).await?;
    if row.status() != AccountStatus::Pending {
        return Err(Problem::new(409, "xbus", format!("account {} is not pending; disable the account", row.name)));
    }
    apply(&admin, expected, Change::AccountEnable(Enable { id: row.id, enabled: false })).await
}

/// Shuts an account out: its connections end at once, and the jobs of its actors go to others.
#[utoipa::path(post, path = "/api/xbus/accounts/{account}/disable", operation_id = "xbus_account_disable", tag = "xbus", params(("account" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 200, description = "the account as it is now", body = AccountView), Problems))]
pub(in crate::admin) async fn disable(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let (row, expected) = target(&admin, &request, &named).await?;
    apply(&admin, expected, Change::AccountEnable(Enable { id: row.id, enabled: false })).await
}

/// Lets an account in again that has a certificate. One without has to be accepted.
#[utoipa::path(post, path = "/api/xbus/accounts/{account}/enable", operation_id = "xbus_account_enable", tag = "xbus", params(("account" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 200, description = "the account as it is now", body = AccountView), Problems))]
pub(in crate::admin) async fn enable(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let (row, expected) = target(&admin, &request, &named).await?;
    check_escalation(&admin, &row)?;
    apply(&admin, expected, Change::AccountEnable(Enable { id: row.id, enabled: true })).await
}

/// Forgets key and certificate of an account: whoever registers next under the name waits for an operator. The present
/// certificate counts no more.
#[utoipa::path(post, path = "/api/xbus/accounts/{account}/reset-certificate", operation_id = "xbus_account_reset", tag = "xbus", params(("account" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 200, description = "the account as it is now", body = AccountView), Problems))]
pub(in crate::admin) async fn reset_certificate(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let (row, expected) = target(&admin, &request, &named).await?;
    apply(&admin, expected, Change::AccountResetCertificate(row.id)).await
}

/// A new API key, with its secret.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct ApiKeyView {
    /// Name of the account.
    account: String,
    /// What a client of the HTTP gateway sends as `Xbus-API-Key`. Nothing shows it again.
    api_key: String,
}

/// Makes an API key for an account, which replaces the one before. The answer is the only place that shows the key.
#[utoipa::path(post, path = "/api/xbus/accounts/{account}/api-key", operation_id = "xbus_account_api_key", tag = "xbus", params(("account" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 201, description = "the new key, which no other answer shows", body = ApiKeyView), Problems))]
pub(in crate::admin) async fn make_key(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let (row, expected) = target(&admin, &request, &named).await?;
    check_escalation(&admin, &row)?;
    let key = Secret::new(api_key::mint()?);
    let set = ApiKey { id: row.id, hash: api_key::hash(key.expose()) };
    change(&admin, expected, Change::AccountApiKey(set)).await?;
    let view = ApiKeyView { account: row.name, api_key: key.expose().clone() };
    Ok(HttpResponse::Created().insert_header(("cache-control", "no-store")).json(view))
}

/// Takes the API key of an account away. From then on the key lets nobody in.
#[utoipa::path(delete, path = "/api/xbus/accounts/{account}/api-key", operation_id = "xbus_account_api_key_delete", tag = "xbus", params(("account" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 204, description = "the key does not count any more"), Problems))]
pub(in crate::admin) async fn remove_key(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let (row, expected) = target(&admin, &request, &named).await?;
    change(&admin, expected, Change::AccountApiKey(ApiKey { id: row.id, hash: Vec::new() })).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Deletes an account with its actors, its principal and its certificate: its connections end.
#[utoipa::path(delete, path = "/api/xbus/accounts/{account}", operation_id = "xbus_account_delete", tag = "xbus", params(("account" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 204, description = "the account is gone"), Problems))]
pub(in crate::admin) async fn delete(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let (row, expected) = target(&admin, &request, &named).await?;
    let principal = SecurityChange::PrincipalDelete(format!("actor:{}", row.name));
    admin.bus.authority().with_rights(|from| identity().check_escalation(from, &principal))?;
    change(&admin, expected, Change::AccountDelete(row.id)).await?;
    Ok(HttpResponse::NoContent().finish())
}
