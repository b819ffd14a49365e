//! `/api/xbus/envelopes`: what is known of an envelope.

use actix_web::{HttpResponse, web};
use rollbook_core::security::right::Verb;
use rollbook_core::subjects::subject::Namespace;
use rollbook_core::xbus::change::{Change, Expire};
use rollbook_core::xbus::envelope::row::{EnvelopeRow, EnvelopeStatus, EventRow};
use rollbook_core::xbus::limits::FRAGMENTS_MAX;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::common::{RemovedView, before, change, client, id, look, not_found, text, time};
use super::process_view::actor_name;
use crate::admin::Admin;
use crate::admin::body::Object;
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(
            resource(
                "/api/xbus/envelopes/purge",
                [write("POST", "xbus.envelopes_purge", Verb::AdminWrite, "xbus/envelopes")],
            )
            .route(web::post().to(purge)),
        )
        .service(resource("/api/xbus/envelopes/{id}", [get("xbus/envelopes/{id}")]).route(web::get().to(show)));
}

/// An envelope.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct EnvelopeView {
    id: String,
    /// `receiving`, `stalled`, `complete` or `error`.
    status: &'static str,
    /// What is wrong with an envelope in error.
    reason: String,
    /// Name of the actor that sends it, or the id when the actor is gone.
    actor: String,
    /// The output on which the actor sends it.
    output: String,
    /// Of a worker: the process of its job.
    process: Option<String>,
    /// Of a worker: the node of its job.
    node: Option<String>,
    /// Bytes of all items.
    bytes: u64,
    created_at: Option<String>,
    /// When the newest fragment came.
    changed_at: Option<String>,
    events: Vec<EnvelopeEvent>,
    fragments: Vec<FragmentView>,
}

/// An event of an envelope.
#[derive(Debug, Serialize, ToSchema)]
struct EnvelopeEvent {
    id: String,
    /// Its type; empty as long as it is only announced.
    r#type: String,
    /// Items so far.
    items: u64,
    /// Items of the whole event; `null`: not known yet.
    item_count: Option<u64>,
    /// Bytes of the items so far.
    bytes: u64,
    /// Whether the event is whole.
    is_complete: bool,
}

/// Where a fragment is in the book.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EnvelopeFragment)]
struct FragmentView {
    /// The first one is 0.
    number: u32,
    /// The namespace of the event with its items.
    namespace: &'static str,
    /// The index of that event.
    index: u64,
}

impl From<&EventRow> for EnvelopeEvent {
    fn from(row: &EventRow) -> Self {
        Self {
            id: text(&row.id),
            r#type: row.event_type.clone(),
            items: row.items,
            item_count: (row.item_count != 0 || row.complete).then_some(row.item_count),
            bytes: row.bytes,
            is_complete: row.complete,
        }
    }
}

const fn word(status: EnvelopeStatus) -> &'static str {
    match status {
        EnvelopeStatus::Unknown => "unknown",
        EnvelopeStatus::Receiving => "receiving",
        EnvelopeStatus::Complete => "complete",
        EnvelopeStatus::Error => "error",
        EnvelopeStatus::Stalled => "stalled",
    }
}

fn view(admin: &Admin, row: &EnvelopeRow, events: &[EventRow], fragments: &[(u32, u64)]) -> EnvelopeView {
    let said = |text: String| Some(text).filter(|text| !text.is_empty());
    let fragment =
        |(number, index): &(u32, u64)| FragmentView { number: *number, namespace: Namespace::XBUS, index: *index };
    EnvelopeView {
        id: text(&row.id),
        status: word(row.status()),
        reason: row.reason.clone(),
        actor: look(admin, |xbus| actor_name(xbus, &row.actor)),
        output: row.output.clone(),
        process: said(text(&row.process)),
        node: said(row.node.clone()),
        bytes: row.bytes,
        created_at: time(row.created),
        changed_at: time(row.touched),
        events: events.iter().map(EnvelopeEvent::from).collect(),
        fragments: fragments.iter().map(fragment).collect(),
    }
}

/// One envelope: how far it is, its events, and where its fragments are in the book. An envelope in error has neither.
#[utoipa::path(get, path = "/api/xbus/envelopes/{id}", operation_id = "xbus_envelope", tag = "xbus", params(("id" = String, Path), ConsistencyQuery), responses((status = 200, description = "the envelope", body = EnvelopeView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    let (id, client) = (id(&named)?, client(&admin));
    let row = client.envelope(id).await?.ok_or_else(|| not_found("envelope", &named))?;
    let events = client.envelope_events(id).await?;
    let fragments = client.fragments(id, 0, FRAGMENTS_MAX).await?;
    Ok(HttpResponse::Ok().json(view(&admin, &row, &events, &fragments)))
}

/// What is removed that is older.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct OlderJson {
    /// What is older goes; a duration as `168h`.
    #[schema(example = "168h")]
    pub(super) older: String,
}

/// Makes the change that removes what was before a time, step by step, until nothing is left.
pub(super) async fn remove(admin: &Admin, older: &str, of: fn(Expire) -> Change) -> Result<RemovedView, Problem> {
    let (expire, mut removed) = (Expire { millis: before("older", older)? }, 0_u64);
    loop {
        let done = change(admin, None, of(expire)).await?;
        removed = removed.saturating_add(done.count);
        if !done.more {
            return Ok(RemovedView { removed });
        }
    }
}

/// Removes what is known of envelopes that ended long ago, as long as they are older than every process that goes on.
/// Their items stay in the book as long as its retention says.
#[utoipa::path(post, path = "/api/xbus/envelopes/purge", operation_id = "xbus_envelopes_purge", tag = "xbus", request_body = OlderJson, responses((status = 200, description = "how many were removed", body = RemovedView), Problems))]
pub(in crate::admin) async fn purge(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    Object(body): Object<OlderJson>,
) -> Answer {
    Ok(HttpResponse::Ok().json(remove(&admin, &body.older, Change::EnvelopesPurge).await?))
}
