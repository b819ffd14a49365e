//! The door `socketio`: the service bus for `socket.io-client`, polling and WebSocket.

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
use crate::doors::door::{Context, Description, Door};
use crate::net::budget::Budget;
use crate::net::http_body::{self, BodyError};
use crate::net::origins::Origin;
use crate::net::websocket::{connection, reader};

use cluster::recovery::Recovery;
use cluster::remote::{Ear, Remote};
use engine::actor::{Attach, Bounds, Gone, Poll, PollGone, PostBegins, PostEnds, SessionActor};
use engine::arrivals::{Arrival, Arrivals};
use engine::protocol::Timing;
use engine::table::SessionTable;
use failure::Failure;
use service::application::BusApplication;
use session::{Application, Handshake};
use settings::{NAME, Settings};

/// The service bus for Socket.IO clients.
pub struct SocketIoDoor {
    settings: Settings,
    bounds: Bounds,
    node: u64,
    table: SessionTable<SessionActor>,
    arrivals: Arrivals,
    application: Arc<dyn Application>,
    /// Of the bodies of all requests of the node.
    receiving: Budget,
    /// What other nodes share with it; a door without others has none.
    ear: Option<Arc<Ear>>,
    actors: Actors,
    draining: AtomicBool,
}

impl std::fmt::Debug for SocketIoDoor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SocketIoDoor").field("sessions", &self.table.len()).finish_non_exhaustive()
    }
}

/// Where it is on the web listener.
const PATH: &str = "/socket.io/";
/// How long clients that were told to go have for it.
const DRAIN: Duration = Duration::from_secs(5);
/// Longest time that a POST may take to arrive.
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
    let ear = Ear { remote, recovery };
    let of_node = (services.bus.proposer().receiving().clone(), actors);
    SocketIoDoor::with(node.id(), (settings.clone(), of_node), table, Arc::new(application), Some(Arc::new(ear)))
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
        let ear: Arc<dyn Live> = self.ear.clone()?;
        Some(ear)
    }

    /// Another node keeps what clients come back for.
    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        if let Some(ear) = &self.ear {
            ear.recovery.leave();
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
        ear: Option<Arc<Ear>>,
    ) -> Arc<Self> {
        let Settings { ping_interval, ping_timeout, upgrade_timeout, connect_timeout, queue_bytes_max, .. } = settings;
        let timing = Timing { ping_interval, ping_timeout, upgrade_timeout };
        let bounds = Bounds { timing, connect_timeout, queue_bytes_max };
        let (arrivals, draining) = (Arrivals::new(settings.connections_max), AtomicBool::new(false));
        Arc::new(Self { settings, bounds, node, table, arrivals, application, receiving, ear, actors, draining })
    }

    fn start(&self, sid: &str, conn: Option<u64>, mut handshake: Handshake, arrival: Arrival) -> Addr<SessionActor> {
        let (bounds, application) = (self.bounds, Arc::clone(&self.application));
        let seat = (self.table.place(sid), arrival);
        let session = Owned::create(&self.actors, |ctx: &mut actix::Context<SessionActor>| {
            handshake.mailbox = Some(ctx.address().recipient());
            SessionActor::new(bounds, conn, application, handshake, seat)
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

    /// Whether pages of this origin may use the door. Programs that are no browsers send none.
    fn allows(&self, request: &HttpRequest) -> Result<Option<HeaderValue>, Failure> {
        match Origin::of(request.headers()) {
            Origin::Unreadable => Err(Failure::BadRequest),
            origin if origin.is_allowed(&self.settings.origins) => Ok(request.headers().get(header::ORIGIN).cloned()),
            _ => Err(Failure::Forbidden),
        }
    }
}

/// What a request says of itself.
struct Asked {
    websocket: bool,
    sid: Option<String>,
    version: Option<String>,
}

fn asked(request: &HttpRequest) -> Result<Asked, Failure> {
    let find = |name: &str| session::parameter(request.query_string(), name);
    let websocket = match find("transport").as_deref() {
        Some("polling") => false,
        Some("websocket") => true,
        _ => return Err(Failure::TransportUnknown),
    };
    Ok(Asked { websocket, sid: find("sid"), version: find("EIO") })
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

/// The checks of the reference server, in its order.
async fn answer(
    request: &HttpRequest,
    payload: web::Payload,
    door: &SocketIoDoor,
    upgrade: bool,
) -> Result<HttpResponse, Failure> {
    let asked = asked(request)?;
    if let Some(sid) = &asked.sid {
        if asked.websocket && !upgrade {
            return Err(Failure::BadRequest);
        }
        return match engine::table::node_of(sid) {
            Some(node) if node != door.node => {
                let ear = door.ear.as_ref().ok_or(Failure::SidUnknown)?;
                elsewhere(request, payload, door, &ear.remote, node, sid, asked.websocket).await
            }
            _ => here(request, payload, door, sid, asked.websocket).await,
        };
    }
    if *request.method() != Method::GET {
        return Err(Failure::BadMethod);
    }
    if asked.websocket != upgrade {
        return Err(Failure::BadRequest);
    }
    if door.draining.load(Ordering::Relaxed) {
        return Err(Failure::Draining);
    }
    if door.table.len() >= door.settings.connections_max {
        return Err(Failure::TooMany);
    }
    if asked.version.as_deref() != Some("4") {
        return Err(Failure::BadVersion);
    }
    shake_hands(request, door, asked)
}

fn shake_hands(request: &HttpRequest, door: &SocketIoDoor, asked: Asked) -> Result<HttpResponse, Failure> {
    let arrival = door.arrivals.one(request.peer_addr().map(|address| address.ip())).ok_or(Failure::Arriving)?;
    let sid = engine::table::sid(door.node);
    let address = request.peer_addr().map(|addr| addr.to_string()).unwrap_or_default();
    let handshake = Handshake { query: request.query_string().to_owned(), address, mailbox: None };
    if !asked.websocket {
        door.start(&sid, None, handshake, arrival);
        return Ok(polled(door.open(&sid, true).to_string()));
    }
    if !reader::is_proper_upgrade(request) {
        return Err(Failure::BadRequest);
    }
    let conn = door.table.conn();
    let session = door.start(&sid, Some(conn), handshake, arrival);
    let open = Some(door.open(&sid, false));
    // No WebSocket, no session that was to begin with it.
    upgraded(request, door, &session, conn, open).inspect_err(|_| door.table.end(&sid))
}

/// Starts a WebSocket of a session of this node. A request that is no proper upgrade leaves the session as it is.
fn upgraded(
    request: &HttpRequest,
    door: &SocketIoDoor,
    session: &Addr<SessionActor>,
    conn: u64,
    open: Option<ByteString>,
) -> Result<HttpResponse, Failure> {
    let limit = door.settings.message_bytes_max;
    let started = connection::start(request, limit, session.clone().recipient(), conn, &door.actors);
    let (writer, response) = started.map_err(|_| Failure::BadRequest)?;
    // To a session that has ended meanwhile: the WebSocket ends as well.
    must_tell(session, Attach { conn, writer, open });
    Ok(response)
}

async fn here(
    request: &HttpRequest,
    payload: web::Payload,
    door: &SocketIoDoor,
    sid: &str,
    websocket: bool,
) -> Result<HttpResponse, Failure> {
    let session = door.table.find(sid).ok_or(Failure::SidUnknown)?;
    if websocket {
        let conn = door.table.conn();
        return upgraded(request, door, &session, conn, None);
    }
    match *request.method() {
        Method::GET => {
            let (answer, polled_later) = oneshot::channel();
            let gone = Gone::new(|| must_tell(&session, PollGone));
            session.send(Poll(answer)).await.map_err(|_| Failure::SidUnknown)?;
            let payload = polled_later.await.map_err(|_| Failure::SidUnknown);
            gone.disarm();
            Ok(polled(payload??))
        }
        Method::POST => {
            let (post, (refused, goes_on)) = (door.table.conn(), oneshot::channel());
            session.send(PostBegins(post, goes_on)).await.map_err(|_| Failure::SidUnknown)??;
            let body = read_body(request, payload, door).await;
            let body = match body {
                Ok(body) => body,
                Err(failure) => {
                    // A session that is over does not listen.
                    hint(refused, failure.parts().2);
                    return Err(failure);
                }
            };
            session.send(PostEnds(post, body)).await.map_err(|_| Failure::SidUnknown)??;
            Ok(posted())
        }
        _ => Err(Failure::BadRequest),
    }
}

async fn elsewhere(
    request: &HttpRequest,
    payload: web::Payload,
    door: &SocketIoDoor,
    remote: &Arc<Remote>,
    node: u64,
    sid: &str,
    websocket: bool,
) -> Result<HttpResponse, Failure> {
    if websocket {
        if !reader::is_proper_upgrade(request) {
            return Err(Failure::BadRequest);
        }
        let (conn, limit) = (door.table.conn(), door.settings.message_bytes_max);
        return Ok(remote.tunnel(request, limit, node, sid, conn).await?);
    }
    match *request.method() {
        Method::GET => {
            let gone = Gone::new(|| remote.poll_gone(node, sid));
            let payload = remote.poll(node, sid).await;
            gone.disarm();
            Ok(polled(payload?))
        }
        Method::POST => {
            let body = read_body(request, payload, door).await?;
            remote.post(node, sid, body).await?;
            Ok(posted())
        }
        _ => Err(Failure::BadRequest),
    }
}

/// Reads a POST; `None` when it is no text.
async fn read_body(
    request: &HttpRequest,
    payload: web::Payload,
    door: &SocketIoDoor,
) -> Result<Option<ByteString>, Failure> {
    let binary = request.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == "application/octet-stream");
    let (bytes_max, timeout, budget) = (door.settings.message_bytes_max, BODY_TIMEOUT, &door.receiving);
    let read = http_body::read(request, payload, http_body::Bounds { bytes_max, timeout, budget }).await;
    let body = read.map_err(|error| match error {
        BodyError::TooLarge => Failure::TooLarge,
        BodyError::Crowded => Failure::Crowded,
        BodyError::Late | BodyError::Broken(_) => Failure::BadRequest,
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
