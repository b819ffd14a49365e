//! `/api/namespaces`: the namespaces and their retention.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::time::Duration;

use actix_web::{HttpResponse, web};
use rollbook_core::command::{Command, Done, NamespaceCreate, NamespaceDelete, NamespaceRetain};
use rollbook_core::error::Refusal;
use rollbook_core::limits::{DEDUPE_WINDOW_MS_MAX, DEDUPE_WINDOW_MS_MIN};
use rollbook_core::namespace::{Head, Retention};
use rollbook_core::security::right::Verb;
use rollbook_core::subjects::subject::Namespace;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::{IntoParams, ToSchema};

use super::consumers;
use crate::admin::body::{self, Object};
use crate::admin::caller::check;
use crate::admin::common::{Answer, find_namespace, propose};
use crate::admin::operation::{checked, get, write};
use crate::admin::page::{List, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::admin::{Admin, page};
use crate::base::duration;
use crate::bus::delivery::messages::EndReason;

/// One namespace, as the target of a right.
const ONE: &str = "namespaces/{name}";

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/api/namespaces", [get("namespaces"), checked("POST", "namespace.create")])
                .route(web::get().to(namespaces))
                .route(web::post().to(create_namespace)),
        )
        .service(
            resource(
                "/api/namespaces/{name}",
                [
                    get(ONE),
                    write("PATCH", "namespace.retention", Verb::AdminWrite, ONE),
                    write("DELETE", "namespace.delete", Verb::AdminWrite, ONE),
                ],
            )
            .route(web::get().to(namespace))
            .route(web::patch().to(retain_namespace))
            .route(web::delete().to(delete_namespace)),
        );
}

/// Retention as clients see it: durations as text, `null` for no bound.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct RetentionJson {
    /// Events that are older go; a duration like `24h`.
    #[schema(example = "24h")]
    max_age: Option<String>,
    /// The oldest events go when there are more bytes.
    #[schema(minimum = 1, example = json!(null))]
    max_bytes: Option<u64>,
    /// The oldest events go when there are more.
    #[schema(minimum = 1, example = json!(null))]
    max_events: Option<u64>,
    /// How long a dedupe key is remembered, a duration from `1s` to `24h`; `null` means `2m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2m")]
    dedupe_window: Option<String>,
}

impl RetentionJson {
    fn from_rules(retention: Retention) -> Self {
        let bound = |value: u64| Some(value).filter(|value| *value != 0);
        Self {
            max_age: bound(retention.age_ms_max).map(|ms| duration::format(Duration::from_millis(ms))),
            max_bytes: bound(retention.bytes_max),
            max_events: bound(retention.events_max),
            dedupe_window: bound(retention.dedupe_window_ms).map(|_| window(retention)),
        }
    }

    fn into_rules(self) -> Result<Retention, Problem> {
        let invalid = |detail: String| Problem::new(400, "bad_request", detail);
        let age_ms_max = match self.max_age {
            None => 0,
            Some(text) => {
                let age = duration::parse(&text).map_err(|error| invalid(format!("max_age: {error}")))?;
                let millis = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
                if millis == 0 {
                    return Err(invalid("max_age: must be at least 1ms; null means no bound".to_owned()));
                }
                millis
            }
        };
        if self.max_bytes == Some(0) || self.max_events == Some(0) {
            return Err(invalid("a bound must be at least 1; null means no bound".to_owned()));
        }
        let dedupe_window_ms = match self.dedupe_window {
            None => 0,
            Some(text) => {
                let window = duration::parse(&text).map_err(|error| invalid(format!("dedupe_window: {error}")))?;
                let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
                if !(DEDUPE_WINDOW_MS_MIN..=DEDUPE_WINDOW_MS_MAX).contains(&millis) {
                    return Err(invalid("dedupe_window: must be from 1s to 24h; null means 2m".to_owned()));
                }
                millis
            }
        };
        let (bytes_max, events_max) = (self.max_bytes.unwrap_or(0), self.max_events.unwrap_or(0));
        Ok(Retention { age_ms_max, bytes_max, events_max, dedupe_window_ms })
    }
}

/// How long dedupe keys are remembered.
fn window(retention: Retention) -> String {
    duration::format(Duration::from_millis(retention.dedupe_window()))
}

/// A namespace to be created.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct CreateJson {
    /// 1 to 64 characters of A-Z a-z 0-9 _ -
    #[schema(pattern = "^[A-Za-z0-9_-]{1,64}$")]
    name: String,
    /// Everything is kept by default.
    #[serde(default, deserialize_with = "body::object")]
    retention: RetentionJson,
}

/// What of a namespace can be changed.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "only its schema is used: a merge patch is read as JSON")]
pub(in crate::admin) struct RetainJson {
    /// `null` takes all bounds away.
    retention: Option<RetentionJson>,
}

/// A namespace.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct NamespaceView {
    name: String,
    /// Oldest event that is there.
    first_index: u64,
    /// That of the next event.
    next_index: u64,
    events: u64,
    bytes: u64,
    retention: RetentionJson,
    /// Up to here events are in compressed blocks.
    settled_index: u64,
    /// Bytes of those blocks.
    disk_bytes: u64,
    dedupe: DedupeView,
}

/// The dedupe keys of a namespace.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct DedupeView {
    /// How long a key is remembered.
    window: String,
    /// How many are.
    keys: u64,
    /// How many were forgotten before their time, because there were too many. A count that only grows tells that
    /// the window is shorter than it says.
    evicted: u64,
}

async fn show(admin: &Admin, head: &Head) -> Result<NamespaceView, Problem> {
    let book = admin.bus.node().state().book();
    let dedupe = head.dedupe.unwrap_or_default();
    Ok(NamespaceView {
        name: head.name.clone(),
        first_index: head.first,
        next_index: head.next,
        events: head.events(),
        bytes: head.bytes(),
        retention: RetentionJson::from_rules(head.retention),
        settled_index: book.settled(head).saturating_sub(1),
        disk_bytes: book.settled_bytes(head),
        dedupe: DedupeView { window: window(head.retention), keys: dedupe.keys(), evicted: dedupe.keys_evicted },
    })
}

/// Which page of the namespaces.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ListQuery {
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The namespaces by name, page by page: how many events each has, and how long it keeps them. Those of the node itself
/// (`roll`, `notify`, `_dead_`) are among them once they hold something.
#[utoipa::path(get, path = "/api/namespaces", operation_id = "namespaces_namespaces", tag = "namespaces", params(ListQuery), responses((status = 200, description = "a page of namespaces", body = List<NamespaceView>), Problems))]
pub(in crate::admin) async fn namespaces(admin: web::Data<Admin>, Query(query): Query<ListQuery>) -> Answer {
    let page = Page::new("namespaces", query.limit, query.cursor.as_deref())?;
    let mut heads = admin.bus.node().state().namespaces();
    heads.sort_by(|one, two| one.name.cmp(&two.name));
    let (heads, next_cursor) = page.cut(heads, |head| head.name.clone());
    let mut items = Vec::with_capacity(heads.len());
    for head in &heads {
        items.push(show(&admin, head).await?);
    }
    Ok(page::list(items, next_cursor))
}

/// One namespace: its events, what it keeps, and what it remembers to find repetitions. `next_index` is the index that the
/// next event gets.
#[utoipa::path(get, path = "/api/namespaces/{name}", operation_id = "namespaces_namespace", tag = "namespaces", params(("name" = String, Path), ConsistencyQuery), responses((status = 200, description = "the namespace", body = NamespaceView), Problems))]
pub(in crate::admin) async fn namespace(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    let head = find_namespace(&admin, &name)?;
    Ok(HttpResponse::Ok().json(show(&admin, &head).await?))
}

/// Creates a namespace; 409 when there is one of that name. Where `book.namespaces` is `*` the first publish creates it
/// too.
#[utoipa::path(post, path = "/api/namespaces", operation_id = "namespaces_create_namespace", tag = "namespaces", request_body(content = CreateJson, example = json!({ "name": "example" })), responses((status = 201, description = "the namespace", body = NamespaceView), Problems))]
pub(in crate::admin) async fn create_namespace(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    Object(body): Object<CreateJson>,
) -> Answer {
    let CreateJson { name, retention } = body;
    check(Verb::AdminWrite, &format!("namespaces/{name}"))?;
    if Namespace::parse(&name).is_err() {
        let detail = "a namespace name has 1 to 64 characters of A-Z a-z 0-9 _ -";
        return Err(Problem::new(400, "bad_request", detail));
    }
    if Namespace::is_reserved(&name) {
        return Err(Refusal::NamespaceReserved(name).into());
    }
    let create = NamespaceCreate { name: name.clone(), retention: retention.into_rules()? };
    propose(&admin, Command::NamespaceCreate(create)).await?;
    let head = find_namespace(&admin, &name)?;
    Ok(HttpResponse::Created().json(show(&admin, &head).await?))
}

/// Changes how long a namespace keeps events and dedupe keys: the given members are merged into the present ones, as
/// RFC 7396 says. `null` takes a bound away.
#[utoipa::path(patch, path = "/api/namespaces/{name}", operation_id = "namespaces_retain_namespace", tag = "namespaces", params(("name" = String, Path)), request_body(content = RetainJson, example = json!({ "retention": { "dedupe_window": "2m" } })), responses((status = 200, description = "the namespace as it is now", body = NamespaceView), Problems))]
pub(in crate::admin) async fn retain_namespace(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<NoParameters>,
    Object(patch): Object<Map<String, Value>>,
) -> Answer {
    let invalid = |detail: String| Problem::new(400, "bad_request", detail);
    let head = find_namespace(&admin, &name)?;
    let mut merged =
        serde_json::to_value(RetentionJson::from_rules(head.retention)).map_err(|error| invalid(error.to_string()))?;
    for (key, value) in patch {
        match (key.as_str(), value) {
            ("retention", Value::Null) => merged = json!({}),
            ("retention", Value::Object(members)) => {
                let Value::Object(present) = &mut merged else { continue };
                present.extend(members);
            }
            ("retention", _) => return Err(invalid("retention: expected an object".to_owned())),
            (other, _) => return Err(invalid(format!("unknown field {other}; only retention can be changed"))),
        }
    }
    let retention: RetentionJson =
        serde_json::from_value(merged).map_err(|error| invalid(format!("retention: {error}")))?;
    let retain = NamespaceRetain { name: name.into_inner(), retention: retention.into_rules()? };
    match propose(&admin, Command::NamespaceRetain(retain)).await? {
        Done::Namespace(head) => Ok(HttpResponse::Ok().json(show(&admin, &head).await?)),
        _ => Err(Problem::storage("no answer")),
    }
}

/// Deletes a namespace with its events and consumers, for good. Streams that follow it end. Where `book.namespaces` is `*`
/// the next publish creates it anew.
#[utoipa::path(delete, path = "/api/namespaces/{name}", operation_id = "namespaces_delete_namespace", tag = "namespaces", params(("name" = String, Path)), responses((status = 204, description = "the namespace is gone"), Problems))]
pub(in crate::admin) async fn delete_namespace(
    admin: web::Data<Admin>,
    name: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let name = name.into_inner();
    propose(&admin, Command::NamespaceDelete(NamespaceDelete { name: name.clone() })).await?;
    consumers::end_streams(&admin, name, None, EndReason::Deleted).await;
    Ok(HttpResponse::NoContent().finish())
}
