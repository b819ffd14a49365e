//! `/api/delayed`: the events that wait for their time.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use rollbook_cluster::error::ReadError;
use rollbook_cluster::node::delayed_reader::{DelayedReader, WaitingEvent};
use rollbook_core::command::{Command, Done};
use rollbook_core::security::right::Verb;
use rollbook_core::time::Timestamp;
use rollbook_core::timed::delayed::{DelayedCancel, DelayedId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::admin::caller::{check, identity};
use crate::admin::common::{Answer, find_namespace, propose};
use crate::admin::operation::{checked, get};
use crate::admin::page::{List, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{NoParameters, Query};
use crate::admin::resource::resource;
use crate::admin::{Admin, page};
use crate::bus::error::Fault;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/delayed", [get("delayed")]).route(web::get().to(list)))
        .service(resource("/api/delayed/{id}", [checked("DELETE", "delayed.cancel")]).route(web::delete().to(cancel)));
}

/// An event that waits for its time.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct DelayedView {
    /// The id under which it waits.
    #[schema(example = "d_2_19adb1c5e40_1")]
    id: String,
    /// When it is published.
    due: String,
    namespace: String,
    subject: String,
    /// Bytes of its record.
    bytes: u64,
}

impl From<WaitingEvent> for DelayedView {
    fn from(WaitingEvent { id, namespace, subject, bytes }: WaitingEvent) -> Self {
        let due = Timestamp::from_millis(id.due).to_string();
        Self { id: id.to_string(), due, namespace, subject, bytes }
    }
}

/// Reads waiting events on a thread that may block.
async fn read<T: Send + 'static>(
    admin: &Admin,
    look: impl FnOnce(DelayedReader) -> Result<T, ReadError> + Send + 'static,
) -> Result<T, Problem> {
    let reader = admin.bus.node().state().delayed();
    let found = tokio::task::spawn_blocking(move || look(reader)).await;
    let found = found.map_err(|error| Fault::internal(error.to_string()))?;
    Ok(found.map_err(Fault::from)?)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ListQuery {
    /// Of this namespace only.
    namespace: Option<String>,
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The events that wait for their time, page by page: those of one namespace after those of another, in the order in which
/// they are published.
#[utoipa::path(get, path = "/api/delayed", operation_id = "delayed_list", tag = "delayed", params(ListQuery), responses((status = 200, description = "a page of waiting events", body = List<DelayedView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<ListQuery>) -> Answer {
    let page = Page::new("delayed", query.limit, query.cursor.as_deref())?;
    if let Some(name) = &query.namespace {
        find_namespace(&admin, name)?;
    }
    let after = page.after().and_then(DelayedId::parse);
    let (limit, wanted) = (page.limit(), query.namespace);
    let is_wanted = move |name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let mut found = read(&admin, move |reader| reader.events(is_wanted, after, limit.saturating_add(1))).await?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next_cursor = found.last().filter(|_| more).map(|last| page.cursor(&last.id.to_string()));
    Ok(page::list(found.into_iter().map(DelayedView::from).collect(), next_cursor))
}

/// Cancels a waiting event: it is never published. Its dedupe key and its chosen id are free again. Whoever may publish to
/// its subject may cancel it, and whoever has `admin:write` on `delayed/` with the name of its namespace.
#[utoipa::path(delete, path = "/api/delayed/{id}", operation_id = "delayed_cancel", tag = "delayed", params(("id" = String, Path)), responses((status = 204, description = "the event is cancelled"), Problems))]
pub(in crate::admin) async fn cancel(
    admin: web::Data<Admin>,
    path: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let missing = || {
        let detail = "no event waits under this id: it was published or cancelled, or never waited";
        Problem::new(404, "delayed_not_found", detail)
    };
    let id = DelayedId::parse(&path).ok_or_else(missing)?;
    let event = read(&admin, move |reader| reader.event(id)).await?.ok_or_else(missing)?;
    if !identity().may(Verb::Publish, &event.subject) {
        check(Verb::AdminWrite, &format!("delayed/{}", event.namespace))?;
    }
    let cancel = Command::DelayedCancel(DelayedCancel::new(&event.namespace, id));
    match propose(&admin, cancel).await? {
        Done::Delayed(done) if done.events > 0 => Ok(HttpResponse::NoContent().finish()),
        _ => Err(missing()),
    }
}
