//! The door `websocket`: services and consumers with plain JSON over a WebSocket.

mod announcements;
mod close_codes;
mod codec;
pub mod config;
mod connection;
mod context;
mod error;
mod outbound;
mod payloads;
mod service_snapshot;
mod session;
#[cfg(test)]
mod tests;
mod unhandled_limit;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use actix::{AsyncContext as _, Context};
use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::base::actors::start_with_its_stream;
use crate::bus::access::Access;
use crate::bus::roll::services::Services;
use crate::net::origins::Origin;
use crate::net::websocket::reader;

use config::Config;
use connection::Connection;
use context::ConnectionContext;
use service_snapshot::SnapshotCache;
use unhandled_limit::UnhandledLimit;

/// The version of the WebSocket protocol.
const VERSION: &str = "13";
/// Bytes of the key of an upgrade.
const KEY_BYTES: usize = 16;
/// The subprotocol, for clients that want to agree on one.
const SUBPROTOCOL: &str = "rollbook.v1";

/// The door.
#[derive(Debug)]
pub struct Door {
    shared: Arc<ConnectionContext>,
    draining: AtomicBool,
}

impl Door {
    /// A door onto the bus.
    #[must_use]
    pub fn new(services: &Services, access: Access, config: Config) -> Arc<Self> {
        let shared = ConnectionContext {
            services: services.clone(),
            access,
            config,
            snapshots: SnapshotCache::default(),
            unhandled_limit: UnhandledLimit::default(),
            count: AtomicUsize::new(0),
        };
        Arc::new(Self { shared: Arc::new(shared), draining: AtomicBool::new(false) })
    }

    /// From now on nobody new is let in.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// How many are connected.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.count.load(Ordering::Relaxed)
    }
}

/// Lets a server answer at `/ws` with this door.
pub fn mount(door: &Arc<Door>, services: &mut web::ServiceConfig) {
    let resource = web::resource("/ws").app_data(web::Data::from(Arc::clone(door)));
    services.service(resource.route(web::get().to(handle)).default_service(web::to(not_a_get)));
}

fn refuse(status: StatusCode, text: &'static str) -> HttpResponse {
    let mut answer = HttpResponse::build(status);
    if status == StatusCode::UPGRADE_REQUIRED {
        answer.insert_header((header::UPGRADE, "websocket")).insert_header((header::SEC_WEBSOCKET_VERSION, VERSION));
    }
    answer.insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(format!("{text}\n"))
}

async fn not_a_get() -> HttpResponse {
    HttpResponse::MethodNotAllowed().insert_header((header::ALLOW, "GET")).finish()
}

async fn handle(request: HttpRequest, door: web::Data<Door>) -> HttpResponse {
    if !reader::is_upgrade(&request) {
        return refuse(StatusCode::UPGRADE_REQUIRED, "this is a WebSocket: connect with a WebSocket client");
    }
    if request.headers().get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != VERSION) {
        return refuse(StatusCode::UPGRADE_REQUIRED, "only version 13 of the WebSocket protocol");
    }
    // Its value means nothing, but for its length.
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY);
    if !key.is_some_and(|key| BASE64.decode(key).is_ok_and(|key| key.len() == KEY_BYTES)) {
        return refuse(StatusCode::BAD_REQUEST, "Sec-WebSocket-Key: expected 16 bytes in base64");
    }
    if !Origin::of(request.headers()).is_allowed(&door.shared.config.origins) {
        return refuse(StatusCode::FORBIDDEN, "pages of this origin may not use this door");
    }
    if door.draining.load(Ordering::Relaxed) {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "node is stopping");
    }
    let shared = &door.shared;
    if door.connections() >= shared.config.connections_max {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "too many connections");
    }
    match reader::open(&request, shared.config.message_bytes_max, &[SUBPROTOCOL]) {
        Ok((reader, sink, response)) => {
            let address = request.peer_addr().map(|addr| addr.to_string()).unwrap_or_default();
            let actors = &shared.services.bus.metrics().actors;
            start_with_its_stream(actors, |ctx: &mut Context<Connection>| {
                ctx.add_stream(reader);
                Connection::new(Arc::clone(shared), sink, address, ctx)
            });
            response
        }
        Err(error) => error.error_response(),
    }
}
