//! The door `hms`: service managers and docks, which start, stop and watch processes.
//!
//! ```text
//! wire         the protocol, pure: frames, operations, payloads, the handshake
//! connection   the actor of one connection        outbox   what waits for its client
//! http         the requests beside CONNECT: builds, up and down
//! admit        from a token to an access          context  what all connections share
//! ```
//!
//! May import `bus`, `net` and `base`. Invariant: nothing that one peer sends ends another one: what is relayed was
//! checked, and stock peers get only what they survive.

mod admit;
mod connection;
mod context;
mod http;
mod outbox;
pub mod settings;
pub mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use tokio::sync::oneshot;

use context::DoorContext;
use settings::{NAME, Settings};

use super::door::{Context, Description, Door};
use crate::net::listener::listeners::Listeners;
use crate::net::listener::settings::ListenerSettings;
use crate::net::listener::tcp;
use crate::net::peer::Peer;
use crate::net::websocket::reader;

/// How long connections of a stopping node may take for their last words.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The path of the door on the web listener, for docks and clients behind HTTP proxies.
const PATH: &str = "/hms";

/// The door for clients and docks of hms.
#[derive(Debug)]
pub struct HmsDoor {
    context: Arc<DoorContext>,
}

/// Builds the door.
pub fn open(settings: &Settings, context: &Context) -> Arc<dyn Door> {
    let context = DoorContext {
        settings: settings.clone(),
        access: context.access.clone(),
        services: context.services.clone(),
        docks: context.docks.clone(),
        next: AtomicU64::new(1),
        count: AtomicUsize::new(0),
        draining: AtomicBool::new(false),
    };
    Arc::new(HmsDoor { context: Arc::new(context) })
}

impl Door for HmsDoor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> Description {
        Description {
            protocol: "hms-protocol",
            path: Some(PATH),
            purpose: "start, stop, deploy and watch processes on docks with hms",
        }
    }

    fn routes(self: Arc<Self>, services: &mut web::ServiceConfig) {
        if !self.context.settings.is_open() {
            return;
        }
        let resource = web::resource(PATH).app_data(web::Data::from(self));
        services.service(resource.route(web::get().to(websocket)));
    }

    fn listen(self: Arc<Self>, listeners: &mut Listeners) -> anyhow::Result<()> {
        let context = Arc::clone(&self.context);
        let settings = ListenerSettings {
            name: NAME,
            connections_max: context.settings.connections_max,
            proxy_protocol_from: context.settings.proxy_protocol_from.clone(),
            tls: context.settings.listener_tls(),
            client_ca: None,
            greeting: None,
        };
        // Whoever finds no room is told nothing: a stock client parses whatever comes as frames.
        listeners.tcp(settings, b"", move |connection: tcp::Connection| {
            let context = Arc::clone(&context);
            async move {
                if context.draining.load(Ordering::Relaxed) {
                    return;
                }
                let (ended, end) = oneshot::channel();
                connection::start(&context, connection, ended);
                // The sender is dropped, and never sends.
                end.await.ok();
            }
        })?;
        Ok(())
    }

    fn drain(&self) {
        self.context.draining.store(true, Ordering::Relaxed);
    }

    fn connections(&self) -> usize {
        self.context.count.load(Ordering::Relaxed)
    }

    fn drain_timeout(&self) -> Duration {
        LAST_WORDS
    }
}

/// Frames over a WebSocket.
async fn websocket(door: web::Data<HmsDoor>, request: HttpRequest) -> HttpResponse {
    let text = |status: fn() -> actix_web::HttpResponseBuilder, text: &'static str| {
        status().insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(text)
    };
    if door.context.draining.load(Ordering::Relaxed) {
        return text(HttpResponse::ServiceUnavailable, "the node stops; connect to another one\n");
    }
    // No page in a browser is a dock or its client; one that connects does so with the rights of whoever looks at it.
    if request.headers().contains_key(header::ORIGIN) {
        return text(HttpResponse::Forbidden, "this path is not for browsers\n");
    }
    let Some(peer) = Peer::of(&request).filter(|_| reader::is_proper_upgrade(&request)) else {
        return text(HttpResponse::BadRequest, "frames of hms-protocol in the binary messages of a WebSocket\n");
    };
    if door.connections() >= door.context.settings.connections_max {
        return text(HttpResponse::ServiceUnavailable, "too many connections\n");
    }
    connection::websocket::upgrade(&door.context, &request, peer).unwrap_or_else(|error| error.error_response())
}
