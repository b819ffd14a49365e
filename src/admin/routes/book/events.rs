//! `/api/namespaces/{namespace}/events`: stored events, page by page, and one of them.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::time::Duration;

use actix_web::http::header::ContentType;
use actix_web::{HttpResponse, web};
use rollbook_core::error::Refusal;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::time::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::IntoParams;

use crate::admin::Admin;
use crate::admin::caller::identity;
use crate::admin::common::{Answer, find_namespace};
use crate::admin::operation::{Need, get_for};
use crate::admin::page::{self, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, Query};
use crate::admin::resource::resource;
use crate::base::{clock, duration};
use crate::bus::consume::event_page::{self, Order, PageRequest, Visible};
use crate::bus::write::draft::parse_rfc3339;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/namespaces/{namespace}/events", [get_for(Need::Caller)]).route(web::get().to(list)))
        .service(
            resource("/api/namespaces/{namespace}/events/{event}", [get_for(Need::Caller)]).route(web::get().to(show)),
        );
}

/// Which end of the log comes first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum OrderWord {
    #[default]
    Asc,
    Desc,
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct EventsQuery {
    /// Only events of these subjects, a pattern of the namespace; all of them by default.
    #[param(example = "app.orders.*")]
    subject: Option<String>,
    /// Index of the first event to look at; by default the oldest, or with `order=desc` the newest.
    from: Option<u64>,
    /// `asc`, the oldest first, which is the default, or `desc`, the newest first.
    #[param(value_type = Option<String>, example = "desc")]
    order: Option<OrderWord>,
    /// Only events that were created at this time or later: a time, or so long ago, as `1h`.
    #[param(example = "2026-01-31T12:00:00Z")]
    since: Option<String>,
    /// Only events that were created before this time: a time, or so long ago, as `1h`.
    #[param(example = "1h")]
    until: Option<String>,
    /// Most items of the page; 100 by default. A page may have fewer and yet not be the last one.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before, of the same order.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// Reads a time, or how long ago it was.
fn moment(name: &str, text: Option<&str>) -> Result<Option<Timestamp>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let ago = |ago: Duration| clock::millis().saturating_sub(u64::try_from(ago.as_millis()).unwrap_or(u64::MAX));
    let time = parse_rfc3339(text).or_else(|| Some(Timestamp::from_millis(ago(duration::parse(text).ok()?))));
    let wrong = || Problem::bad(format!("{name}={text}: a time as 2026-11-21T10:00:00Z, or how long ago, as 1h"));
    time.map(Some).ok_or_else(wrong)
}

/// What the caller may see of the subjects of a namespace.
fn visible(namespace: &str, subject: Option<&str>) -> Result<Visible, Problem> {
    let pattern = match subject {
        None => {
            Pattern::parse(&format!("{namespace}.>")).map_err(|_| Refusal::NamespaceNotFound(namespace.to_owned()))?
        }
        Some(subject) => Pattern::parse(subject).map_err(|error| Problem::bad(format!("subject: {error}")))?,
    };
    if pattern.namespace() != namespace {
        let detail = format!("subject={}: a pattern of the namespace {namespace}, as {namespace}.>", pattern.as_str());
        return Err(Problem::bad(detail));
    }
    Ok(Visible::to(&identity(), pattern)?)
}

/// The stored events of a namespace, page by page, the oldest or the newest first. A caller who may subscribe to a part of
/// the subjects sees the events of that part.
#[utoipa::path(get, path = "/api/namespaces/{namespace}/events", operation_id = "events_list", tag = "events", params(("namespace" = String, Path), EventsQuery), responses((status = 200, description = "a page of events", body = List<Object>), Problems))]
pub(in crate::admin) async fn list(
    admin: web::Data<Admin>,
    namespace: web::Path<String>,
    Query(query): Query<EventsQuery>,
) -> Answer {
    let (name, order) = match query.order.unwrap_or_default() {
        OrderWord::Asc => ("events-asc", Order::Ascending),
        OrderWord::Desc => ("events-desc", Order::Descending),
    };
    let page = Page::new(name, query.limit, query.cursor.as_deref())?;
    let goes_on =
        page.after().map(|index| index.parse().map_err(|_| Problem::bad("cursor: the next_cursor of a page")));
    let wanted = PageRequest {
        visible: visible(&namespace, query.subject.as_deref())?,
        order,
        from: goes_on.transpose()?.or(query.from),
        limit: page.limit(),
        since: moment("since", query.since.as_deref())?,
        until: moment("until", query.until.as_deref())?,
    };
    find_namespace(&admin, &namespace)?;
    let found = event_page::page(&admin.bus, wanted).await?;
    let next_cursor = found.next.map(|index| page.cursor(&index.to_string()));
    // The events stay as they are in the book, and one invalid text does not hide the others.
    let parse = |json: Vec<u8>| RawValue::from_string(String::from_utf8_lossy(&json).into_owned());
    let told = |error: &serde_json::Error| {
        tracing::error!(%error, namespace = namespace.as_str(), "an event cannot be shown");
    };
    let items: Vec<Box<RawValue>> =
        found.events.into_iter().filter_map(|json| parse(json).inspect_err(told).ok()).collect();
    Ok(page::list(items, next_cursor))
}

/// One stored event, by its id or by its index in the namespace. An id that is a number goes first. The caller needs the
/// right to subscribe to its subject.
#[utoipa::path(get, path = "/api/namespaces/{namespace}/events/{event}", operation_id = "events_show", tag = "events", params(("namespace" = String, Path), ("event" = String, Path), ConsistencyQuery), responses((status = 200, description = "the event", body = Object), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    path: web::Path<(String, String)>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    let (namespace, which) = path.into_inner();
    let visible = visible(&namespace, None)?;
    find_namespace(&admin, &namespace)?;
    let missing = || Problem::new(404, "event_not_found", format!("event not found: {which}"));
    let found = event_page::one(&admin.bus, visible, which.clone()).await?.ok_or_else(missing)?;
    Ok(HttpResponse::Ok().insert_header(ContentType::json()).body(found))
}
