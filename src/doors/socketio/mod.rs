//! The door `socketio`: the service bus for `socket.io-client`, over polling and WebSocket.
//!
//! `engine` is Engine.IO, `session` is Socket.IO, `service` is the events of the bus and of the book,
//! `cluster` is sessions of other nodes and the recovery of state. Imports the bus and the network layer, and no
//! other door.

mod cluster;
mod codec;
#[cfg(test)]
mod conformance;
mod engine;
mod failure;
mod service;
mod session;
pub mod settings;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use actix::{Addr, AsyncContext as _};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpRequest, HttpResponse, web};
use bytestring::ByteString;
use rollbook_cluster::live::Live;
use tokio::sync::oneshot;

use crate::base::actors::{Actors, Owned, hint, must_tell};
use crate::bus::security::credentials::bearer;
use crate::doors::door::{Context, Description, Door};
use crate::net::budget::Budget;
use crate::net::http_body::{self, BodyError};
use crate::net::http_credential::{authorization, holds_credential};
use crate::net::origins::Origin;
use crate::net::peer::Peer;
use crate::net::websocket::{connection, reader};

use cluster::recovery::Recovery;
use cluster::remote::{Remote, RemoteHandler};
use engine::actor::{Attach, Bounds, OnDisconnect, Poll, PollAborted, PostBody, PostStart, SessionActor};
use engine::arrivals::{Arrival, Arrivals};
use engine::steps::Timing;
use engine::table::SessionTable;
use failure::EngineError;
use service::application::BusApplication;
use session::{Application, Authorization, Handshake};
use settings::{NAME, Settings};

/// The door for Socket.IO clients.
pub struct SocketIoDoor {
    settings: Settings,
    bounds: Bounds,
    node: u64,
    table: SessionTable<SessionActor>,
    arrivals: Arrivals,
    application: Arc<dyn Application>,
    /// Bounds the bytes of all request bodies that the node receives at a time.
    receiving: Budget,
    /// Handles messages of the same door on other nodes. `None` in tests of one node.
    remote_handler: Option<Arc<RemoteHandler>>,
    actors: Actors,
    draining: AtomicBool,
}

impl std::fmt::Debug for SocketIoDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketIoDoor").field("sessions", &self.table.len()).finish_non_exhaustive()
    }
}

/// The path of the door on the web listener.
const PATH: &str = "/socket.io/";
/// How long clients have to disconnect after the node told them to.
const DRAIN: Duration = Duration::from_secs(5);
/// Longest time that the body of a POST may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Builds the door.
pub fn open(settings: &Settings, context: &Context) -> Arc<dyn Door> {
    let Context { services, access, .. } = context;
    let node = services.bus.node().clone();
    let (time, count_max) = (settings.max_disconnection, settings.connections_max);
    let recovery = Recovery::new(node.state().clone(), services.peers.clone(), time, count_max);
    let queue_bytes_max = settings.queue_bytes_max;
    let application = BusApplication::new(services.clone(), access.clone(), Arc::clone(&recovery), queue_bytes_max);
    let table = SessionTable::default();
    let patience = settings.ping_interval + settings.ping_timeout;
    let actors = services.bus.metrics().actors.clone();
    let remote = Remote::new(node.clone(), services.peers.clone(), table.clone(), patience, actors.clone());
    let remote_handler = RemoteHandler { remote, recovery };
    let of_node = (services.bus.proposer().receiving().clone(), actors);
    SocketIoDoor::with(
        node.id(),
        (settings.clone(), of_node),
        table,
        Arc::new(application),
        Some(Arc::new(remote_handler)),
    )
}

impl Door for SocketIoDoor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> Description {
        Description {
            protocol: "Socket.IO",
            path: Some(PATH),
            purpose: "the service bus for socket.io-client: register, request and respond, notify, publish, subscribe",
        }
    }

    fn routes(self: Arc<Self>, services: &mut web::ServiceConfig) {
        let resource = web::resource([PATH, PATH.trim_end_matches('/')]);
        services.service(resource.app_data(web::Data::from(self)).default_service(web::to(handle)));
    }

    fn live(&self) -> Option<Arc<dyn Live>> {
        let remote_handler: Arc<dyn Live> = self.remote_handler.clone()?;
        Some(remote_handler)
    }

    /// Stops to accept clients, and gives the state of disconnected clients to other nodes.
    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        if let Some(remote_handler) = &self.remote_handler {
            remote_handler.recovery.drain();
        }
    }

    fn connections(&self) -> usize {
        self.table.len()
    }

    fn drain_timeout(&self) -> Duration {
        DRAIN
    }
}

impl SocketIoDoor {
    fn with(
        node: u64,
        (settings, (receiving, actors)): (Settings, (Budget, Actors)),
        table: SessionTable<SessionActor>,
        application: Arc<dyn Application>,
        remote_handler: Option<Arc<RemoteHandler>>,
    ) -> Arc<Self> {
        let Settings { ping_interval, ping_timeout, upgrade_timeout, connect_timeout, queue_bytes_max, .. } = settings;
        let timing = Timing { ping_interval, ping_timeout, upgrade_timeout };
        let bounds = Bounds { timing, connect_timeout, queue_bytes_max };
        let (arrivals, draining) = (Arrivals::new(settings.connections_max), AtomicBool::new(false));
        Arc::new(Self {
            settings,
            bounds,
            node,
            table,
            arrivals,
            application,
            receiving,
            remote_handler,
            actors,
            draining,
        })
    }

    fn start(&self, sid: &str, conn: Option<u64>, mut handshake: Handshake, arrival: Arrival) -> Addr<SessionActor> {
        let (bounds, application) = (self.bounds, Arc::clone(&self.application));
        let registration = (self.table.place(sid), arrival);
        let session = Owned::create(&self.actors, |ctx: &mut actix::Context<SessionActor>| {
            handshake.mailbox = Some(ctx.address().recipient());
            SessionActor::new(bounds, conn, application, handshake, registration)
        });
        let addr = session.addr().clone();
        self.table.fill(sid, session);
        addr
    }

    fn open(&self, sid: &str, upgrade: bool) -> ByteString {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let times = (millis(self.settings.ping_interval), millis(self.settings.ping_timeout));
        codec::open(sid, upgrade, times, self.settings.message_bytes_max)
    }

    /// Checks whether pages of this origin may use the door. Programs that are no browsers send no origin.
    fn allows(&self, request: &HttpRequest) -> Result<Option<HeaderValue>, EngineError> {
        match Origin::of(request.headers()) {
            Origin::Unreadable => Err(EngineError::BadRequest),
            origin if origin.is_allowed(&self.settings.origins) => Ok(request.headers().get(header::ORIGIN).cloned()),
            _ => Err(EngineError::Forbidden),
        }
    }
}

/// The query parameters of a request.
struct RequestParameters {
    websocket: bool,
    sid: Option<String>,
    version: Option<String>,
}

fn parameters(request: &HttpRequest) -> Result<RequestParameters, EngineError> {
    let find = |name: &str| session::parameter(request.query_string(), name);
    let websocket = match find("transport").as_deref() {
        Some("polling") => false,
        Some("websocket") => true,
        _ => return Err(EngineError::TransportUnknown),
    };
    Ok(RequestParameters { websocket, sid: find("sid"), version: find("EIO") })
}

async fn handle(request: HttpRequest, payload: web::Payload, door: web::Data<SocketIoDoor>) -> HttpResponse {
    let upgrade = reader::is_upgrade(&request);
    let origin = match door.allows(&request) {
        Ok(origin) => origin,
        Err(failure) => return failure.answer(upgrade),
    };
    let answer = if request.method() == Method::OPTIONS {
        Ok(preflight(&request))
    } else {
        answer(&request, payload, &door, upgrade).await
    };
    let mut answer = answer.unwrap_or_else(|failure| failure.answer(upgrade));
    if let Some(origin) = origin {
        let headers = answer.headers_mut();
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        headers.append(header::VARY, HeaderValue::from_static("Origin"));
    }
    answer
}

fn preflight(request: &HttpRequest) -> HttpResponse {
    let mut answer = HttpResponse::NoContent();
    answer.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, OPTIONS"));
    answer.insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"));
    if let Some(wanted) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone()));
    }
    answer.finish()
}

/// Answers a request. The checks come in the order of the reference server.
async fn answer(
    request: &HttpRequest,
    payload: web::Payload,
    door: &SocketIoDoor,
    upgrade: bool,
) -> Result<HttpResponse, EngineError> {
    let parameters = parameters(request)?;
    if let Some(sid) = &parameters.sid {
        if parameters.websocket && !upgrade {
            return Err(EngineError::BadRequest);
        }
        return match engine::table::node_of(sid) {
            Some(node) if node != door.node => {
                let remote_handler = door.remote_handler.as_ref().ok_or(EngineError::SidUnknown)?;
                forward(request, payload, door, &remote_handler.remote, node, sid, parameters.websocket).await
            }
            _ => handle_local(request, payload, door, sid, parameters.websocket).await,
        };
    }
    if *request.method() != Method::GET {
        return Err(EngineError::BadMethod);
    }
    if parameters.websocket != upgrade {
        return Err(EngineError::BadRequest);
    }
    if door.draining.load(Ordering::Relaxed) {
        return Err(EngineError::Draining);
    }
    if door.table.len() >= door.settings.connections_max {
        return Err(EngineError::TooMany);
    }
    if parameters.version.as_deref() != Some("4") {
        return Err(EngineError::BadVersion);
    }
    handshake(request, door, parameters)
}

fn handshake(
    request: &HttpRequest,
    door: &SocketIoDoor,
    parameters: RequestParameters,
) -> Result<HttpResponse, EngineError> {
    let arrival = door.arrivals.one(request.peer_addr().map(|address| address.ip())).ok_or(EngineError::Arriving)?;
    let sid = engine::table::sid(door.node);
    let address = request.peer_addr().map(|addr| addr.to_string()).unwrap_or_default();
    let query = request.query_string().to_owned();
    if holds_credential(&query, bearer::looks_like_credential) {
        return Err(EngineError::BadRequest);
    }
    let authorization = authorization(request.headers()).map(|value| Authorization(value.to_vec()));
    let handshake = Handshake { query, address, peer: Peer::of(request), authorization, mailbox: None };
    if !parameters.websocket {
        door.start(&sid, None, handshake, arrival);
        return Ok(polled(door.open(&sid, true).to_string()));
    }
    if !reader::is_proper_upgrade(request) {
        return Err(EngineError::BadRequest);
    }
    let conn = door.table.conn();
    let session = door.start(&sid, Some(conn), handshake, arrival);
    let open = Some(door.open(&sid, false));
    // Without the WebSocket there is no session, because the session would begin with it.
    upgraded(request, door, &session, conn, open).inspect_err(|_| door.table.end(&sid))
}

/// Upgrades a request to a WebSocket of a session of this node. A malformed upgrade leaves the session as it is.
fn upgraded(
    request: &HttpRequest,
    door: &SocketIoDoor,
    session: &Addr<SessionActor>,
    conn: u64,
    open: Option<ByteString>,
) -> Result<HttpResponse, EngineError> {
    let limit = door.settings.message_bytes_max;
    let started = connection::start(request, limit, session.clone().recipient(), conn, &door.actors);
    let (writer, response) = started.map_err(|_| EngineError::BadRequest)?;
    // When the session has ended meanwhile, the WebSocket ends too.
    must_tell(session, Attach { conn, writer, open });
    Ok(response)
}

async fn handle_local(
    request: &HttpRequest,
    payload: web::Payload,
    door: &SocketIoDoor,
    sid: &str,
    websocket: bool,
) -> Result<HttpResponse, EngineError> {
    let session = door.table.find(sid).ok_or(EngineError::SidUnknown)?;
    if websocket {
        let conn = door.table.conn();
        return upgraded(request, door, &session, conn, None);
    }
    match *request.method() {
        Method::GET => {
            let (answer, polled_later) = oneshot::channel();
            let gone = OnDisconnect::new(|| must_tell(&session, PollAborted));
            session.send(Poll(answer)).await.map_err(|_| EngineError::SidUnknown)?;
            let payload = polled_later.await.map_err(|_| EngineError::SidUnknown);
            gone.disarm();
            Ok(polled(payload??))
        }
        Method::POST => {
            let (post, (refused, aborted)) = (door.table.conn(), oneshot::channel());
            session.send(PostStart(post, aborted)).await.map_err(|_| EngineError::SidUnknown)??;
            let body = read_body(request, payload, door).await;
            let body = match body {
                Ok(body) => body,
                Err(failure) => {
                    // A session that is over does not listen.
                    hint(refused, failure.parts().2);
                    return Err(failure);
                }
            };
            session.send(PostBody(post, body)).await.map_err(|_| EngineError::SidUnknown)??;
            Ok(posted())
        }
        _ => Err(EngineError::BadRequest),
    }
}

async fn forward(
    request: &HttpRequest,
    payload: web::Payload,
    door: &SocketIoDoor,
    remote: &Arc<Remote>,
    node: u64,
    sid: &str,
    websocket: bool,
) -> Result<HttpResponse, EngineError> {
    if websocket {
        if !reader::is_proper_upgrade(request) {
            return Err(EngineError::BadRequest);
        }
        let (conn, limit) = (door.table.conn(), door.settings.message_bytes_max);
        return Ok(remote.tunnel(request, limit, node, sid, conn).await?);
    }
    match *request.method() {
        Method::GET => {
            let gone = OnDisconnect::new(|| remote.poll_aborted(node, sid));
            let payload = remote.poll(node, sid).await;
            gone.disarm();
            Ok(polled(payload?))
        }
        Method::POST => {
            let body = read_body(request, payload, door).await?;
            remote.post(node, sid, body).await?;
            Ok(posted())
        }
        _ => Err(EngineError::BadRequest),
    }
}

/// Reads the body of a POST. `None` means that the body is not text.
async fn read_body(
    request: &HttpRequest,
    payload: web::Payload,
    door: &SocketIoDoor,
) -> Result<Option<ByteString>, EngineError> {
    let binary = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let (bytes_max, timeout, budget) = (door.settings.message_bytes_max, BODY_TIMEOUT, &door.receiving);
    let read = http_body::read(request, payload, http_body::Bounds { bytes_max, timeout, budget }).await;
    let body = read.map_err(|error| match error {
        BodyError::TooLarge => EngineError::TooLarge,
        BodyError::Crowded => EngineError::Crowded,
        BodyError::Late | BodyError::Broken(_) => EngineError::BadRequest,
    })?;
    Ok(if binary { None } else { ByteString::try_from(body).ok() })
}

fn polled(payload: String) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=UTF-8"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body(payload)
}

fn posted() -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "text/html"))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .body("ok")
}
