//! `/api/xbus/actors`: what programs of accounts do, and whether they may.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::account::register::ActorRequest;
use rollbook_core::xbus::account::row::{ActorKind, ActorRow, ActorStatus};
use rollbook_core::xbus::change::{ActorSet, ActorStatusSet, Change};
use rollbook_core::xbus::id::Id;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::accounts::{KindWord, entries};
use super::common::{account, actor, change, fresh, look, tagged, text, time};
use crate::admin::Admin;
use crate::admin::body::{Object, Optional};
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{List, Page};
use crate::admin::preconditions::Conditions;
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::xbus::actor_calls::new_id;

/// One actor, as the target of a right.
const ONE: &str = "xbus/actors/{actor}";

pub(super) fn mount(services: &mut web::ServiceConfig) {
    let path = |rest: &str| format!("/api/xbus/actors/{{actor}}{rest}");
    let status = || [write("POST", "xbus.actor_status", Verb::AdminWrite, ONE)];
    services
        .service(resource("/api/xbus/actors", [get("xbus/actors")]).route(web::get().to(list)))
        .service(
            resource(
                &path(""),
                [
                    get(ONE),
                    write("PUT", "xbus.actor_set", Verb::AdminWrite, ONE),
                    write("DELETE", "xbus.actor_delete", Verb::AdminWrite, ONE),
                ],
            )
            .route(web::get().to(show))
            .route(web::put().to(set))
            .route(web::delete().to(delete)),
        )
        .service(resource(&path("/accept"), status()).route(web::post().to(accept)))
        .service(resource(&path("/reject"), status()).route(web::post().to(reject)))
        .service(resource(&path("/disable"), status()).route(web::post().to(disable)));
}

/// An actor of Xbus.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct ActorView {
    id: String,
    /// Its name, unique in the cluster.
    name: String,
    /// Name of its account.
    account: String,
    /// `emitter`, `worker` or `consumer`.
    kind: &'static str,
    /// `pending`, `enabled`, `disabled` or `rejected`.
    status: &'static str,
    /// The roles by which pipelines name it.
    roles: Vec<String>,
    /// Its configuration.
    config: BTreeMap<String, String>,
    /// How many jobs of processes it has now.
    jobs: u32,
    /// About when it was connected last; `null`: never.
    last_seen_at: Option<String>,
    /// Counts its changes.
    revision: u64,
}

impl ActorView {
    fn new(xbus: &Xbus, row: &ActorRow) -> Self {
        let account = Id::from_slice(&row.account).ok().and_then(|id| xbus.account(id));
        let status = match row.status() {
            ActorStatus::Pending => "pending",
            ActorStatus::Enabled => "enabled",
            ActorStatus::Disabled => "disabled",
            ActorStatus::Rejected => "rejected",
        };
        Self {
            id: text(&row.id),
            name: row.name.clone(),
            account: account.map(|account| account.name.clone()).unwrap_or_default(),
            kind: match row.kind() {
                ActorKind::Consumer => "consumer",
                ActorKind::Emitter => "emitter",
                ActorKind::Worker => "worker",
            },
            status,
            roles: row.roles.clone(),
            config: row.config.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect(),
            jobs: Id::from_slice(&row.id).map_or(0, |id| xbus.load(id)),
            last_seen_at: time(row.last_seen),
            revision: row.revision,
        }
    }
}

fn view(admin: &Admin, row: &ActorRow) -> Answer {
    tagged(row.revision, &look(admin, |xbus| ActorView::new(xbus, row)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ActorsQuery {
    /// Of the account with this name or id only.
    account: Option<String>,
    /// Those with this role.
    role: Option<String>,
    /// `pending`, `enabled`, `disabled` or `rejected`.
    #[param(inline)]
    status: Option<StatusWord>,
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StatusWord {
    Pending,
    Enabled,
    Disabled,
    Rejected,
}

impl StatusWord {
    const fn rules(self) -> ActorStatus {
        match self {
            Self::Pending => ActorStatus::Pending,
            Self::Enabled => ActorStatus::Enabled,
            Self::Disabled => ActorStatus::Disabled,
            Self::Rejected => ActorStatus::Rejected,
        }
    }
}

/// The actors of Xbus by name, page by page; those that wait for an operator too.
#[utoipa::path(get, path = "/api/xbus/actors", operation_id = "xbus_actors", tag = "xbus", params(ActorsQuery), responses((status = 200, description = "a page of actors", body = List<ActorView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<ActorsQuery>) -> Answer {
    let page = Page::new("xbus_actors", query.limit, query.cursor.as_deref())?;
    let of = match &query.account {
        Some(named) => Some(account(&admin, named, Verb::AdminRead)?.id),
        None => None,
    };
    let wanted = query.status.map(StatusWord::rules);
    let fits = |row: &ActorRow| {
        of.as_ref().is_none_or(|of| row.account == *of)
            && wanted.is_none_or(|wanted| row.status() == wanted)
            && query.role.as_ref().is_none_or(|role| row.roles.contains(role))
    };
    let list = look(&admin, |xbus| {
        let rows = xbus.actors().filter(|row| page.begins_before(&row.name) && fits(row));
        page.of(rows.map(|row| ActorView::new(xbus, row)), |view| view.name.clone())
    });
    Ok(HttpResponse::Ok().json(list))
}

/// One actor, by name or id. The ETag begins with its revision, which is what `If-Match` of a change compares.
#[utoipa::path(get, path = "/api/xbus/actors/{actor}", operation_id = "xbus_actor", tag = "xbus", params(("actor" = String, Path), ConsistencyQuery), responses((status = 200, description = "the actor", body = ActorView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    view(&admin, &actor(&admin, &named, Verb::AdminRead)?)
}

/// What an actor is. What is left out stays as it is.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ActorSetJson {
    /// Name or id of the account of a new actor; a known one stays with its account.
    account: Option<String>,
    /// What it does; needed for a new actor.
    kind: Option<KindWord>,
    /// The roles by which pipelines name it.
    roles: Option<Vec<String>>,
    /// Its configuration.
    config: Option<BTreeMap<String, String>>,
}

/// Creates an actor, or replaces its kind, roles or configuration. With `If-Match` only if it is still the one with that
/// ETag. A new actor has to be accepted.
#[utoipa::path(put, path = "/api/xbus/actors/{actor}", operation_id = "xbus_actor_set", tag = "xbus", params(("actor" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body = ActorSetJson, responses((status = 200, description = "the actor as it is now", body = ActorView), Problems))]
pub(in crate::admin) async fn set(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<ActorSetJson>,
) -> Answer {
    fresh(&admin).await?;
    let present = match actor(&admin, &named, Verb::AdminWrite) {
        Ok(row) => Some(row),
        Err(problem) if problem.is(&missing()) => None,
        Err(problem) => return Err(problem),
    };
    let of = match (&body.account, &present) {
        (Some(named), _) => account(&admin, named, Verb::AdminWrite)?.id,
        (None, Some(row)) => row.account.clone(),
        (None, None) => return Err(Problem::bad(format!("account: actor {named} is new; name its account"))),
    };
    let kind = match (body.kind, &present) {
        (Some(kind), _) => kind.rules(),
        (None, Some(row)) => row.kind(),
        (None, None) => return Err(Problem::bad(format!("kind: actor {named} is new; emitter, worker or consumer"))),
    };
    let revision = present.as_ref().map(|row| row.revision);
    let expected = Conditions::of(&request)?.revision(&admin, || Ok(revision)).await?;
    let mut wanted = match present {
        Some(ActorRow { id, name, roles, config, .. }) => ActorRequest { id, name, roles, config, kind: 0 },
        None => ActorRequest { id: new_id().to_vec(), name: named.into_inner(), ..ActorRequest::default() },
    };
    wanted.set_kind(kind);
    if let Some(roles) = body.roles {
        wanted.roles = roles;
    }
    if let Some(config) = body.config {
        wanted.config = entries(config);
    }
    apply(&admin, expected, Change::ActorSet(ActorSet { account: of, actor: wanted })).await
}

fn missing() -> rollbook_core::error::Refusal {
    rollbook_core::error::Refusal::XbusNotFound(String::new())
}

/// Makes a change of an actor and answers with the actor.
async fn apply(admin: &Admin, expected: Option<u64>, change_of: Change) -> Answer {
    let mut actors = change(admin, expected, change_of).await?.actors;
    view(admin, &actors.pop().ok_or_else(|| Problem::storage("no answer"))?)
}

/// Entries of the configuration that an operator sets with a decision.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct DecisionJson {
    /// Entries of its configuration to set; an empty text removes the entry.
    config: BTreeMap<String, String>,
}

async fn decide(
    admin: &Admin,
    request: &HttpRequest,
    named: &str,
    status: ActorStatus,
    config: BTreeMap<String, String>,
) -> Answer {
    fresh(admin).await?;
    let row = actor(admin, named, Verb::AdminWrite)?;
    let expected = Conditions::of(request)?.revision(admin, || Ok(Some(row.revision))).await?;
    let mut set = ActorStatusSet { id: row.id, config: entries(config), ..ActorStatusSet::default() };
    set.set_status(status);
    apply(admin, expected, Change::ActorStatus(set)).await
}

/// Accepts an actor: it may work, as long as its account is enabled.
#[utoipa::path(post, path = "/api/xbus/actors/{actor}/accept", operation_id = "xbus_actor_accept", tag = "xbus", params(("actor" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body = Option<DecisionJson>, responses((status = 200, description = "the actor as it is now", body = ActorView), Problems))]
pub(in crate::admin) async fn accept(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
    Optional(body): Optional<DecisionJson>,
) -> Answer {
    decide(&admin, &request, &named, ActorStatus::Enabled, body.config).await
}

/// Rejects an actor: it may not work, and its program is told that an operator said no.
#[utoipa::path(post, path = "/api/xbus/actors/{actor}/reject", operation_id = "xbus_actor_reject", tag = "xbus", params(("actor" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 200, description = "the actor as it is now", body = ActorView), Problems))]
pub(in crate::admin) async fn reject(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    decide(&admin, &request, &named, ActorStatus::Rejected, BTreeMap::new()).await
}

/// Disables an actor: it may not work any more, and its jobs go to others.
#[utoipa::path(post, path = "/api/xbus/actors/{actor}/disable", operation_id = "xbus_actor_disable", tag = "xbus", params(("actor" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 200, description = "the actor as it is now", body = ActorView), Problems))]
pub(in crate::admin) async fn disable(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    decide(&admin, &request, &named, ActorStatus::Disabled, BTreeMap::new()).await
}

/// Deletes an actor. Its program registers it anew when it comes again.
#[utoipa::path(delete, path = "/api/xbus/actors/{actor}", operation_id = "xbus_actor_delete", tag = "xbus", params(("actor" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 204, description = "the actor is gone"), Problems))]
pub(in crate::admin) async fn delete(
    admin: web::Data<Admin>,
    request: HttpRequest,
    named: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    fresh(&admin).await?;
    let row = actor(&admin, &named, Verb::AdminWrite)?;
    let expected = Conditions::of(&request)?.revision(&admin, || Ok(Some(row.revision))).await?;
    change(&admin, expected, Change::ActorDelete(row.id)).await?;
    Ok(HttpResponse::NoContent().finish())
}
