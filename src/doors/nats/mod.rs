//! The door `nats`: any client of NATS, with live subjects over the cluster, and the book under the same subjects.
//!
//! ```text
//! wire         the protocol, pure: operations, INFO and CONNECT, headers, what the server says
//! connection   the actor of one connection        outbox   what waits for its client
//! record       messages as events, and back       jetstream   the part of its API that publishers ask
//! nodes        where the other nodes are           admit    from a CONNECT to an access
//! xbus         what clients of Xbus write and read, and the service that answers them
//! service      responders of the services API of NATS, as services of the roll
//! ```
//!
//! May import `bus`, `net` and `base`. Invariant: a subject of a namespace is recorded, and is delivered after its commit;
//! any other subject is live alone.

mod admit;
mod api_error;
mod connection;
mod context;
mod jetstream;
mod nodes;
mod outbox;
mod outcome;
mod record;
mod service;
pub mod settings;
pub mod wire;
pub mod xbus;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use rollbook_cluster::live::Live;
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};

use connection::pump;
use context::DoorContext;
use nodes::Nodes;
use record::EventMessages;
use settings::{HandshakeFirst, NAME, Settings};
use xbus::notices::Notices;
use xbus::service::XbusService;

use super::door::{Context, Description, Door};
use crate::bus::live_events::LiveEvents;
use crate::net::listener::greeting::{self, Greeting};
use crate::net::listener::listeners::Listeners;
use crate::net::listener::settings::ListenerSettings;
use crate::net::listener::tcp;

/// How long a server waits for a client that starts the handshake of TLS at once, as nats-server does.
const HANDSHAKE_FIRST_WAIT: Duration = Duration::from_millis(50);
/// The last word to a client that finds no room.
const FULL: &[u8] = b"-ERR 'maximum connections exceeded'\r\n";
/// The last word to a client that speaks no TLS.
const PLAINTEXT: &[u8] = b"-ERR 'Secure Connection - TLS Required'\r\n";
/// How often actors of Xbus are asked whether they are ready.
const SURVEY: Duration = Duration::from_secs(60);
/// Time beyond the lame duck for last words.
const LAST_WORDS: Duration = Duration::from_secs(3);

/// The door for clients of NATS.
#[derive(Debug)]
pub struct NatsDoor {
    context: Arc<DoorContext>,
    nodes: Arc<Nodes>,
    /// Ends what the door does beside its connections.
    _running: DropGuard,
}

/// Builds the door.
pub fn open(settings: &Settings, context: &Context) -> Arc<dyn Door> {
    let (access, services, settings) = (context.access.clone(), context.services.clone(), settings.clone());
    let stop = CancellationToken::new();
    let records = settings.clone();
    let allowed = Arc::new(move |name: &str| records.records(name) && !name.starts_with('_'));
    let events = LiveEvents::new(services.bus.clone(), &EventMessages, allowed);
    let nodes = Arc::new(Nodes::new(&settings, services.peers.clone()));
    if settings.listen.addr().is_some() {
        actix_web::rt::spawn(Arc::clone(&events).run(stop.clone()));
        let (saying, ended) = (Arc::clone(&nodes), stop.clone());
        actix_web::rt::spawn(async move { ended.run_until_cancelled(saying.say()).await });
    }
    let (next, count, draining) = (AtomicU64::new(1), AtomicUsize::new(0), AtomicBool::new(false));
    let shared = Arc::clone(&nodes);
    let engine = context.xbus.clone();
    let notices = Notices::new(services.bus.clone());
    engine.flow().listen(Arc::<Notices>::clone(&notices));
    if settings.listen.addr().is_some() {
        let ended = stop.clone();
        actix_web::rt::spawn(async move { ended.run_until_cancelled(survey(notices)).await });
    }
    let xbus = XbusService::new(engine.clone());
    let context = Arc::new(DoorContext {
        settings,
        access,
        services,
        events,
        nodes: shared,
        xbus,
        engine,
        next,
        count,
        draining,
    });
    Arc::new(NatsDoor { context, nodes, _running: stop.drop_guard() })
}

/// Asks the actors again and again whether they are ready.
async fn survey(notices: Arc<Notices>) {
    loop {
        notices.survey();
        actix_web::rt::time::sleep(SURVEY).await;
    }
}

impl Door for NatsDoor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> Description {
        Description {
            protocol: "NATS",
            path: None,
            purpose: "publish, subscribe, request and record with any client of NATS",
        }
    }

    fn listen(self: Arc<Self>, listeners: &mut Listeners) -> anyhow::Result<()> {
        let settings = &self.context.settings;
        if let Some(address) = listeners.address(NAME)? {
            self.nodes.set_listener(address);
        }
        let context = Arc::clone(&self.context);
        let tls = listeners.speaks_tls(settings.listener_tls());
        let make = Arc::new(move |peer: &crate::net::peer::Peer| {
            context.greeting(context.next.fetch_add(1, Ordering::Relaxed), peer, tls)
        });
        let handshake = match settings.tls_handshake_first {
            HandshakeFirst::Off => greeting::HandshakeFirst::Never,
            HandshakeFirst::Auto => greeting::HandshakeFirst::Within(HANDSHAKE_FIRST_WAIT),
            HandshakeFirst::On => greeting::HandshakeFirst::Always,
        };
        let listener = ListenerSettings {
            name: NAME,
            connections_max: settings.connections_max,
            proxy_protocol_from: settings.proxy_protocol_from.clone(),
            tls: settings.listener_tls(),
            client_ca: settings.xbus_ca().map(Path::to_path_buf),
            greeting: Some(Greeting { make, handshake, plaintext_refusal: PLAINTEXT }),
        };
        let context = Arc::clone(&self.context);
        Ok(listeners.tcp(listener, FULL, move |connection| serve(&context, connection))?)
    }

    fn live(&self) -> Option<Arc<dyn Live>> {
        let nodes: Arc<dyn Live> = Arc::<Nodes>::clone(&self.nodes);
        Some(nodes)
    }

    fn drain(&self) {
        self.context.draining.store(true, Ordering::Relaxed);
    }

    fn connections(&self) -> usize {
        self.context.count.load(Ordering::Relaxed)
    }

    fn drain_timeout(&self) -> Duration {
        self.context.settings.lame_duck.saturating_add(LAST_WORDS)
    }
}

/// Serves a connection. The future resolves when the connection has ended, and holds nothing of it meanwhile.
fn serve(context: &Arc<DoorContext>, connection: tcp::Connection) -> impl Future<Output = ()> + use<> {
    let (alive, ended) = oneshot::channel();
    pump::start(context, connection, alive);
    // The actor drops its end when it is gone.
    ended.map(drop)
}
