//! Commands to services, and calls of them: `/api/services/{id}/restart|shutdown|ping`, `/api/services/restart-all`,
//! `/api/call/{service}/{method}`.

use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::HeaderMap;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::future::join_all;
use rollbook_core::error::Refusal;
use rollbook_core::limits;
use rollbook_core::security::right::Verb;
use rollbook_core::service::Instance;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::restart::{self, Before};
use super::services::{self, find};
use crate::admin::Admin;
use crate::admin::body::{self, Optional};
use crate::admin::caller::identity;
use crate::admin::common::Answer;
use crate::admin::keys::ClaimResult;
use crate::admin::operation::{Operation, get, unlisted, write};
use crate::admin::page::List;
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{NoParameters, Query};
use crate::admin::resource::resource;
use crate::base::actors::hint;
use crate::base::process_name::ProcessName;
use crate::base::{clock, duration};
use crate::bus::client::call::{Answer as Answered, Caller, Payload, Request, Responder, traceparent};
use crate::bus::client::plain::plain;
use crate::bus::docks::order::CommandError;
use crate::bus::error::Fault;
use crate::bus::relay::peer_client::{Delivery, Order};
use crate::bus::roll::services::Services;
use crate::bus::security::identity::Identity;
use crate::net::http_body::BodyError;

/// Longest wait for the acknowledgement of a command.
const WAIT: Duration = Duration::from_secs(1);
/// Longest wait for new instances behind a restart, and the wait when docks do the restart.
const WAIT_MAX: Duration = Duration::from_secs(300);
const DOCKS_WAIT: Duration = Duration::from_secs(10);
/// The result of a restart behind which a new instance is online.
const RESTARTED: &str = "restarted";
/// Largest payload of a call, bytes.
const CALL_BYTES_MAX: usize = 1_000_000;
const TIMEOUT_HEADER: &str = "x-rollbook-timeout";
/// The header of W3C Trace Context, which the provider gets too.
const TRACE_HEADER: &str = "traceparent";

/// The operations of a path that is a command, and that may be the id of a service.
const RESTART_ALL: [Operation; 4] = [
    unlisted(get("services/{id}")),
    unlisted(write("PUT", "service.update", Verb::AdminWrite, "services/{id}")),
    // Only a right for all services has this target.
    write("POST", "service.restart_all", Verb::Command, "*"),
    unlisted(write("DELETE", "service.remove", Verb::AdminWrite, "services/{id}")),
];

pub(in crate::admin) fn mount(routes: &mut web::ServiceConfig) {
    routes
        .service(
            // A service may have this id. Its own paths differ from that of the command.
            resource("/api/services/{id:restart-all}", RESTART_ALL)
                .route(web::get().to(services::show))
                .route(web::put().to(services::change))
                .route(web::post().to(restart_all))
                .route(web::delete().to(services::remove)),
        )
        .service(
            resource("/api/services/{id}/restart", [write("POST", "service.restart", Verb::Command, "{id}")])
                .route(web::post().to(restart)),
        )
        .service(
            resource("/api/services/{id}/shutdown", [write("POST", "service.shutdown", Verb::Command, "{id}")])
                .route(web::post().to(shutdown)),
        )
        .service(
            resource("/api/services/{id}/ping", [write("POST", "service.ping", Verb::Command, "{id}")])
                .route(web::post().to(ping)),
        )
        .service(
            resource("/api/call/{service}/{method}", [write("POST", "", Verb::Call, "{service}:{method}")])
                .route(web::post().to(call)),
        );
}

/// Why, and which instance.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct OrderJson {
    /// Why, for whoever gets the command.
    #[schema(example = "new version")]
    reason: Option<String>,
    /// Id of the one instance that gets it; all by default.
    #[schema(example = json!(null))]
    instance: Option<String>,
    /// Of a restart: how long to wait for a new instance, as in `30s`. At most `5m`; 10 s when docks restart the process.
    #[schema(example = json!(null))]
    wait: Option<String>,
}

/// What became of a command at one instance.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Delivered {
    service: String,
    instance: String,
    node: u64,
    /// `restarted` when a new instance is online, if that was waited for; else `acknowledged`, `unhandled` when the program says that nothing there takes the command, `delivered` when it says
    /// nothing, or `failed`.
    result: &'static str,
    /// Milliseconds to the acknowledgement.
    #[serde(skip_serializing_if = "Option::is_none")]
    rtt_ms: Option<f64>,
    /// Why docks did not do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

async fn deliver(services: &Services, instance: Instance, order: Order) -> Delivered {
    let began = clock::now();
    let delivery = services.peers.order(instance.connection, order, &services.clients).await;
    let rtt = began.elapsed().as_secs_f64() * 1000.0;
    Delivered {
        node: instance.connection.owner.node,
        service: instance.service,
        instance: instance.id,
        result: delivery.name(),
        rtt_ms: (delivery == Delivery::Acknowledged).then_some((rtt * 1000.0).round() / 1000.0),
        error: None,
    }
}

/// Sends a command to instances and reports the result of each.
async fn command(
    admin: &Admin,
    request: &HttpRequest,
    name: &'static str,
    instances: Vec<Instance>,
    reason: Option<String>,
) -> Answer {
    if instances.is_empty() {
        return Err(nobody(name));
    }
    let (order, services) = (order_of(name, reason), admin.services.clone());
    let all = async move {
        join_all(instances.into_iter().map(|instance| deliver(&services, instance, order.clone()))).await
    };
    once(admin, request, all).await
}

fn nobody(name: &str) -> Problem {
    Problem::new(409, "no_instance", format!("nobody is there who could be told to {name}"))
}

/// A command with its arguments.
fn order_of(name: &'static str, reason: Option<String>) -> Order {
    let timestamp = clock::millis();
    let json = match name {
        "ping" => json!({ "timestamp": timestamp }),
        _ => {
            json!({ "reason": reason.unwrap_or_else(|| "requested by the operator".to_owned()), "timestamp": timestamp })
        }
    };
    Order { name, json: json.to_string().into(), wait: WAIT }
}

/// Gives a command, once for each key of idempotency, and reports the result of each instance.
async fn once(admin: &Admin, request: &HttpRequest, given: impl Future<Output = Vec<Delivered>> + 'static) -> Answer {
    let answer = |body: Bytes| HttpResponse::Ok().content_type("application/json").body(body);
    let claim = match admin.keys.claim(request, &admin.services).await? {
        ClaimResult::New(claim) => claim,
        ClaimResult::Before(body) => return Ok(answer(body)),
    };
    // The command continues when the operator disconnects. A repetition with the same key gets the result.
    let given = actix_web::rt::spawn(async move {
        let body: Bytes = serde_json::to_vec(&List::whole(given.await)).unwrap_or_default().into();
        claim.done(&body);
        body
    });
    given.await.map(answer).map_err(|error| Problem::storage(error.to_string()))
}

/// What becomes of a restart: programs are asked, docks do it where nobody takes the command, and new instances are waited
/// for.
struct Restart {
    admin: Arc<Admin>,
    who: Arc<Identity>,
    service: String,
    /// The instances that are asked. None: docks have the process.
    instances: Vec<Instance>,
    order: Order,
    wait: Duration,
}

impl Restart {
    async fn run(self) -> Vec<Delivered> {
        let before = Before::new(Arc::clone(&self.admin), &self.service);
        let each = self.instances.iter().cloned().map(|instance| self.one(instance));
        let mut items = join_all(each).await;
        if items.is_empty() {
            items.push(self.by_docks().await);
        }
        let expected = items.iter().filter(|item| item.result != Delivery::Failed.name()).count();
        if self.wait.is_zero() || expected == 0 {
            return items;
        }
        let mut came = before.wait(expected, self.wait).await.into_iter();
        for item in items.iter_mut().filter(|item| item.result != Delivery::Failed.name()) {
            let Some(instance) = came.next() else { break };
            item.result = RESTARTED;
            if item.instance.is_empty() {
                item.instance = instance;
            }
        }
        items
    }

    /// Asks one instance, and then its dock if the instance does not take the command.
    async fn one(&self, instance: Instance) -> Delivered {
        let process = ProcessName::of_metadata(&instance.metadata);
        let mut delivered = deliver(&self.admin.services, instance, self.order.clone()).await;
        let taken = [Delivery::Acknowledged.name(), Delivery::Delivered.name()].contains(&delivered.result);
        if let (false, Some(ProcessName { dock, definition, .. })) = (taken, process) {
            let done = restart::by_docks(&self.admin, &self.who, &definition, Some(&dock)).await;
            (delivered.result, delivered.error) = delivery_of(done);
        }
        delivered
    }

    /// The docks that have the process of the service do it.
    async fn by_docks(&self) -> Delivered {
        let done = restart::by_docks(&self.admin, &self.who, &self.service, None).await;
        let (result, error) = delivery_of(done);
        let (node, service) = (self.admin.bus.node().id(), self.service.clone());
        Delivered { service, instance: String::new(), node, result, error, rtt_ms: None }
    }
}

/// How a command that docks got ended.
fn delivery_of(done: Result<(), CommandError>) -> (&'static str, Option<String>) {
    match done {
        Ok(()) => (Delivery::Delivered.name(), None),
        Err(error) => (Delivery::Failed.name(), Some(error.to_string())),
    }
}

/// How long a restart waits for new instances.
fn wait_of(order: &OrderJson, by_docks: bool) -> Result<Duration, Problem> {
    let Some(text) = &order.wait else { return Ok(if by_docks { DOCKS_WAIT } else { Duration::ZERO }) };
    let wait = duration::parse(text).map_err(|error| Problem::bad(format!("wait: {error}")))?;
    if wait > WAIT_MAX { Err(Problem::bad("wait: at most 5m")) } else { Ok(wait) }
}

/// Restarts a service, or one of its instances.
async fn restart_service(admin: web::Data<Admin>, request: HttpRequest, id: String, order: OrderJson) -> Answer {
    let found = find(&admin, &id).map(|(_, instances)| instances);
    let defined = restart::has_definition(&admin, &id);
    let mut instances = match found {
        Err(_) if defined => Vec::new(),
        other => other?,
    };
    if let Some(wanted) = &order.instance {
        instances.retain(|instance| instance.id == *wanted);
        if instances.is_empty() {
            return Err(Refusal::InstanceNotFound(wanted.clone()).into());
        }
    }
    if instances.is_empty() && !defined {
        return Err(nobody("restart"));
    }
    let (who, wait) = (identity(), wait_of(&order, instances.is_empty())?);
    let order = order_of("restart", order.reason);
    let restart = Restart { admin: admin.clone().into_inner(), who, service: id, instances, order, wait };
    once(&admin, &request, restart.run()).await
}

async fn of_service(
    admin: web::Data<Admin>,
    request: HttpRequest,
    id: String,
    order: OrderJson,
    name: &'static str,
) -> Answer {
    let OrderJson { reason, instance, .. } = order;
    let (_, mut instances) = find(&admin, &id)?;
    if let Some(wanted) = instance {
        instances.retain(|instance| instance.id == wanted);
        if instances.is_empty() {
            return Err(Refusal::InstanceNotFound(wanted).into());
        }
    }
    command(&admin, &request, name, instances, reason).await
}

/// Asks all instances of a service, or one, to start anew, and says for each whether it acknowledged within a second. The
/// program decides what it does: `unhandled` means that nothing in it takes the command. Where a dock has started the
/// process, the dock restarts it then, and also when the service is not connected. With `wait`, `restarted` says that a
/// new instance is online.
#[utoipa::path(post, path = "/api/services/{id}/restart", operation_id = "commands_restart", tag = "commands", params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "with the same key a command is given once")), request_body = Option<OrderJson>, responses((status = 200, description = "what became of it at each instance", body = List<Delivered>), Problems))]
pub(in crate::admin) async fn restart(
    admin: web::Data<Admin>,
    request: HttpRequest,
    id: web::Path<String>,
    _: Query<NoParameters>,
    Optional(order): Optional<OrderJson>,
) -> Answer {
    restart_service(admin, request, id.into_inner(), order).await
}

/// Asks all instances of a service, or one, to stop, and says for each whether it acknowledged within a second. The
/// program decides what it does: `unhandled` means that nothing in it takes the command.
#[utoipa::path(post, path = "/api/services/{id}/shutdown", operation_id = "commands_shutdown", tag = "commands", params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "with the same key a command is given once")), request_body = Option<OrderJson>, responses((status = 200, description = "what became of it at each instance", body = List<Delivered>), Problems))]
pub(in crate::admin) async fn shutdown(
    admin: web::Data<Admin>,
    request: HttpRequest,
    id: web::Path<String>,
    _: Query<NoParameters>,
    Optional(order): Optional<OrderJson>,
) -> Answer {
    of_service(admin, request, id.into_inner(), order, "shutdown").await
}

/// Asks all instances of a service, or one, for a sign of life, and says for each how long the answer took. 409
/// `no_instance` when none is connected.
#[utoipa::path(post, path = "/api/services/{id}/ping", operation_id = "commands_ping", tag = "commands", params(("id" = String, Path), ("Idempotency-Key" = Option<String>, Header, description = "with the same key a command is given once")), request_body = Option<OrderJson>, responses((status = 200, description = "what became of it at each instance", body = List<Delivered>), Problems))]
pub(in crate::admin) async fn ping(
    admin: web::Data<Admin>,
    request: HttpRequest,
    id: web::Path<String>,
    _: Query<NoParameters>,
    Optional(order): Optional<OrderJson>,
) -> Answer {
    of_service(admin, request, id.into_inner(), order, "ping").await
}

/// Asks all instances of all services to start anew. Says for each whether it acknowledged within a second; 409
/// `no_instance` when nobody is connected.
#[utoipa::path(post, path = "/api/services/restart-all", operation_id = "commands_restart_all", tag = "commands", params(("Idempotency-Key" = Option<String>, Header, description = "with the same key a command is given once")), request_body = Option<OrderJson>, responses((status = 200, description = "what became of it at each instance", body = List<Delivered>), Problems))]
pub(in crate::admin) async fn restart_all(
    admin: web::Data<Admin>,
    request: HttpRequest,
    _: Query<NoParameters>,
    Optional(order): Optional<OrderJson>,
) -> Answer {
    let OrderJson { reason, .. } = order;
    let instances = admin.bus.node().state().with_machine(|machine| {
        let of =
            |service: &rollbook_core::service::Service| machine.instances(&service.id).cloned().collect::<Vec<_>>();
        machine.services().flat_map(of).collect()
    });
    command(&admin, &request, "restart", instances, reason).await
}

/// The deadline in the header of a call.
fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, Problem> {
    let Some(value) = headers.get(TIMEOUT_HEADER) else { return Ok(None) };
    let time = value.to_str().ok().and_then(|text| duration::parse(text).ok()).filter(|time| !time.is_zero());
    time.map(Some).ok_or_else(|| Problem::bad("X-Rollbook-Timeout: a duration like 5s"))
}

fn unread(error: BodyError) -> Problem {
    match error {
        BodyError::TooLarge => {
            Problem::new(413, "bad_request", format!("the body is larger than {CALL_BYTES_MAX} bytes"))
        }
        BodyError::Late => Problem::new(408, "bad_request", "the body did not arrive in time"),
        BodyError::Broken(error) => Problem::new(400, "bad_request", format!("incomplete body: {error}")),
        BodyError::Crowded => Problem::new(503, "overloaded", "too many bytes of requests are being received"),
    }
}

/// Asks a provider of `service` for `method`; the body is the payload, the answer's body its data. Without a body
/// there is no payload. 404 when no service of that name is known, 503 `no_provider` when nobody offers the method now, 422
/// `refused` when the provider answers with an error, which is the member `error`.
#[utoipa::path(post, path = "/api/call/{service}/{method}", operation_id = "commands_call", tag = "commands", params(("service" = String, Path), ("method" = String, Path), ("X-Rollbook-Timeout" = Option<String>, Header, description = "a duration like 5s"), ("traceparent" = Option<String>, Header, description = "W3C Trace Context, handed to the provider")), request_body = Option<Value>, responses((status = 200, description = "what the provider says", body = Value), Problems))]
pub(in crate::admin) async fn call(
    admin: web::Data<Admin>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    _: Query<NoParameters>,
    payload: web::Payload,
) -> Answer {
    let budget = admin.bus.proposer().receiving();
    let bounds = crate::net::http_body::Bounds { bytes_max: CALL_BYTES_MAX, timeout: body::TIMEOUT, budget };
    let body = crate::net::http_body::read(&request, payload, bounds).await.map_err(unread)?;
    let body = body::any(request.headers(), body)?;
    let (capability, action) = path.into_inner();
    if capability.len() > limits::NAME_BYTES_MAX || action.len() > limits::NAME_BYTES_MAX {
        let text = format!("names of services and methods have at most {} bytes", limits::NAME_BYTES_MAX);
        return Err(Problem::new(400, "bad_request", text));
    }
    let router = &admin.services.router;
    let known = admin.bus.node().state().with_machine(|machine| {
        machine.service(&capability).is_some() || machine.providers(&capability).next().is_some()
    });
    if !known {
        return Err(Problem::new(404, "service_not_found", format!("service not found: {capability}")));
    }
    let bounds = router.config();
    let timeout = timeout(request.headers())?.unwrap_or(bounds.timeout).min(bounds.timeout_max);
    let (reply, outcome) = tokio::sync::oneshot::channel();
    let request = Request {
        id: String::new(),
        capability,
        action,
        from: Caller::default(),
        deadline: clock::now() + timeout,
        retries: 0,
        key: String::new(),
        responder: Responder::Caller,
        traceparent: request.headers().get(TRACE_HEADER).and_then(|value| traceparent(value.to_str().ok()?)),
    };
    // When the caller disconnects, this future is dropped and the request ends.
    let waiting = router.http_caller();
    let reply = Box::new(move |outcome| hint(reply, outcome));
    router.call(&identity(), waiting.requester(), (request, Payload::json(body)), reply);
    let outcome = outcome.await.unwrap_or(Err(Fault::cancelled()));
    waiting.done();
    match outcome {
        Ok(Answered { success, body }) => {
            let unfit = |fault: Fault| Problem::new(502, "bad_answer", format!("the provider answered with {fault}"));
            let json = plain(&body).map_err(unfit)?;
            if success {
                return Ok(HttpResponse::Ok().content_type("application/json").body(json));
            }
            Err(Problem::refused_by_provider(std::str::from_utf8(&json).unwrap_or("null")))
        }
        Err(error) => Err(error.into()),
    }
}
