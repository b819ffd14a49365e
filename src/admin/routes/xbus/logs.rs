//! `/api/xbus/logs`: what actors had to say of processes and envelopes.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use rollbook_core::machine::xbus::query::LogEntry;
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::change::Change;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::common::{RemovedView, client, id, look, text, time};
use super::envelopes::{OlderJson, remove};
use super::process_view::{MessageView, actor_name};
use crate::admin::Admin;
use crate::admin::body::Object;
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{self, List, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{NoParameters, Query};
use crate::admin::resource::resource;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/api/xbus/logs/purge", [write("POST", "xbus.logs_purge", Verb::AdminWrite, "xbus/logs")])
                .route(web::post().to(purge)),
        )
        .service(resource("/api/xbus/logs/{id}", [get("xbus/logs/{id}")]).route(web::get().to(list)));
}

/// A log entry of an actor.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct LogView {
    /// When the entry was stored.
    stored_at: Option<String>,
    /// Name of the actor, or its id when it is gone.
    actor: String,
    process: Option<String>,
    /// The node of the process.
    node: Option<String>,
    envelope: Option<String>,
    messages: Vec<MessageView>,
}

impl LogView {
    fn new(xbus: &Xbus, entry: &LogEntry) -> Self {
        let said = |text: String| Some(text).filter(|text| !text.is_empty());
        let log = &entry.log;
        Self {
            stored_at: time(entry.millis),
            actor: actor_name(xbus, &log.actor),
            process: said(text(&log.process)),
            node: said(log.node.clone()),
            envelope: said(text(&log.envelope)),
            messages: log.messages.iter().map(MessageView::from).collect(),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct LogsQuery {
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// Time and ordinal in a cursor.
fn place_of(page: &Page) -> Result<Option<(u64, u64)>, Problem> {
    let Some(text) = page.after() else { return Ok(None) };
    let parts = text.split_once('/').and_then(|(millis, ordinal)| Some((millis.parse().ok()?, ordinal.parse().ok()?)));
    parts.map(Some).ok_or_else(|| Problem::bad("cursor: the next_cursor of a page of this list"))
}

/// The log entries of a process, or of an envelope that belongs to no job, oldest first, page by page. One without
/// entries has an empty list.
#[utoipa::path(get, path = "/api/xbus/logs/{id}", operation_id = "xbus_logs", tag = "xbus", params(("id" = String, Path), LogsQuery), responses((status = 200, description = "a page of log entries", body = List<LogView>), Problems))]
pub(in crate::admin) async fn list(
    admin: web::Data<Admin>,
    named: web::Path<String>,
    Query(query): Query<LogsQuery>,
) -> Answer {
    let page = Page::new("xbus_logs", query.limit, query.cursor.as_deref())?;
    let mut entries = client(&admin).logs(id(&named)?, place_of(&page)?, page.limit().saturating_add(1)).await?;
    let more = entries.len() > page.limit();
    entries.truncate(page.limit());
    let last = entries.last().filter(|_| more);
    let next = last.map(|entry| page.cursor(&format!("{}/{}", entry.millis, entry.ordinal)));
    let views = look(&admin, |xbus| entries.iter().map(|entry| LogView::new(xbus, entry)).collect::<Vec<_>>());
    Ok(page::list(views, next))
}

/// Removes old log entries of all processes and envelopes. The processes and envelopes themselves stay.
#[utoipa::path(post, path = "/api/xbus/logs/purge", operation_id = "xbus_logs_purge", tag = "xbus", request_body = OlderJson, responses((status = 200, description = "how many were removed", body = RemovedView), Problems))]
pub(in crate::admin) async fn purge(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    Object(body): Object<OlderJson>,
) -> Answer {
    Ok(HttpResponse::Ok().json(remove(&admin, &body.older, Change::LogsPurge).await?))
}
