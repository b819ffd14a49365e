//! `/api/consumers`: durable consumers and groups, how far they are, and what the operator does with them.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::command::{Command, ConsumerDelete, ConsumerSet, Done};
use rollbook_core::consumer::Consumer;
use rollbook_core::event::EventId;
use rollbook_core::namespace::Head;
use rollbook_core::security::right::Verb;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::admin::body::Object;
use crate::admin::common::{Answer, find_namespace, propose};
use crate::admin::operation::{get, write};
use crate::admin::page::{List, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::admin::{Admin, page};
use crate::bus::consume::registry::{EndConsumers, ListMembers};
use crate::bus::delivery::messages::{EndReason, MemberState};
use crate::bus::relay::{EndConsumersEverywhere, ListMembersAnywhere};

/// One consumer, as the target of a right.
const ONE: &str = "consumers/{namespace}/{name}";

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/consumers", [get("consumers")]).route(web::get().to(list)))
        .service(
            resource(
                "/api/consumers/{namespace}/{name}",
                [get(ONE), write("DELETE", "consumer.delete", Verb::AdminWrite, ONE)],
            )
            .route(web::get().to(show))
            .route(web::delete().to(delete)),
        )
        .service(
            resource(
                "/api/consumers/{namespace}/{name}/reset",
                [write("POST", "consumer.reset", Verb::AdminWrite, ONE)],
            )
            .route(web::post().to(reset)),
        )
        .service(
            resource(
                "/api/consumers/{namespace}/{name}/pause",
                [write("POST", "consumer.pause", Verb::AdminWrite, ONE)],
            )
            .route(web::post().to(pause)),
        )
        .service(
            resource(
                "/api/consumers/{namespace}/{name}/resume",
                [write("POST", "consumer.resume", Verb::AdminWrite, ONE)],
            )
            .route(web::post().to(resume)),
        );
}

/// Ends the streams of a deleted or reset consumer on all nodes.
pub(in crate::admin) async fn end_streams(
    admin: &Admin,
    namespace: String,
    consumer: Option<String>,
    reason: EndReason,
) {
    if admin.relay.send(EndConsumersEverywhere(EndConsumers { namespace, consumer, reason })).await.is_err() {
        tracing::debug!("the streams of a consumer were not ended: the relay has stopped");
    }
}

/// A durable consumer or group.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct ConsumerView {
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
    /// The node that serves the consumer, when it was asked and did not answer: the members are not known then.
    unanswered_nodes: Vec<u64>,
}

/// A stream that is a member of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConsumerMember)]
struct MemberView {
    consumer_id: String,
    /// The oldest event that it has and has not acknowledged.
    in_flight: Vec<u64>,
    /// How many such events it has.
    in_flight_count: u32,
}

async fn view(admin: &Admin, head: &Head, consumer: &Consumer) -> ConsumerView {
    let who = ListMembers { namespace: head.name.clone(), consumer: consumer.name.clone() };
    let (members, unanswered_nodes) = match admin.relay.send(ListMembersAnywhere(who)).await {
        Ok(Ok(members)) => (members, Vec::new()),
        Ok(Err(node)) => (Vec::new(), vec![node]),
        // The node is stopping.
        Err(_) => (Vec::new(), vec![admin.bus.node().id()]),
    };
    let member = |state: MemberState| MemberView {
        consumer_id: state.consumer_id,
        in_flight: state.in_flight.into_iter().collect(),
        in_flight_count: state.in_flight_count,
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
        unanswered_nodes,
    }
}

fn find(admin: &Admin, namespace: &str, name: &str) -> Result<(Head, Consumer), Problem> {
    let head = find_namespace(admin, namespace)?;
    let missing = || Problem::new(404, "consumer_not_found", format!("consumer not found: {name}"));
    let consumer = admin.bus.node().state().consumer(&head, name).ok_or_else(missing)?;
    Ok((head, consumer))
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

/// Durable consumers and groups by namespace and name, page by page: how far they are, and who their members are. `lag`
/// counts all events of the namespace behind `ack_floor`.
#[utoipa::path(get, path = "/api/consumers", operation_id = "consumers_list", tag = "consumers", params(ListQuery), responses((status = 200, description = "a page of consumers", body = List<ConsumerView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<ListQuery>) -> Answer {
    let page = Page::new("consumers", query.limit, query.cursor.as_deref())?;
    let node = admin.bus.node();
    let heads = match &query.namespace {
        Some(name) => vec![find_namespace(&admin, name)?],
        None => node.state().namespaces(),
    };
    let mut keyed = Vec::new();
    for head in heads {
        keyed.extend(node.state().consumers(&head).into_iter().map(|consumer| (head.clone(), consumer)));
    }
    let key = |(head, consumer): &(Head, Consumer)| format!("{}/{}", head.name, consumer.name);
    keyed.sort_by_key(key);
    let (keyed, next_cursor) = page.cut(keyed, key);
    // All nodes are asked at once, so that silent nodes cost one timeout together.
    let items = join_all(keyed.iter().map(|(head, consumer)| view(&admin, head, consumer))).await;
    Ok(page::list(items, next_cursor))
}

/// One durable consumer or group: how far it is, and who its members are. A node with members that does not answer is named
/// in `unanswered_nodes`.
#[utoipa::path(get, path = "/api/consumers/{namespace}/{name}", operation_id = "consumers_show", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path), ConsistencyQuery), responses((status = 200, description = "the consumer", body = ConsumerView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    path: web::Path<(String, String)>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    let (head, consumer) = find(&admin, &path.0, &path.1)?;
    Ok(HttpResponse::Ok().json(view(&admin, &head, &consumer).await))
}

/// Forgets a consumer and how far it is; the streams of its members end. The next stream of that name creates it anew.
#[utoipa::path(delete, path = "/api/consumers/{namespace}/{name}", operation_id = "consumers_delete", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path)), responses((status = 204, description = "the consumer is gone"), Problems))]
pub(in crate::admin) async fn delete(
    admin: web::Data<Admin>,
    path: web::Path<(String, String)>,
    _: Query<NoParameters>,
) -> Answer {
    let (namespace, name) = path.into_inner();
    let delete = ConsumerDelete { namespace: namespace.clone(), name: name.clone() };
    propose(&admin, Command::ConsumerDelete(delete)).await?;
    end_streams(&admin, namespace, Some(name), EndReason::Deleted).await;
    Ok(HttpResponse::NoContent().finish())
}

/// Where a cursor goes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ResetJson {
    /// `oldest`, `newest`, an index or an event id: the first event that is delivered again. An event that is not kept
    /// any more means the oldest one that is; one past the end of the log is refused.
    #[schema(example = "oldest")]
    to: Value,
}

fn no_place() -> Problem {
    Problem::bad("to: oldest, newest, an index from 1, or an event id")
}

/// The cursor before the event `to`, unless `to` is an event id.
fn floor(to: &Value, head: &Head) -> Result<u64, Problem> {
    let index = match to {
        Value::String(word) if word == "oldest" => return Ok(head.first.saturating_sub(1)),
        Value::String(word) if word == "newest" => return Ok(head.last()),
        Value::Number(index) => index.as_u64().ok_or_else(no_place)?,
        _ => return Err(no_place()),
    };
    // The index of the next event means the end of the log, as `newest` does.
    if index > head.next {
        let (name, last) = (&head.name, head.last());
        let detail =
            format!("to: {index} is past the newest event of namespace {name}, {last}; newest means behind that");
        return Err(Problem::bad(detail));
    }
    index.checked_sub(1).ok_or_else(no_place)
}

/// The cursor before the event of that id. The oldest event replaces an event that is not kept any more.
async fn floor_of(admin: &Admin, id: &str, head: &Head) -> Result<u64, Problem> {
    let (book, namespace, wanted) = (admin.bus.node().state().book(), head.name.clone(), id.to_owned());
    let found = admin.bus.read(move || book.find_id(&namespace, &wanted)).await?;
    let index = found.or_else(|| gone(id, head)).ok_or_else(|| unknown(id, head))?;
    Ok(index.saturating_sub(1))
}

/// The oldest event, if the id belonged to an event before it.
fn gone(id: &str, head: &Head) -> Option<u64> {
    EventId::parse(id).filter(|id| (1..head.first).contains(&id.sequence)).map(|_| head.first)
}

fn unknown(id: &str, head: &Head) -> Problem {
    let detail =
        format!("to: no event {id} in namespace {}; oldest, newest, an index from 1, or an event id", head.name);
    Problem::bad(detail)
}

/// Sets the cursor; the streams of its members end, and begin anew there when they come again. `to` is the first event
/// that is delivered.
#[utoipa::path(post, path = "/api/consumers/{namespace}/{name}/reset", operation_id = "consumers_reset", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path)), request_body = ResetJson, responses((status = 200, description = "the consumer as it is now", body = ConsumerView), Problems))]
pub(in crate::admin) async fn reset(
    admin: web::Data<Admin>,
    path: web::Path<(String, String)>,
    _: Query<NoParameters>,
    Object(body): Object<ResetJson>,
) -> Answer {
    let (namespace, name) = path.into_inner();
    // This node may not have applied the event that the operator saw on another node.
    admin.bus.node().consensus().read_barrier(Consistency::Linearizable).await?;
    let (head, _) = find(&admin, &namespace, &name)?;
    let ack_floor = Some(match &body.to {
        Value::String(id) if !["oldest", "newest"].contains(&id.as_str()) => floor_of(&admin, id, &head).await?,
        to => floor(to, &head)?,
    });
    let answer = set(&admin, &namespace, &name, ack_floor, None).await?;
    end_streams(&admin, namespace, Some(name), EndReason::Draining).await;
    Ok(answer)
}

/// Delivers nothing to its members, within a second, until it is resumed. Their streams stay open; what is in flight may
/// be acknowledged.
#[utoipa::path(post, path = "/api/consumers/{namespace}/{name}/pause", operation_id = "consumers_pause", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path)), responses((status = 200, description = "the consumer as it is now", body = ConsumerView), Problems))]
pub(in crate::admin) async fn pause(
    admin: web::Data<Admin>,
    path: web::Path<(String, String)>,
    _: Query<NoParameters>,
) -> Answer {
    set(&admin, &path.0, &path.1, None, Some(true)).await
}

/// Delivers again what a pause held back. It goes on behind the last acknowledged event.
#[utoipa::path(post, path = "/api/consumers/{namespace}/{name}/resume", operation_id = "consumers_resume", tag = "consumers", params(("namespace" = String, Path), ("name" = String, Path)), responses((status = 200, description = "the consumer as it is now", body = ConsumerView), Problems))]
pub(in crate::admin) async fn resume(
    admin: web::Data<Admin>,
    path: web::Path<(String, String)>,
    _: Query<NoParameters>,
) -> Answer {
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

#[cfg(test)]
mod tests {
    use rollbook_core::time::Timestamp;
    use serde_json::json;

    use super::*;

    // Events 5 to 16 are kept.
    fn head() -> Head {
        Head { name: "app".to_owned(), first: 5, next: 17, ..Head::default() }
    }

    #[test]
    fn a_cursor_goes_to_an_event_that_is_there_or_to_the_end() {
        let to = |to: Value| floor(&to, &head()).map_err(|problem| problem.to_string());
        let places = [(json!("oldest"), 4), (json!("newest"), 16), (json!(1), 0), (json!(16), 15), (json!(17), 16)];
        for (value, floor) in places {
            assert_eq!(to(value.clone()), Ok(floor), "{value}");
        }
        for value in [json!(18), json!(999_999)] {
            let text = to(value.clone()).unwrap_err();
            assert!(text.contains("past the newest event of namespace app, 16"), "{value}: {text}");
        }
        for value in [json!(0), json!(-1), json!(1.5), json!(null), json!([1])] {
            assert!(to(value.clone()).unwrap_err().starts_with("to: oldest, newest"), "{value}");
        }
    }

    #[test]
    fn an_event_that_is_not_kept_means_the_oldest_one() {
        let of = |sequence| gone(&EventId::new(Timestamp::default(), sequence).to_string(), &head());
        assert_eq!([0, 1, 4, 5, 99].map(of), [None, Some(5), Some(5), None, None]);
        assert_eq!(gone("order-1", &head()), None);
    }
}
