//! What a caller asks about itself: who it is, a token for its password, a ticket for its browser.

use actix_web::{HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::common::time;
use super::credentials::{TokenJson, TokenView, issue};
use crate::admin::Admin;
use crate::admin::body::Optional;
use crate::admin::caller::{identity, needs_credential};
use crate::admin::common::Answer;
use crate::admin::operation::{Need, checked, get_for};
use crate::admin::problem::Problems;
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::security::compile::compile;
use crate::bus::security::credentials::ticket::TICKET_LIFETIME;
use crate::bus::security::identity::Shown;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/security/self", [get_for(Need::Caller)]).route(web::get().to(own)))
        .service(resource("/api/security/login", [checked("POST", "security.login")]).route(web::post().to(login)))
        .service(resource("/api/security/tickets", [checked("POST", "")]).route(web::post().to(ticket)));
}

/// The caller.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct SelfView {
    /// `kind:name`, or `anonymous`.
    principal: String,
    /// What the caller has shown, without its secret.
    #[serde(skip_serializing_if = "String::is_empty")]
    credential: String,
    roles: Vec<String>,
    /// All rights, those of the roles too.
    rights: Vec<String>,
    /// When the credential ends to count; left out: never.
    #[serde(skip_serializing_if = "Option::is_none")]
    expires_at: Option<String>,
    /// Whether the caller may do everything because there is no authentication where it comes from.
    open: bool,
}

/// Who the caller is, and what it may do. Nothing of a secret is shown.
#[utoipa::path(get, path = "/api/security/self", operation_id = "security_self", tag = "security", params(ConsistencyQuery), responses((status = 200, description = "the caller", body = SelfView), Problems))]
pub(in crate::admin) async fn own(admin: web::Data<Admin>, _: Query<ConsistencyQuery>) -> Answer {
    let identity = identity();
    let grant = identity.grant();
    let compiled = admin.bus.authority().with_rights(|from| compile(from, grant.principal(), grant.claimed()));
    Ok(HttpResponse::Ok().json(SelfView {
        principal: identity.name().to_owned(),
        credential: identity.shown().text(),
        roles: if identity.is_open() { Vec::new() } else { compiled.roles },
        rights: grant.rights().rules().map(|rule| rule.right.to_string()).collect(),
        expires_at: time(identity.expires()),
        open: identity.is_open(),
    }))
}

/// Makes a token for a user that shows its password, by HTTP Basic. Any other credential is answered 401.
#[utoipa::path(post, path = "/api/security/login", operation_id = "security_login", tag = "security", request_body = Option<TokenJson>, responses((status = 201, description = "the token", body = TokenView), Problems))]
pub(in crate::admin) async fn login(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    Optional(body): Optional<TokenJson>,
) -> Answer {
    let identity = identity();
    if !matches!(identity.shown(), Shown::Password(_)) {
        return Err(needs_credential());
    }
    issue(&admin, identity.name(), body).await
}

/// A ticket.
#[derive(Serialize, ToSchema)]
pub(in crate::admin) struct TicketView {
    /// Stands in an address as the parameter `ticket`, once.
    ticket: String,
    expires_in_ms: u64,
}

/// Makes a ticket with the rights of the caller, for `EventSource`, which cannot send headers: one use at any node within
/// half a minute, as `?ticket=...`.
#[utoipa::path(post, path = "/api/security/tickets", operation_id = "security_ticket", tag = "security", responses((status = 201, description = "the ticket", body = TicketView), Problems))]
pub(in crate::admin) async fn ticket(admin: web::Data<Admin>, _: Query<NoParameters>) -> Answer {
    let ticket = admin.bus.authority().issue_ticket(&identity())?;
    let expires_in_ms = u64::try_from(TICKET_LIFETIME.as_millis()).unwrap_or(u64::MAX);
    let view = TicketView { ticket: ticket.expose().clone(), expires_in_ms };
    Ok(HttpResponse::Created().insert_header(("cache-control", "no-store")).json(view))
}
