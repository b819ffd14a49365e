//! The door `gateway`: actors of Xbus over HTTP, for programs that speak neither NATS nor protobuf.
//!
//! ```text
//! caller     which account calls, by its API key, and for which actor
//! session    the station of an actor, where its program gets its jobs;   stations   those of this node
//! codec      a job in one piece                             state      what became of an envelope
//! problem    errors
//! ```
//!
//! May import `bus`, `net` and `base`. Invariant: a job that a program gets is detached before the answer is sent, so that
//! the program may end the job by any node.

mod caller;
mod codec;
mod problem;
mod session;
pub mod settings;
mod state;
mod stations;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use rollbook_core::level::FeatureLevel;
use rollbook_core::xbus::envelope::assembly::Ack;
use rollbook_core::xbus::id::Id;
use serde::Deserialize;
use tokio::sync::{Semaphore, oneshot};

use super::door::{Context, Description, Door};
use crate::base::duration;
use crate::bus::error::Fault;
use crate::bus::xbus::actor_calls::{self, check_sender, check_taker};
use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::envelopes::json::answer;
use crate::bus::xbus::envelopes::json::body::{EndBody, LogBody, OutputBody};
use crate::bus::xbus::jobs::engine::Engine;
use crate::net::http_body::{self, Bounds};
use caller::Caller;
use problem::Problem;
use session::Poll;
use settings::{NAME, Settings};
use stations::Stations;

/// Least time that a request waits for a job, so that one that is there is found.
const WAIT_MIN: Duration = Duration::from_millis(250);
/// Most jobs that are read from the book at the same time.
const READS_MAX: usize = 32;

/// The door for programs of Xbus over HTTP.
#[derive(Debug)]
pub struct GatewayDoor {
    settings: Settings,
    engine: Engine,
    stations: Stations,
    reads: Semaphore,
    draining: AtomicBool,
}

/// Builds the door.
pub fn open(settings: &Settings, context: &Context) -> Arc<dyn Door> {
    let (settings, engine) = (settings.clone(), context.xbus.clone());
    let stations = Stations::new(context.services.clone(), engine.clone());
    let (reads, draining) = (Semaphore::new(READS_MAX), AtomicBool::new(false));
    Arc::new(GatewayDoor { settings, engine, stations, reads, draining })
}

impl Door for GatewayDoor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> Description {
        Description {
            protocol: "HTTP",
            path: Some("/xbus/"),
            purpose: "actors of Xbus with an API key: send envelopes, take jobs and end them",
        }
    }

    fn routes(self: Arc<Self>, services: &mut web::ServiceConfig) {
        services.service(
            web::scope("/xbus")
                .app_data(web::Data::from(self))
                .route("/{actor}", web::get().to(show))
                .route("/{actor}/output", web::post().to(output))
                .route("/{actor}/processrequest", web::get().to(process_request))
                .route("/{actor}/processingend", web::post().to(processing_end))
                .route("/{actor}/log", web::post().to(log))
                .route("/{actor}/envelope/{envelope}", web::get().to(envelope))
                .default_service(web::to(not_found)),
        );
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.stations.close();
    }
}

impl GatewayDoor {
    fn client(&self) -> &XbusClient {
        self.engine.flow().client()
    }

    /// Who calls for this actor.
    fn caller(&self, request: &HttpRequest, actor: &str) -> Result<Caller, Problem> {
        self.client().bus().level().check(FeatureLevel::XBUS).map_err(Fault::from)?;
        let caller = Caller::of(self.client(), request, actor)?;
        self.stations.alive(caller.id);
        Ok(caller)
    }

    async fn body(&self, request: &HttpRequest, payload: web::Payload) -> Result<bytes::Bytes, Problem> {
        let (bytes_max, timeout) = (self.settings.body_bytes_max, self.settings.body_timeout);
        let budget = self.client().bus().proposer().receiving();
        let read = http_body::read(request, payload, Bounds { bytes_max, timeout, budget }).await;
        read.map_err(|error| Problem::of_body(&error, bytes_max))
    }
}

fn json(status: StatusCode, body: String) -> HttpResponse {
    let mut builder = HttpResponse::build(status);
    builder.insert_header(("cache-control", "no-store")).content_type("application/json").body(body)
}

fn answered(result: Result<HttpResponse, Problem>) -> HttpResponse {
    result.unwrap_or_else(|problem| problem.answer())
}

async fn not_found() -> HttpResponse {
    let text = "there is no such path below /xbus/, or not with this method; see the README of the door gateway";
    Problem::new(StatusCode::NOT_FOUND, "not_found", text).answer()
}

/// The parameters of `output`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct OutputQuery {
    output: Option<String>,
}

/// The parameters of `processrequest`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PollQuery {
    wait: Option<String>,
    again: Option<bool>,
}

fn query<T: for<'de> Deserialize<'de>>(request: &HttpRequest) -> Result<T, Problem> {
    let read = web::Query::<T>::from_query(request.query_string());
    read.map(web::Query::into_inner).map_err(|error| Fault::bad(error.to_string()).into())
}

/// Tells of the actor.
async fn show(request: HttpRequest, actor: web::Path<String>, door: web::Data<GatewayDoor>) -> HttpResponse {
    answered(
        door.caller(&request, &actor).map(|caller| {
            json(StatusCode::OK, serde_json::json!({ "actor": answer::actor(&caller.actor) }).to_string())
        }),
    )
}

/// The actor sends an envelope, or a fragment, closes an output, or forwards what it got.
async fn output(
    request: HttpRequest,
    actor: web::Path<String>,
    payload: web::Payload,
    door: web::Data<GatewayDoor>,
) -> HttpResponse {
    let handle = async {
        let caller = door.caller(&request, &actor)?;
        door.client().look(|xbus| check_sender(xbus, &caller.actor))?;
        let OutputQuery { output } = query(&request)?;
        let body = door.body(&request, payload).await?;
        let mut body = OutputBody::read_whole(&body).map_err(Fault::from)?;
        if let Some(output) = output {
            body = body.with_output(&output);
        }
        let (id, ack) = actor_calls::output(&door.engine, caller.id, body).await?;
        if let Ack::Error(reason) = ack {
            return Err(Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "envelope", reason));
        }
        let told = id.map_or_else(|| answer::SUCCESS.to_owned(), |id| answer::envelope(id, &ack));
        Ok(json(StatusCode::OK, told))
    };
    answered(handle.await)
}

/// The program waits for a job.
async fn process_request(request: HttpRequest, actor: web::Path<String>, door: web::Data<GatewayDoor>) -> HttpResponse {
    answered(poll(&request, &actor, &door).await)
}

async fn poll(request: &HttpRequest, actor: &str, door: &GatewayDoor) -> Result<HttpResponse, Problem> {
    let caller = door.caller(request, actor)?;
    door.client().look(|xbus| check_taker(xbus, &caller.actor))?;
    let PollQuery { wait, again } = query(request)?;
    let wait = wait.as_deref().map(duration::parse).transpose();
    let wait = wait.map_err(|error| Fault::bad(format!("wait: {error}")))?.unwrap_or_default();
    let wait = wait.clamp(WAIT_MIN, door.settings.wait_max.max(WAIT_MIN));
    let none = || Ok(HttpResponse::NoContent().finish());
    if door.draining.load(Ordering::Relaxed) {
        return Err(Fault::unavailable("this node stops; ask another one").into());
    }
    let station = door.stations.of(&caller.actor, &caller.identity, caller.address)?;
    let reading = || async { door.reads.acquire().await.map_err(|_| Fault::unavailable("this node stops")) };
    if again == Some(true) {
        let _permit = reading().await?;
        if let Some(body) = codec::held(door.client(), caller.id, door.settings.job_bytes_max).await? {
            return Ok(json(StatusCode::OK, body));
        }
    }
    let (give, mut take) = oneshot::channel();
    station.send(Poll(give)).await.map_err(|_| Fault::unavailable("the station of the actor has closed"))??;
    let waited = tokio::time::timeout(wait, &mut take).await;
    // A job that came with the end of the time is not lost.
    let handover = waited.ok().and_then(Result::ok).or_else(|| {
        take.close();
        take.try_recv().ok()
    });
    let Some(handover) = handover else { return none() };
    let _permit = reading().await?;
    match codec::hand_over(&door.engine, handover, door.settings.job_bytes_max).await? {
        Some(body) => Ok(json(StatusCode::OK, body)),
        None => none(),
    }
}

/// The actor ends a job.
async fn processing_end(
    request: HttpRequest,
    actor: web::Path<String>,
    payload: web::Payload,
    door: web::Data<GatewayDoor>,
) -> HttpResponse {
    let handle = async {
        let caller = door.caller(&request, &actor)?;
        door.client().look(|xbus| check_taker(xbus, &caller.actor))?;
        let body = EndBody::read(&door.body(&request, payload).await?).map_err(Fault::from)?;
        actor_calls::processing_end(&door.engine, caller.id, body).await?;
        Ok(json(StatusCode::OK, answer::SUCCESS.to_owned()))
    };
    answered(handle.await)
}

/// The actor logs something about a job or an envelope.
async fn log(
    request: HttpRequest,
    actor: web::Path<String>,
    payload: web::Payload,
    door: web::Data<GatewayDoor>,
) -> HttpResponse {
    let handle = async {
        let caller = door.caller(&request, &actor)?;
        let body = LogBody::read(&door.body(&request, payload).await?).map_err(Fault::from)?;
        actor_calls::log(&door.engine, caller.id, body).await?;
        Ok(json(StatusCode::OK, answer::SUCCESS.to_owned()))
    };
    answered(handle.await)
}

/// Tells what became of an envelope of the actor.
async fn envelope(
    request: HttpRequest,
    path: web::Path<(String, String)>,
    door: web::Data<GatewayDoor>,
) -> HttpResponse {
    let handle = async {
        let (actor, envelope) = path.into_inner();
        let caller = door.caller(&request, &actor)?;
        let id: Id = envelope.parse().map_err(|error| Fault::bad(format!("{envelope}: {error}")))?;
        Ok(json(StatusCode::OK, state::of(door.client(), caller.id, id).await?))
    };
    answered(handle.await)
}
