//! The door `websocket`: services and consumers with plain JSON over a WebSocket.
//!
//! `codec`, `outbound` and `session` are pure; `connection` is the actor that connects them to the socket and
//! the bus. Imports the bus and the network layer, and no other door.

mod announcements;
mod close_codes;
mod codec;
mod connection;
mod context;
mod error;
mod outbound;
mod payloads;
mod service_snapshot;
mod session;
pub mod settings;
#[cfg(test)]
mod tests;
mod unhandled_limit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix::{self, AsyncContext as _};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::base::actors::start_with_its_stream;
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::security::credentials::bearer;
use crate::bus::security::http::CHALLENGE;
use crate::bus::security::identity::Identity;
use crate::bus::security::origin::Origin as ClientOrigin;
use crate::bus::security::usage::Place;
use crate::doors::door::{Context, Description, Door};
use crate::net::http::status::status;
use crate::net::origins::Origin;
use crate::net::peer::Peer;
use crate::net::websocket::reader;

use connection::Connection;
use context::ConnectionContext;
use service_snapshot::SnapshotCache;
use settings::{NAME, Settings};
use unhandled_limit::UnhandledLimit;

/// The version of the WebSocket protocol.
const VERSION: &str = "13";
/// Length of the key of an upgrade, bytes.
const KEY_BYTES: usize = 16;
/// The subprotocol, for clients that negotiate one.
const SUBPROTOCOL: &str = "rollbook.v1";
/// Beginning of a subprotocol that is no protocol but a token.
const BEARER: &str = "bearer.";

/// The path of the door on the web listener.
const PATH: &str = "/ws";
/// Time that a client needs beyond its own drain time to get its last frames.
const LAST_FRAMES: Duration = Duration::from_secs(1);
/// Least time that clients have to finish their calls and streams.
const DRAIN_MIN: Duration = Duration::from_secs(5);

/// The door for services with plain JSON.
#[derive(Debug)]
pub struct WebSocketDoor {
    shared: Arc<ConnectionContext>,
    draining: AtomicBool,
}

/// Builds the door.
pub fn open(settings: &Settings, context: &Context) -> Arc<dyn Door> {
    let shared = ConnectionContext {
        services: context.services.clone(),
        access: context.access.clone(),
        settings: settings.clone(),
        snapshots: SnapshotCache::default(),
        unhandled_limit: UnhandledLimit::default(),
        count: AtomicUsize::new(0),
    };
    Arc::new(WebSocketDoor { shared: Arc::new(shared), draining: AtomicBool::new(false) })
}

impl Door for WebSocketDoor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> Description {
        Description {
            protocol: "JSON over WebSocket",
            path: Some(PATH),
            purpose: "register services, call and be called, publish and subscribe in any language that has a WebSocket",
        }
    }

    fn routes(self: Arc<Self>, services: &mut web::ServiceConfig) {
        let resource = web::resource(PATH).app_data(web::Data::from(self));
        services.service(resource.route(web::get().to(handle)).default_service(web::to(not_a_get)));
    }

    fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn connections(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }

    fn drain_timeout(&self) -> Duration {
        DRAIN_MIN.max(self.shared.settings.drain_timeout.saturating_add(LAST_FRAMES))
    }
}

fn refuse(status: StatusCode, text: &'static str) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    if status == StatusCode::UPGRADE_REQUIRED {
        answer.insert_header((header::UPGRADE, "websocket")).insert_header((header::SEC_WEBSOCKET_VERSION, VERSION));
    }
    answer.insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(format!("{text}\n"))
}

/// The client of an upgrade, and its place among the connections of its principal. A browser cannot set headers, so a
/// token may stand among the subprotocols that it offers: `bearer.TOKEN`.
async fn admit(request: &HttpRequest, shared: &ConnectionContext) -> Result<(Arc<Identity>, Place), Fault> {
    let authority = shared.services.bus.authority();
    let offered = request.headers().get_all(header::SEC_WEBSOCKET_PROTOCOL).filter_map(|value| value.to_str().ok());
    let token = offered.flat_map(|value| value.split(',')).find_map(|word| word.trim().strip_prefix(BEARER));
    let identity = match token {
        Some(token) if !request.headers().contains_key(header::AUTHORIZATION) => {
            let origin = ClientOrigin::new(NAME, Peer::of(request));
            authority.admit(Some(bearer::from_bearer(token)), origin).await?
        }
        _ => authority.admit_http(NAME, request).await?,
    };
    let place = identity.usage().connect(clock::now())?;
    Ok((identity, place))
}

/// The answer to a client that is not admitted.
fn refused(fault: &Fault) -> HttpResponse {
    let mut answer = HttpResponse::build(status(fault.kind));
    if fault.kind == FaultKind::Unauthenticated {
        answer.insert_header((header::WWW_AUTHENTICATE, CHALLENGE));
    }
    if matches!(fault.kind, FaultKind::Overloaded | FaultKind::Unavailable) {
        answer.insert_header((header::RETRY_AFTER, fault.retry_after.unwrap_or(1).to_string()));
    }
    answer.insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(format!("{fault}\n"))
}

async fn not_a_get() -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET")).finish()
}

async fn handle(request: HttpRequest, door: web::Data<WebSocketDoor>) -> HttpResponse {
    if !reader::is_upgrade(&request) {
        return refuse(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket: connect with a WebSocket client");
    }
    if request.headers().get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return refuse(StatusCode::UPGRADE_REQUIRED, "only version 13 of the WebSocket protocol");
    }
    // Only the length of the key matters.
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    if !key.is_some_and(|key| BASE64.decode(key).is_ok_and(|key| key.len() == KEY_BYTES)) {
        return refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key: expected 16 bytes in base64");
    }
    if !Origin::of(request.headers()).is_allowed(&door.shared.settings.origins) {
        return refuse(StatusCode::FORBIDDEN, "pages of this origin may not use this door");
    }
    if door.draining.load(Ordering::Relaxed) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "node is stopping");
    }
    let shared = &door.shared;
    if door.connections() >= shared.settings.connections_max {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    }
    let (admitted, refusal) = match admit(&request, shared).await {
        Ok((identity, place)) => ((identity, Some(place)), None),
        // A browser does not show the status of an upgrade to its page, but a close code.
        Err(fault)
            if fault.kind == FaultKind::Unauthenticated && !request.headers().contains_key(header::AUTHORIZATION) =>
        {
            ((Identity::nobody(), None), Some(fault))
        }
        Err(fault) => return refused(&fault),
    };
    match reader::open(&request, shared.settings.message_bytes_max, &[SUBPROTOCOL]) {
        Ok((reader, sink, response)) => {
            let address = request.peer_addr().map(|addr| addr.to_string()).unwrap_or_default();
            let actors = &shared.services.bus.metrics().actors;
            start_with_its_stream(actors, |ctx: &mut actix::Context<Connection>| {
                ctx.add_stream(reader);
                Connection::new((Arc::clone(shared), admitted, refusal), sink, address, ctx)
            });
            response
        }
        Err(error) => error.error_response(),
    }
}
