//! `/api/services`: the roll as the operator sees and changes it, on any node for the whole cluster.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::collections::HashMap;
use std::ops::ControlFlow;

use actix_web::http::header::ETAG;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use rollbook_core::command::{Command, Done};
use rollbook_core::error::Refusal;
use rollbook_core::pattern::Pattern;
use rollbook_core::service::{Connection, Instance, InstanceMark, Service, ServiceRemove, ServiceUpdate};
use serde::Deserialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use super::common::{Answer, propose};
use super::page::{List, Page};
use super::preconditions::{etag, expected, is_known};
use super::problem::{Problem, Problems, resource};
use super::views::{InstanceView, ServiceDetail, ServiceView};
use super::{Admin, body, connections, page};
use crate::bus::client::Farewell;
use crate::bus::event_json;
use crate::bus::survey::{ClientView, Wanted};

/// So many of the newest events of the roll are looked through for the history of one service.
const HISTORY_DEPTH: u64 = 100_000;
/// Most commands that one request makes when a service has so many instances that one command is not enough.
const STEPS_MAX: usize = 4096;
/// How often a merge is tried anew when others change the service at the same time.
const MERGES_MAX: u32 = 32;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/services", "GET").route(web::get().to(list)))
        .service(
            resource("/api/services/{id}", "GET, PUT, DELETE")
                .route(web::get().to(show))
                .route(web::put().to(merge))
                .route(web::delete().to(remove)),
        )
        .service(resource("/api/services/{id}/instances", "GET").route(web::get().to(instances)))
        .service(resource("/api/services/{id}/history", "GET").route(web::get().to(history)))
        .service(resource("/api/services/{id}/drain", "POST").route(web::post().to(drain)))
        .service(resource("/api/services/{id}/undrain", "POST").route(web::post().to(undrain)));
}

/// A service with its instances, as the cluster knows them.
pub(super) fn find(admin: &Admin, id: &str) -> Result<(Service, Vec<Instance>), Problem> {
    let found = admin.bus.node().with_machine(|machine| {
        let service = machine.service(id)?.clone();
        Some((service, machine.instances(id).cloned().collect()))
    });
    found.ok_or_else(|| Refusal::ServiceNotFound(id.to_owned()).into())
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `online` or `offline`.
    #[param(inline)]
    status: Option<Status>,
    r#type: Option<String>,
    capability: Option<String>,
    /// Part of the id or name.
    q: Option<String>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    cursor: Option<String>,
    /// Seen by [`super::consistency`].
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

#[utoipa::path(get, path = "/api/services", operation_id = "services_list", tag = "services", params(ListQuery), responses((status = 200, description = "done", body = List<ServiceView>), Problems))]
pub(super) async fn list(admin: web::Data<Admin>, query: web::Query<ListQuery>) -> Answer {
    let page = Page::new(query.limit, query.cursor.clone())?;
    let all = admin.bus.node().with_machine(|machine| {
        let view = |service: &Service| {
            let instances: Vec<Instance> = machine.instances(&service.id).cloned().collect();
            ServiceView::new(service, &instances)
        };
        machine.services().map(view).filter(|service| query.wants(service)).collect::<Vec<_>>()
    });
    Ok(page.of(all, |service| service.id.clone()))
}

/// The instances of a service with what their nodes know of them.
async fn views(admin: &Admin, instances: &[Instance]) -> Vec<InstanceView> {
    let mut serials: HashMap<u64, Vec<u64>> = HashMap::new();
    for Connection { owner, serial } in instances.iter().map(|instance| instance.connection) {
        serials.entry(owner.node).or_default().push(serial);
    }
    let asked = serials.into_iter().map(|(node, serials)| (node, Wanted::serials(serials)));
    let clients = connections::survey(admin, asked).await;
    let key = |client: &ClientView| (client.node, client.serial);
    let clients: HashMap<(u64, u64), ClientView> = clients.into_iter().map(|client| (key(&client), client)).collect();
    let of = |instance: &Instance| clients.get(&(instance.connection.owner.node, instance.connection.serial));
    instances.iter().map(|instance| InstanceView::new(instance, of(instance))).collect()
}

#[utoipa::path(get, path = "/api/services/{id}", operation_id = "services_show", tag = "services", params(("id" = String, Path)), responses((status = 200, description = "done", body = ServiceDetail), (status = 304, description = "the caller has it"), Problems))]
pub(super) async fn show(admin: web::Data<Admin>, request: HttpRequest, id: web::Path<String>) -> Answer {
    let (service, instances) = find(&admin, &id)?;
    let tag = etag(service.revision);
    if is_known(&request, service.revision) {
        return Ok(HttpResponse::NotModified().insert_header((ETAG, tag)).finish());
    }
    let detail = ServiceDetail::new(ServiceView::new(&service, &instances), views(&admin, &instances).await);
    Ok(HttpResponse::Ok().insert_header((ETAG, tag)).json(detail))
}

#[utoipa::path(get, path = "/api/services/{id}/instances", operation_id = "services_instances", tag = "services", params(("id" = String, Path)), responses((status = 200, description = "done", body = List<InstanceView>), Problems))]
pub(super) async fn instances(admin: web::Data<Admin>, id: web::Path<String>) -> Answer {
    let (_, instances) = find(&admin, &id)?;
    Ok(page::whole(views(&admin, &instances).await))
}

/// Merges the body into the metadata of the service, as RFC 7396 says.
#[utoipa::path(put, path = "/api/services/{id}", operation_id = "services_merge", tag = "services", params(("id" = String, Path)), request_body(content = Object, description = "metadata to be merged"), responses((status = 200, description = "done", body = ServiceView), Problems))]
pub(super) async fn merge(
    admin: web::Data<Admin>,
    request: HttpRequest,
    id: web::Path<String>,
    patch: web::Json<Value>,
) -> Answer {
    let expected = expected(&request)?;
    if !patch.is_object() {
        return Err(Problem::new(400, "bad_request", "the body is an object: the metadata to be merged"));
    }
    for _ in 0..MERGES_MAX {
        let (service, instances) = find(&admin, &id)?;
        let mut metadata = ServiceView::new(&service, &instances).metadata;
        json_patch::merge(&mut metadata, &patch);
        let if_revision = Some(expected.unwrap_or(service.revision));
        let update = ServiceUpdate { id: id.clone(), metadata: metadata.to_string(), if_revision };
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

/// Takes a service and all its instances off the roll; their connections are ended, and stay away.
#[utoipa::path(delete, path = "/api/services/{id}", operation_id = "services_remove", tag = "services", params(("id" = String, Path)), responses((status = 204, description = "done"), Problems))]
pub(super) async fn remove(admin: web::Data<Admin>, id: web::Path<String>) -> Answer {
    let remove = ServiceRemove { id: id.into_inner() };
    for _ in 0..STEPS_MAX {
        let Done::Removed(removed) = propose(&admin, Command::ServiceRemove(remove.clone())).await? else {
            return Err(Problem::storage("no answer"));
        };
        for instance in removed.instances {
            admin.services.peers.close(instance.connection, Farewell::Removed, &admin.services.clients);
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
pub(super) struct WhichJson {
    instance: Option<String>,
}

#[utoipa::path(post, path = "/api/services/{id}/drain", operation_id = "services_drain", tag = "services", params(("id" = String, Path)), request_body = Option<WhichJson>, responses((status = 200, description = "done", body = List<InstanceView>), Problems))]
pub(super) async fn drain(admin: web::Data<Admin>, id: web::Path<String>, body: Bytes) -> Answer {
    mark(&admin, id.into_inner(), body, true).await
}

#[utoipa::path(post, path = "/api/services/{id}/undrain", operation_id = "services_undrain", tag = "services", params(("id" = String, Path)), request_body = Option<WhichJson>, responses((status = 200, description = "done", body = List<InstanceView>), Problems))]
pub(super) async fn undrain(admin: web::Data<Admin>, id: web::Path<String>, body: Bytes) -> Answer {
    mark(&admin, id.into_inner(), body, false).await
}

async fn mark(admin: &Admin, service: String, body: Bytes, draining: bool) -> Answer {
    let WhichJson { instance } = body::optional(&body)?;
    let instance = instance.unwrap_or_default();
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
    Ok(page::whole(views(admin, &instances).await))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct HistoryQuery {
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Seen by [`super::consistency`].
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// The newest lifecycle events of a service, newest first, out of the book.
#[utoipa::path(get, path = "/api/services/{id}/history", operation_id = "services_history", tag = "services", params(("id" = String, Path), HistoryQuery), responses((status = 200, description = "done", body = List<Object>), Problems))]
pub(super) async fn history(admin: web::Data<Admin>, id: web::Path<String>, query: web::Query<HistoryQuery>) -> Answer {
    let limit = Page::new(query.limit, None)?.limit();
    let (book, head) = (admin.bus.node().book(), admin.bus.node().namespace("roll"));
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
    let parse =
        |json: Vec<u8>| serde_json::from_slice::<Value>(&json).map_err(|error| Problem::storage(error.to_string()));
    let items: Vec<Value> = found.into_iter().map(parse).collect::<Result<_, _>>()?;
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
