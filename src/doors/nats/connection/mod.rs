//! The actor of one connection.
//!
//! [`pump`] moves bytes between the socket and the actor, [`operations`] has what a client may ask for, [`recorded`] the
//! messages that go into the book, [`calls`] requests to services of any door, [`services`] what the client itself
//! serves, [`xbus`] calls of Xbus, and [`agents`] its actors. Imports the pure parts of the door, and the bus. Invariant: a connection ends by
//! [`Connection::end`] alone, which removes the client from the bus; what it still has to say is written then, within
//! [`END_TIME`].

mod agents;
mod calls;
mod operations;
pub(super) mod pump;
mod recorded;
mod services;
mod xbus;

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, StreamHandler};
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, unfold};
use tokio::sync::oneshot;

use super::admit::admit;
use super::context::DoorContext;
use super::outbox::Outbox;
use super::outcome::Recorded;
use super::service::responder::Responders;
use super::settings::{NAME, Settings};
use super::wire::connect::Connect;
use super::wire::encode;
use super::wire::error::ProtocolError;
use super::xbus::service::in_flight::CallsInFlight;
use crate::base::actors::{Belongs, Kind};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::access::Access;
use crate::bus::access::live::LiveClient;
use crate::bus::client::clients::{About, ClientHandle, ClientMessage, CloseReason};
use crate::bus::client::no_announcements::NO_ANNOUNCEMENTS;
use crate::bus::error::Fault;
use crate::bus::live::filter::LiveFilter;
use crate::bus::live::subjects::LiveSubscription;
use crate::bus::security::origin::Origin;
use crate::bus::security::usage::Place;
use crate::net::listener::tcp;
use crate::net::peer::Peer;
use agents::Agents;

/// About the most bytes that the subscriptions of one client take.
const SUBSCRIPTION_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a connection that ends may take to say its last words.
const END_TIME: Duration = Duration::from_secs(2);

/// A subscription of the client.
struct Subscription {
    /// The number by which the outbox knows it.
    number: u64,
    filter: LiveFilter,
    queue: Box<str>,
    /// The subscription ends when this is dropped.
    _live: LiveSubscription,
}

impl Subscription {
    /// About the bytes that are kept of a subscription, for the bound of its client.
    fn bytes(sid: &[u8], filter: &LiveFilter, queue: &str) -> usize {
        filter.weight(sid.len().saturating_add(queue.len()))
    }
}

/// A client that was admitted.
struct Client {
    live: LiveClient,
    /// Makes the client known to the bus.
    handle: ClientHandle,
    /// By the names that the client gave them.
    subscriptions: HashMap<Bytes, Subscription>,
    /// What the client serves.
    responders: Responders,
    /// Messages on their way into the book.
    recorded: FuturesUnordered<Recorded>,
    /// Calls of Xbus that are being answered.
    calls: CallsInFlight,
    /// Actors of Xbus that the client speaks for.
    agents: Agents,
}

/// A client that is being admitted.
type Admission = LocalBoxFuture<'static, Result<(Access, Place), Fault>>;

/// What is known of the client.
enum Stage {
    /// Nobody has said anything.
    New,
    /// The credential of the CONNECT is being looked at. Nothing more is read meanwhile.
    Admitting(Admission),
    /// The client may use the bus.
    Open(Box<Client>),
    /// The connection ends.
    Ending,
}

/// The actor of one connection.
pub(super) struct Connection {
    context: Arc<DoorContext>,
    /// The number of the connection at this node.
    number: u64,
    /// What the client was asked to sign, if it has a key; empty when it was not asked.
    nonce: String,
    peer: Peer,
    outbox: Arc<Outbox>,
    stage: Stage,
    /// What the client has said of itself, its credentials included until the client is admitted.
    connect: Connect,
    /// About the bytes of the subscriptions of the client.
    subscription_bytes: usize,
    /// The number of the next subscription.
    next_subscription: u64,
    /// When bytes of the client came last.
    last_heard: Instant,
    /// PINGs without an answer.
    pings: u32,
    /// Since when the socket takes nothing of what waits.
    blocked: Option<Instant>,
    /// Whether a timer looks at that.
    watches_writes: bool,
    /// Whether the client was told that the node stops.
    lame: bool,
    /// The change of the addresses of nodes that the client knows.
    nodes_known: u64,
    /// Whether the client is told of further changes.
    follows_nodes: bool,
    /// Whether the log says that something that the client serves is no service of the roll.
    warned_of_responder: bool,
    /// Dropped when the connection ends.
    _ended: oneshot::Sender<Infallible>,
}

impl Connection {
    /// The actor of a new connection.
    fn new(context: &Arc<DoorContext>, connection: &tcp::Connection, ended: oneshot::Sender<Infallible>) -> Self {
        let peer = connection.peer.clone();
        let nodes_known = *context.nodes.changes().borrow();
        // The client may have started the handshake of TLS before the node could say anything.
        let late = connection.greeting.is_empty();
        let greeting = match late {
            true => context.greeting(context.next.fetch_add(1, Ordering::Relaxed), &peer, false),
            false => connection.greeting.clone(),
        };
        let Greeted { client_id: number, nonce } =
            serde_json::from_slice(greeting.strip_prefix(b"INFO ").unwrap_or_default()).unwrap_or_default();
        let outbox = Arc::new(Outbox::new(number, context.settings.queue_bytes_max));
        if late {
            outbox.say(|out| out.extend_from_slice(&greeting));
        }
        context.count.fetch_add(1, Ordering::Relaxed);
        Self {
            context: Arc::clone(context),
            number,
            nonce,
            peer,
            outbox,
            stage: Stage::New,
            connect: Connect::default(),
            next_subscription: 1,
            last_heard: clock::now(),
            pings: 0,
            blocked: None,
            watches_writes: false,
            subscription_bytes: 0,
            lame: false,
            nodes_known,
            follows_nodes: false,
            warned_of_responder: false,
            _ended: ended,
        }
    }

    fn settings(&self) -> &Settings {
        &self.context.settings
    }

    /// Whether the connection only says its last words.
    const fn is_ending(&self) -> bool {
        matches!(self.stage, Stage::Ending)
    }

    /// Whether what the client says can be handled now.
    fn is_listening(&self) -> bool {
        match &self.stage {
            Stage::New => true,
            Stage::Open(client) => {
                let waiting = client.recorded.len().saturating_add(client.calls.count());
                waiting < self.settings().in_flight_max && client.calls.has_room()
            }
            Stage::Admitting(_) | Stage::Ending => false,
        }
    }

    /// Says something. A client that does not read what it is told is disconnected.
    fn say(&mut self, write: impl FnOnce(&mut bytes::BytesMut), ctx: &mut Context<Self>) {
        if !self.is_ending() && !self.outbox.say(write) {
            self.end_slow(ctx);
        }
    }

    /// Tells the client of an error, and ends the connection if the error is of those.
    fn refuse(&mut self, error: &ProtocolError, ctx: &mut Context<Self>) {
        if self.is_ending() {
            return;
        }
        self.outbox.say(|out| encode::error(out, error));
        if error.closes() {
            tracing::debug!(connection = self.number, %error, "the connection of a client ends");
            self.end(ctx);
        }
    }

    fn end_slow(&mut self, ctx: &mut Context<Self>) {
        if self.is_ending() {
            return;
        }
        let waiting = self.outbox.waiting();
        self.context.services.bus.metrics().clients_slow.inc();
        tracing::warn!(
            connection = self.number, client = self.connect.name, address = %self.peer.address, waiting,
            "a client that does not read is disconnected"
        );
        self.end(ctx);
    }

    /// Removes the client from the bus, writes what waits and closes the socket.
    fn end(&mut self, ctx: &mut Context<Self>) {
        if self.is_ending() {
            return;
        }
        self.leave();
        ctx.run_later(END_TIME, |_, ctx| ctx.stop());
    }

    /// The socket takes bytes again.
    const fn write_moves(&mut self) {
        self.blocked = None;
    }

    /// The socket takes nothing. A client that reads nothing for too long is disconnected.
    fn write_blocks(&mut self, ctx: &mut Context<Self>) {
        self.blocked.get_or_insert_with(clock::now);
        // One timer at a time, however often the socket blocks.
        if !std::mem::replace(&mut self.watches_writes, true) {
            Self::watch_writes(self.settings().write_timeout, ctx);
        }
    }

    fn watch_writes(wait: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(wait, |act, ctx| {
            let timeout = act.settings().write_timeout;
            match act.blocked.map(|since| timeout.saturating_sub(clock::now().saturating_duration_since(since))) {
                None => act.watches_writes = false,
                Some(left) if left.is_zero() => act.end_slow(ctx),
                Some(left) => Self::watch_writes(left, ctx),
            }
        });
    }

    /// Removes the client from the bus.
    fn leave(&mut self) {
        // Its subscriptions end with the stage.
        if let Stage::Open(client) = std::mem::replace(&mut self.stage, Stage::Ending) {
            let serial = client.handle.client().serial;
            // The handle goes first: a request that is being routed then finds no client, or is found by `forget`.
            drop(client);
            self.context.services.router.forget(serial);
        }
    }

    /// The client has said who it is, or that it does not say so.
    fn begin_admission(&mut self, connect: Connect, ctx: &mut Context<Self>) {
        self.connect = connect.clone();
        let origin = Origin::new(NAME, Some(self.peer.clone()));
        // A signature counts once.
        let connect = (connect, std::mem::take(&mut self.nonce));
        let mut admission = admit(self.context.access.clone(), connect, origin).boxed_local();
        match (&mut admission).now_or_never() {
            Some(admitted) => self.admitted(admitted, ctx),
            None => self.stage = Stage::Admitting(admission),
        }
    }

    fn admitted(&mut self, admitted: Result<(Access, Place), Fault>, ctx: &mut Context<Self>) {
        let (access, place) = match admitted {
            Ok(admitted) => admitted,
            Err(fault) => {
                tracing::debug!(connection = self.number, reason = %fault, "a client is not admitted");
                let error = match fault.kind {
                    FaultKind::Overloaded => ProtocolError::TooManyConnections,
                    _ => ProtocolError::AuthorizationViolation,
                };
                return self.refuse(&error, ctx);
            }
        };
        self.outbox.set_headers(self.connect.headers);
        // The credentials are not needed any more.
        self.connect.forget_credentials();
        let name = self.connect.display_name();
        let transport = if self.peer.tls { "nats+tls" } else { NAME };
        let (id, address) = (self.number.to_string(), self.peer.address.to_string());
        let about = About { id, address, name, transport, ..About::default() };
        let client = (Arc::clone(access.identity()), Some(place));
        let clients = &self.context.services.clients;
        let handle = clients.connect(client, &NO_ANNOUNCEMENTS, ctx.address().recipient(), about);
        let live = LiveClient::new(access, (!self.connect.echo).then_some(self.number));
        let (subscriptions, responders, recorded) = (HashMap::new(), Responders::new(), FuturesUnordered::new());
        let (calls, agents) = (CallsInFlight::default(), Agents::default());
        let client = Client { live, handle, subscriptions, responders, recorded, calls, agents };
        self.stage = Stage::Open(Box::new(client));
        if self.connect.verbose {
            self.say(encode::ok, ctx);
        }
    }

    /// A client that says something without a CONNECT is one that shows no credential.
    fn admit_without_connect(&mut self, ctx: &mut Context<Self>) {
        let origin = Origin::new(NAME, Some(self.peer.clone()));
        let admitted = admit(self.context.access.clone(), (Connect::default(), String::new()), origin).now_or_never();
        let Some(Ok(admitted)) = admitted else { return self.refuse(&ProtocolError::AuthorizationViolation, ctx) };
        // The operation that comes now is answered, and no CONNECT is.
        let verbose = std::mem::replace(&mut self.connect.verbose, false);
        self.admitted(Ok(admitted), ctx);
        self.connect.verbose = verbose;
    }

    /// The client has its first PONG: from now on it is told when nodes come and go. Nothing may come before that.
    fn follow_nodes(&mut self, ctx: &mut Context<Self>) {
        if !self.connect.takes_async_info() || std::mem::replace(&mut self.follows_nodes, true) {
            return;
        }
        let mut changes = self.context.nodes.changes();
        if *changes.borrow() != self.nodes_known {
            changes.mark_changed();
        }
        ctx.add_stream(unfold(changes, |mut changes| async move {
            changes.changed().await.ok()?;
            Some((NodesChanged, changes))
        }));
    }

    /// The node stops: the client should go to another one.
    fn lame_duck(&mut self, ctx: &mut Context<Self>) {
        if std::mem::replace(&mut self.lame, true) || self.is_ending() {
            return;
        }
        if self.connect.takes_async_info() {
            let info = self.context.farewell(self.number, &self.peer);
            if let Ok(json) = info.json() {
                self.say(|out| encode::info(out, &json), ctx);
            }
        }
        // Not all at once, so that the other nodes are not overrun.
        ctx.run_later(spread(self.number, self.settings().lame_duck), |act, ctx| act.end(ctx));
    }

    fn close(&mut self, reason: CloseReason, ctx: &mut Context<Self>) {
        match reason {
            CloseReason::Draining => self.lame_duck(ctx),
            CloseReason::Unauthenticated | CloseReason::Forbidden => {
                self.refuse(&ProtocolError::AuthorizationViolation, ctx);
            }
            CloseReason::Replaced | CloseReason::Removed => self.end(ctx),
            CloseReason::Unresponsive => self.refuse(&ProtocolError::StaleConnection, ctx),
        }
    }

    /// Sends a PING after some silence, and gives a client up that answers none.
    fn watch_liveness(&self, ctx: &mut Context<Self>) {
        let interval = self.settings().ping_interval;
        ctx.run_interval(interval, move |act, ctx| {
            let heard = clock::now().saturating_duration_since(act.last_heard) < interval;
            if heard {
                act.pings = 0;
            } else if act.pings >= act.settings().pings_max {
                act.refuse(&ProtocolError::StaleConnection, ctx);
            } else {
                act.pings = act.pings.saturating_add(1);
                act.say(encode::ping, ctx);
                act.outbox.rouse();
            }
        });
    }
}

/// The addresses of the nodes are others.
struct NodesChanged;

impl StreamHandler<NodesChanged> for Connection {
    fn handle(&mut self, _: NodesChanged, ctx: &mut Context<Self>) {
        if self.lame || !matches!(self.stage, Stage::Open(_)) {
            return;
        }
        if let Ok(json) = self.context.info(self.number, &self.peer, self.peer.tls).json() {
            self.say(|out| encode::info(out, &json), ctx);
            self.outbox.rouse();
        }
    }

    /// The door is gone, and so will be the connection.
    fn finished(&mut self, _: &mut Context<Self>) {}
}

/// What the node has said of the connection before the connection had an actor.
#[derive(Debug, Default, serde::Deserialize)]
struct Greeted {
    client_id: u64,
    /// What a client with a key signs; empty when nobody has one.
    #[serde(default)]
    nonce: String,
}

/// A time within `most`, other for each connection.
fn spread(connection: u64, most: Duration) -> Duration {
    let part = u32::try_from(connection.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32).unwrap_or_default();
    most.mul_f64(f64::from(part) / f64::from(u32::MAX))
}

impl Actor for Connection {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        self.watch_liveness(ctx);
        ctx.run_later(self.settings().auth_timeout, |act, ctx| {
            // A client that needs no credential may say nothing for as long as it wants.
            let open = act.context.services.bus.authority().is_open_to(act.peer.local);
            if matches!(act.stage, Stage::Admitting(_)) || matches!(act.stage, Stage::New) && !open {
                act.refuse(&ProtocolError::AuthenticationTimeout, ctx);
                act.outbox.rouse();
            }
        });
    }
}

impl Belongs for Connection {
    const KIND: Kind = Kind::NatsConnection;
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.leave();
        self.outbox.end();
        self.context.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handler<ClientMessage> for Connection {
    type Result = ();

    fn handle(&mut self, message: ClientMessage, ctx: &mut Self::Context) {
        match message {
            ClientMessage::Close(reason) => self.close(reason, ctx),
            ClientMessage::RightsChanged => self.check_rights(ctx),
            // This door does not ask the bus for the others.
            _ => {}
        }
        // What was said is written by the pump, which may sleep.
        self.outbox.rouse();
    }
}
