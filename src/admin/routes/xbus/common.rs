//! Functions that the routes of Xbus share.

use actix_web::HttpResponse;
use actix_web::http::header::ETAG;
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::command::{Command, Done};
use rollbook_core::error::Refusal;
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::security::right::Verb;
use rollbook_core::time::Timestamp;
use rollbook_core::xbus::account::row::{AccountRow, ActorRow};
use rollbook_core::xbus::change::Change;
use rollbook_core::xbus::done::XbusDone;
use rollbook_core::xbus::id::Id;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::Admin;
use crate::admin::caller::check;
use crate::admin::common::{Answer, propose};
use crate::admin::preconditions::etag_of;
use crate::admin::problem::Problem;
use crate::base::{clock, duration};
use crate::bus::write::draft::parse_rfc3339;
use crate::bus::xbus::client::XbusClient;

/// How many rows were removed.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct RemovedView {
    /// How many.
    pub(super) removed: u64,
}

/// The client of the state of Xbus.
pub(super) fn client(admin: &Admin) -> XbusClient {
    admin.xbus.flow().client().clone()
}

/// Reads the state in memory.
pub(super) fn look<T>(admin: &Admin, look: impl FnOnce(&Xbus) -> T) -> T {
    client(admin).look(look)
}

/// Proposes a change in the name of the caller, and waits for its result. Clients hear of what the change did to
/// processes and actors.
pub(super) async fn change(admin: &Admin, if_revision: Option<u64>, change: Change) -> Result<XbusDone, Problem> {
    let done = done(propose(admin, Command::xbus(if_revision, change)).await?)?;
    admin.xbus.flow().tell(&done);
    Ok(done)
}

/// The result of a change.
pub(super) fn done(done: Done) -> Result<XbusDone, Problem> {
    match done {
        Done::Xbus(done) => Ok(*done),
        _ => Err(Problem::storage("no answer")),
    }
}

/// Waits until this node knows all that was there before the request, so that a name stands for what the caller saw.
pub(super) async fn fresh(admin: &Admin) -> Result<(), Problem> {
    admin.bus.node().consensus().read_barrier(Consistency::Linearizable).await?;
    Ok(())
}

/// The problem of a name that is not there.
pub(super) fn not_found(what: &str, name: &str) -> Problem {
    Refusal::XbusNotFound(format!("{what} {name}")).into()
}

/// The id of this text.
pub(super) fn id(text: &str) -> Result<Id, Problem> {
    text.parse().map_err(|error| Problem::bad(format!("{text}: {error}")))
}

/// Bytes of a row as an id in text; empty when there is none.
pub(super) fn text(id: &[u8]) -> String {
    Id::from_slice(id).map(|id| id.to_string()).unwrap_or_default()
}

/// The account of this name or id. The path names the right by what the caller wrote; of an id, the name is checked too.
pub(super) fn account(admin: &Admin, named: &str, verb: Verb) -> Result<AccountRow, Problem> {
    let found = look(admin, |xbus| {
        let by_id = || named.parse().ok().and_then(|id| xbus.account(id));
        xbus.account_named(named).or_else(by_id).cloned()
    });
    let row = found.ok_or_else(|| not_found("account", named))?;
    if row.name != named {
        check(verb, &format!("xbus/accounts/{}", row.name))?;
    }
    Ok(row)
}

/// The actor of this name or id, as with [`account`].
pub(super) fn actor(admin: &Admin, named: &str, verb: Verb) -> Result<ActorRow, Problem> {
    let found = look(admin, |xbus| {
        let by_id = || named.parse().ok().and_then(|id| xbus.actor(id));
        xbus.actor_named(named).or_else(by_id).cloned()
    });
    let row = found.ok_or_else(|| not_found("actor", named))?;
    if row.name != named {
        check(verb, &format!("xbus/actors/{}", row.name))?;
    }
    Ok(row)
}

/// A time of the replicated state as text; `None` for 0.
pub(super) fn time(millis: u64) -> Option<String> {
    (millis != 0).then(|| Timestamp::from_millis(millis).to_string())
}

/// A time of a query, milliseconds since 1970.
pub(super) fn moment(name: &str, text: Option<&str>) -> Result<Option<u64>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let wrong = || Problem::bad(format!("{name}={text}: a time as 2026-11-21T10:00:00Z"));
    let time = parse_rfc3339(text).ok_or_else(wrong)?;
    // A time before 1970 is before everything.
    let seconds = u64::try_from(time.seconds).unwrap_or_default();
    Ok(Some(seconds.saturating_mul(1000).saturating_add(u64::from(time.nanos / 1_000_000))))
}

/// What was before `age` ago, milliseconds since 1970.
pub(super) fn before(name: &str, age: &str) -> Result<u64, Problem> {
    let age = duration::parse(age).map_err(|error| Problem::bad(format!("{name}: {error}")))?;
    Ok(clock::millis().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX)))
}

/// Answers with a row. The ETag begins with its revision, which is what `If-Match` compares, and changes whenever the
/// answer does.
pub(super) fn tagged(revision: u64, view: &impl Serialize) -> Answer {
    let json = serde_json::to_vec(view).map_err(|error| Problem::storage(error.to_string()))?;
    let tag = etag_of(revision, &json);
    Ok(HttpResponse::Ok().insert_header((ETAG, tag)).content_type("application/json").body(json))
}
