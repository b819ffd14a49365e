//! `/api/services`: the roll as the operator sees and changes it, on any node for the whole cluster.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::collections::HashMap;
use std::ops::ControlFlow;

use actix_web::http::header::{ContentType, ETAG};
use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::command::{Command, Done};
use rollbook_core::error::Refusal;
use rollbook_core::security::right::Verb;
use rollbook_core::service::{Connection, Instance, InstanceMark, Service, ServiceRemove, ServiceUpdate};
use rollbook_core::subjects::pattern::Pattern;
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use super::connections;
use super::views::{InstanceView, ServiceDetail, ServiceView};
use crate::admin::body::{Object, Optional};
use crate::admin::common::{Answer, propose};
use crate::admin::operation::{Operation, get, write};
use crate::admin::page::{List, Page};
use crate::admin::preconditions::{Conditions, etag, etag_of, is_known};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::admin::{Admin, merge, page};
use crate::bus::call::survey::{ClientView, Wanted};
use crate::bus::client::clients::CloseReason;
use crate::bus::read::event_json;

/// Most events of the roll that a history looks through.
const HISTORY_DEPTH: u64 = 100_000;
/// Most commands of one request, for a service with too many instances for one command.
const STEPS_MAX: usize = 4096;
/// Most attempts of a merge when others change the service at the same time.
const MERGES_MAX: u32 = 32;

/// One service, as the target of a right.
const ONE: &str = "services/{id}";
/// The operations of one service.
const OF_ONE: [Operation; 3] = [
    get(ONE),
    write("PUT", "service.update", Verb::AdminWrite, ONE),
    write("DELETE", "service.remove", Verb::AdminWrite, ONE),
];

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/services", [get("services")]).route(web::get().to(list)))
        .service(
            resource("/api/services/{id}", OF_ONE)
                .route(web::get().to(show))
                .route(web::put().to(change))
                .route(web::delete().to(remove)),
        )
        .service(resource("/api/services/{id}/instances", [get(ONE)]).route(web::get().to(instances)))
        .service(resource("/api/services/{id}/history", [get(ONE)]).route(web::get().to(history)))
        .service(
            resource("/api/services/{id}/drain", [write("POST", "service.drain", Verb::Command, "{id}")])
                .route(web::post().to(drain)),
        )
        .service(
            resource("/api/services/{id}/undrain", [write("POST", "service.undrain", Verb::Command, "{id}")])
                .route(web::post().to(undrain)),
        );
}

/// A service with its instances, as the cluster knows them.
pub(in crate::admin) fn find(admin: &Admin, id: &str) -> Result<(Service, Vec<Instance>), Problem> {
    let found = admin.bus.node().state().with_machine(|machine| {
        let service = machine.service(id)?.clone();
        Some((service, machine.instances(id).cloned().collect()))
    });
    found.ok_or_else(|| Refusal::ServiceNotFound(id.to_owned()).into())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ListQuery {
    /// `online` or `offline`.
    #[param(inline)]
    status: Option<Status>,
    /// Of this type only.
    r#type: Option<String>,
    /// Those that offer this capability.
    capability: Option<String>,
    /// Part of the id or name.
    q: Option<String>,
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
enum Status {
    Online,
    Offline,
}

impl ListQuery {
    fn wants(&self, service: &ServiceView) -> bool {
        let part = |text: &str| self.q.as_ref().is_none_or(|q| text.to_lowercase().contains(&q.to_lowercase()));
        let online = service.status == "online";
        self.status.is_none_or(|status| (status == Status::Online) == online)
            && self.r#type.as_ref().is_none_or(|kind| *kind == service.r#type)
            && self.capability.as_ref().is_none_or(|name| service.capabilities.iter().any(|one| one.name == *name))
            && (part(&service.id) || part(&service.name))
    }
}

/// The services on the roll by id, page by page; those that are offline too. A service stays on the roll until it is
/// removed.
#[utoipa::path(get, path = "/api/services", operation_id = "services_list", tag = "services", params(ListQuery), responses((status = 200, description = "a page of services", body = List<ServiceView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<ListQuery>) -> Answer {
    let page = Page::new("services", query.limit, query.cursor.as_deref())?;
    let list = admin.bus.node().state().with_machine(|machine| {
        let view = |service: &Service| {
            let instances: Vec<Instance> = machine.instances(&service.id).cloned().collect();
            ServiceView::new(service, &instances)
        };
        // The services are sorted by id, so those before the page need no view and those after it are not read.
        let behind = machine.services().filter(|service| page.begins_before(&service.id));
        page.of(behind.map(view).filter(|service| query.wants(service)), |service| service.id.clone())
    });
    Ok(HttpResponse::Ok().json(list))
}

/// The instances of a service with the knowledge of their nodes, and the nodes that did not answer.
async fn views(admin: &Admin, instances: &[Instance]) -> (Vec<InstanceView>, Vec<u64>) {
    let mut serials: HashMap<u64, Vec<u64>> = HashMap::new();
    for Connection { owner, serial } in instances.iter().map(|instance| instance.connection) {
        serials.entry(owner.node).or_default().push(serial);
    }
    let wanted = serials.into_iter().map(|(node, serials)| (node, Wanted::serials(serials)));
    let (clients, unanswered) = connections::survey(admin, wanted).await;
    let key = |client: &ClientView| (client.node, client.serial);
    let clients: HashMap<(u64, u64), ClientView> = clients.into_iter().map(|client| (key(&client), client)).collect();
    let of = |instance: &Instance| clients.get(&(instance.connection.owner.node, instance.connection.serial));
    (instances.iter().map(|instance| InstanceView::new(instance, of(instance))).collect(), unanswered)
}

/// One service with its instances, their heartbeats, requests and circuit breakers. The ETag begins with the revision,
/// which is what `If-Match` of a change compares, and changes whenever the answer does.
#[utoipa::path(get, path = "/api/services/{id}", operation_id = "services_show", tag = "services", params(("id" = String, Path), ConsistencyQuery), responses((status = 200, description = "the service", body = ServiceDetail), (status = 304, description = "the caller has it"), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    request: HttpRequest,
    id: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    let (service, instances) = find(&admin, &id)?;
    let (views, unanswered) = views(&admin, &instances).await;
    let detail = ServiceDetail::new(ServiceView::new(&service, &instances), views, unanswered);
    let body = serde_json::to_vec(&detail).map_err(|error| Problem::storage(error.to_string()))?;
    let tag = etag_of(service.revision, &body);
    if is_known(&request, &tag) {
        return Ok(HttpResponse::NotModified().insert_header((ETAG, tag)).finish());
    }
    Ok(HttpResponse::Ok().insert_header((ETAG, tag)).insert_header(ContentType::json()).body(body))
}

/// The connected instances of a service, with what their nodes know of them. A node that does not answer is named in
/// `unanswered_nodes`.
#[utoipa::path(get, path = "/api/services/{id}/instances", operation_id = "services_instances", tag = "services", params(("id" = String, Path), ConsistencyQuery), responses((status = 200, description = "all instances", body = List<InstanceView>), Problems))]
pub(in crate::admin) async fn instances(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    let (_, instances) = find(&admin, &id)?;
    Ok(listed(views(&admin, &instances).await))
}

fn listed((views, unanswered): (Vec<InstanceView>, Vec<u64>)) -> HttpResponse {
    HttpResponse::Ok().json(List::whole(views).without(unanswered))
}

/// Merges the body into the metadata of the service, as RFC 7396 says: `null` takes a member away. With `If-Match` only
/// if nobody has changed the service since the GET with that ETag; else 412.
#[utoipa::path(put, path = "/api/services/{id}", operation_id = "services_merge", tag = "services", params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET", example = "\"7\"")), request_body(content = Object, description = "metadata to be merged", example = json!({ "owner": "ops" })), responses((status = 200, description = "the service as it is now", body = ServiceView), Problems))]
pub(in crate::admin) async fn change(
    admin: web::Data<Admin>,
    request: HttpRequest,
    id: web::Path<String>,
    _: Query<NoParameters>,
    Object(patch): Object<Box<RawValue>>,
) -> Answer {
    let id = id.into_inner();
    let revision = || find(&admin, &id).map(|(service, _)| Some(service.revision));
    let expected = Conditions::of(&request)?.revision(&admin, revision).await?;
    for _ in 0..MERGES_MAX {
        let (service, instances) = find(&admin, &id)?;
        let metadata = merge::merge(&ServiceView::new(&service, &instances).metadata, &patch)
            .map_err(|error| Problem::bad(error.to_string()))?;
        let if_revision = Some(expected.unwrap_or(service.revision));
        let update = ServiceUpdate { id: id.clone(), metadata: metadata.get().to_owned(), if_revision };
        match propose(&admin, Command::ServiceUpdate(update)).await {
            Ok(Done::Service(service)) => {
                let tag = etag(service.revision);
                return Ok(HttpResponse::Ok().insert_header((ETAG, tag)).json(ServiceView::new(&service, &instances)));
            }
            Ok(_) => return Err(Problem::storage("no answer")),
            Err(problem) if expected.is_none() && problem.is(&Refusal::RevisionMismatch(String::new())) => {}
            Err(problem) => return Err(problem),
        }
    }
    Err(Refusal::Overloaded("others change the service all the time".to_owned()).into())
}

/// Takes a service and all its instances off the roll; their connections are ended, and stay away. With `If-Match` only
/// if nobody has changed the service since the GET with that ETag; else 412.
#[utoipa::path(delete, path = "/api/services/{id}", operation_id = "services_remove", tag = "services", params(("id" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET", example = "\"7\"")), responses((status = 204, description = "the service is off the roll"), Problems))]
pub(in crate::admin) async fn remove(
    admin: web::Data<Admin>,
    request: HttpRequest,
    id: web::Path<String>,
    _: Query<NoParameters>,
) -> Answer {
    let remove = ServiceRemove { id: id.into_inner() };
    let revision = || find(&admin, &remove.id).map(|(service, _)| Some(service.revision));
    if let Some(expected) = Conditions::of(&request)?.revision(&admin, revision).await? {
        // The log has no conditional removal, so this barrier comes as close as possible.
        admin.bus.node().consensus().read_barrier(Consistency::Linearizable).await?;
        let present = revision()?.unwrap_or_default();
        if present != expected {
            return Err(Refusal::RevisionMismatch(format!("revision is {present}, not {expected}")).into());
        }
    }
    for _ in 0..STEPS_MAX {
        let Done::Removed(removed) = propose(&admin, Command::ServiceRemove(remove.clone())).await? else {
            return Err(Problem::storage("no answer"));
        };
        for instance in removed.instances {
            admin.services.peers.close(instance.connection, CloseReason::Removed, &admin.services.clients);
        }
        if !removed.more {
            return Ok(HttpResponse::NoContent().finish());
        }
    }
    Err(Refusal::Overloaded("its instances come back as fast as they are removed".to_owned()).into())
}

/// Which instances of a service; all when none is named.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct WhichJson {
    /// Id of the instance.
    #[schema(example = json!(null))]
    instance: Option<String>,
}

/// Sends no new requests to any instance of a service, or to one, until it is undrained; what they have they may end. `GET`
/// of the service shows how much that is.
#[utoipa::path(post, path = "/api/services/{id}/drain", operation_id = "services_drain", tag = "services", params(("id" = String, Path)), request_body = Option<WhichJson>, responses((status = 200, description = "all instances", body = List<InstanceView>), Problems))]
pub(in crate::admin) async fn drain(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    _: Query<NoParameters>,
    Optional(which): Optional<WhichJson>,
) -> Answer {
    mark(&admin, id.into_inner(), which, true).await
}

/// Sends requests again to instances that were drained. Answers with the instances as they are now.
#[utoipa::path(post, path = "/api/services/{id}/undrain", operation_id = "services_undrain", tag = "services", params(("id" = String, Path)), request_body = Option<WhichJson>, responses((status = 200, description = "all instances", body = List<InstanceView>), Problems))]
pub(in crate::admin) async fn undrain(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    _: Query<NoParameters>,
    Optional(which): Optional<WhichJson>,
) -> Answer {
    mark(&admin, id.into_inner(), which, false).await
}

async fn mark(admin: &Admin, service: String, which: WhichJson, draining: bool) -> Answer {
    let instance = which.instance.unwrap_or_default();
    let mark = InstanceMark {
        service: service.clone(),
        instance,
        draining: Some(draining),
        unhealthy: None,
        connection: None,
    };
    for _ in 0..STEPS_MAX {
        if propose(admin, Command::InstanceMark(mark.clone())).await? != Done::More {
            break;
        }
    }
    let (_, instances) = find(admin, &service)?;
    Ok(listed(views(admin, &instances).await))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct HistoryQuery {
    /// Most events; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The newest lifecycle events of a service, newest first, out of the book. They are events of the namespace `roll`, which
/// can be followed as any other.
#[utoipa::path(get, path = "/api/services/{id}/history", operation_id = "services_history", tag = "services", params(("id" = String, Path), HistoryQuery), responses((status = 200, description = "events of the namespace roll", body = List<Object>), Problems))]
pub(in crate::admin) async fn history(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Answer {
    let limit = Page::new("history", query.limit, None)?.limit();
    let (book, head) = (admin.bus.node().state().book(), admin.bus.node().state().namespace("roll"));
    let id = id.into_inner();
    let pattern = Pattern::parse("roll.service.>").map_err(|error| Problem::storage(error.to_string()))?;
    let read = move || {
        let Some(head) = head else { return Ok(Vec::new()) };
        let mut found = std::collections::VecDeque::new();
        let mut from = head.next.saturating_sub(HISTORY_DEPTH).max(head.first);
        while from < head.next {
            from = book.read("roll", from, Some(&pattern), &mut |sequence, event, _| {
                if is_about(event.payload, &id) {
                    let mut json = Vec::new();
                    event_json::write(i64::try_from(sequence).unwrap_or(i64::MAX), event, &mut json);
                    found.push_front(json);
                    found.truncate(limit);
                }
                ControlFlow::Continue(())
            })?;
        }
        Ok(found.into_iter().collect::<Vec<_>>())
    };
    let found = admin.bus.read(read).await?;
    // The events stay as they are in the book, and one invalid text does not hide the others.
    let parse = |json: Vec<u8>| RawValue::from_string(String::from_utf8(json).ok()?).ok();
    let items: Vec<Box<RawValue>> = found.into_iter().filter_map(parse).collect();
    Ok(page::whole(items))
}

#[derive(Deserialize)]
struct AboutJson<'a> {
    #[serde(borrow)]
    service: IdJson<'a>,
}

#[derive(Deserialize)]
struct IdJson<'a> {
    #[serde(borrow)]
    id: std::borrow::Cow<'a, str>,
}

fn is_about(payload: Option<&[u8]>, id: &str) -> bool {
    let about = payload.and_then(|payload| serde_json::from_slice::<AboutJson<'_>>(payload).ok());
    about.is_some_and(|about| about.service.id == id)
}
