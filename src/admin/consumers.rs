//! `/api/consumers`: durable consumers and groups, how far they are, and what the operator does with them.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use rollbook_core::command::{Command, ConsumerDelete, ConsumerSet, Done};
use rollbook_core::consumer::Consumer;
use rollbook_core::event::EventId;
use rollbook_core::namespace::Head;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::body::Object;
use super::common::{Answer, find_namespace, propose};
use super::page::{List, Page};
use super::problem::{Problem, Problems, resource};
use super::{Admin, page};
use crate::bus::message::{MemberState, Reason};
use crate::bus::registry::{Forget, Who};
use crate::bus::relay::{ForgetEverywhere, WhoAnywhere};

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/consumers", "GET").route(web::get().to(list)))
        .service(
            resource("/api/consumers/{namespace}/{name}", "GET, DELETE")
                .route(web::get().to(show))
                .route(web::delete().to(delete)),
        )
        .service(resource("/api/consumers/{namespace}/{name}/reset", "POST").route(web::post().to(reset)))
        .service(resource("/api/consumers/{namespace}/{name}/pause", "POST").route(web::post().to(pause)))
        .service(resource("/api/consumers/{namespace}/{name}/resume", "POST").route(web::post().to(resume)));
}

/// Ends the streams of what was deleted or reset, on all nodes.
pub(super) async fn forget(admin: &Admin, namespace: String, consumer: Option<String>, reason: Reason) {
    if admin.relay.send(ForgetEverywhere(Forget { namespace, consumer, reason })).await.is_err() {
        tracing::debug!("the relay is stopping");
    }
}

/// A durable consumer or group.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ConsumerView {
    namespace: String,
    name: String,
    group: bool,
    subject: String,
    /// Everything up to here is done with.
    ack_floor: u64,
    /// Events of the namespace behind that.
    lag: u64,
    members: Vec<MemberView>,
    paused: bool,
}

/// A stream that is a member of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConsumerMember)]
struct MemberView {
    consumer_id: String,
    /// Events that it has and has not acknowledged.
    in_flight: Vec<u64>,
}

async fn view(admin: &Admin, head: &Head, consumer: &Consumer) -> ConsumerView {
    let who = Who { namespace: head.name.clone(), consumer: consumer.name.clone() };
    let members = admin.relay.send(WhoAnywhere(who)).await.unwrap_or_default();
    let member = |state: MemberState| MemberView {
        consumer_id: state.consumer_id,
        in_flight: state.in_flight.into_iter().collect(),
    };
    ConsumerView {
        namespace: head.name.clone(),
        name: consumer.name.clone(),
        group: consumer.group,
        subject: consumer.subject.clone(),
        ack_floor: consumer.ack_floor,
        lag: head.last().saturating_sub(consumer.ack_floor.max(head.first.saturating_sub(1))),
        members: members.into_iter().map(member).collect(),
        paused: consumer.paused,
    }
}

fn find(admin: &Admin, namespace: &str, name: &str) -> Result<(Head, Consumer), Problem> {
    let head = find_namespace(admin, namespace)?;
    let missing = || Problem::new(404, "consumer_not_found", format!("consumer not found: {name}"));
    let consumer = admin.bus.node().consumer(&head, name).ok_or_else(missing)?;
    Ok((head, consumer))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    namespace: Option<String>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    cursor: Option<String>,
    /// Seen by [`super::consistency`].
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

#[utoipa::path(get, path = "/api/consumers", operation_id = "consumers_list", tag = "consumers", params(ListQuery), responses((status = 200, description = "done", body = List<ConsumerView>), Problems))]
pub(super) async fn list(admin: web::Data<Admin>, query: web::Query<ListQuery>) -> Answer {
    let page = Page::new(query.limit, query.cursor.clone())?;
    let node = admin.bus.node();
    let heads = match &query.namespace {
        Some(name) => vec![find_namespace(&admin, name)?],
        None => node.namespaces(),
    };
    let mut keyed = Vec::new();
    for head in heads {
        keyed.extend(node.consumers(&head).into_iter().map(|consumer| (head.clone(), consumer)));
    }
    let key = |(head, consumer): &(Head, Consumer)| format!("{}/{}", head.name, consumer.name);
    keyed.sort_by_key(key);
    let (keyed, next_cursor) = page.cut(keyed, key);
    let mut items = Vec::with_capacity(keyed.len());
    for (head, consumer) in &keyed {
        items.push(view(&admin, head, consumer).await);
    }
    Ok(page::list(items, next_cursor))
}

#[utoipa::path(get, path = "/api/consumers/{namespace}/{name}", operation_id = "consumers_show", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path)), responses((status = 200, description = "done", body = ConsumerView), Problems))]
pub(super) async fn show(admin: web::Data<Admin>, path: web::Path<(String, String)>) -> Answer {
    let (head, consumer) = find(&admin, &path.0, &path.1)?;
    Ok(HttpResponse::Ok().json(view(&admin, &head, &consumer).await))
}

#[utoipa::path(delete, path = "/api/consumers/{namespace}/{name}", operation_id = "consumers_delete", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path)), responses((status = 204, description = "done"), Problems))]
pub(super) async fn delete(admin: web::Data<Admin>, path: web::Path<(String, String)>) -> Answer {
    let (namespace, name) = path.into_inner();
    let delete = ConsumerDelete { namespace: namespace.clone(), name: name.clone() };
    propose(&admin, Command::ConsumerDelete(delete)).await?;
    forget(&admin, namespace, Some(name), Reason::Deleted).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Where a cursor goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ResetJson {
    /// `oldest`, `newest`, an index or an event id: the first event that is delivered again.
    to: Value,
}

/// The cursor that makes `to` the next event.
fn floor(to: &Value, head: &Head) -> Option<u64> {
    let before = |index: u64| Some(index.checked_sub(1)?.min(head.last()));
    match to {
        Value::Number(index) => before(index.as_u64()?),
        Value::String(word) => match word.as_str() {
            "oldest" => Some(head.first.saturating_sub(1)),
            "newest" => Some(head.last()),
            id => before(EventId::parse(id)?.sequence),
        },
        _ => None,
    }
}

/// Sets the cursor; the streams of its members end, and begin anew there when they come again.
#[utoipa::path(post, path = "/api/consumers/{namespace}/{name}/reset", operation_id = "consumers_reset", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path)), request_body = ResetJson, responses((status = 200, description = "done", body = ConsumerView), Problems))]
pub(super) async fn reset(
    admin: web::Data<Admin>,
    path: web::Path<(String, String)>,
    Object(body): Object<ResetJson>,
) -> Answer {
    let (namespace, name) = path.into_inner();
    let (head, _) = find(&admin, &namespace, &name)?;
    let wrong = || Problem::new(400, "bad_request", "to: oldest, newest, an index from 1, or an event id e_...");
    let ack_floor = Some(floor(&body.to, &head).ok_or_else(wrong)?);
    let answer = set(&admin, &namespace, &name, ack_floor, None).await?;
    forget(&admin, namespace, Some(name), Reason::Draining).await;
    Ok(answer)
}

#[utoipa::path(post, path = "/api/consumers/{namespace}/{name}/pause", operation_id = "consumers_pause", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path)), responses((status = 200, description = "done", body = ConsumerView), Problems))]
pub(super) async fn pause(admin: web::Data<Admin>, path: web::Path<(String, String)>) -> Answer {
    set(&admin, &path.0, &path.1, None, Some(true)).await
}

#[utoipa::path(post, path = "/api/consumers/{namespace}/{name}/resume", operation_id = "consumers_resume", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path)), responses((status = 200, description = "done", body = ConsumerView), Problems))]
pub(super) async fn resume(admin: web::Data<Admin>, path: web::Path<(String, String)>) -> Answer {
    set(&admin, &path.0, &path.1, None, Some(false)).await
}

async fn set(admin: &Admin, namespace: &str, name: &str, ack_floor: Option<u64>, paused: Option<bool>) -> Answer {
    let set = ConsumerSet { namespace: namespace.to_owned(), name: name.to_owned(), ack_floor, paused };
    match propose(admin, Command::ConsumerSet(set)).await? {
        Done::Consumer(consumer) => {
            let head = find_namespace(admin, namespace)?;
            Ok(HttpResponse::Ok().json(view(admin, &head, &consumer).await))
        }
        _ => Err(Problem::storage("no answer")),
    }
}
