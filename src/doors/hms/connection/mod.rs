//! The actor of one connection.
//!
//! ```text
//! opening   frames or HTTP, by the first byte        stream    bytes in and out, and pings
//! session   what a peer may say, and when            client    what clients ask for
//! follower  output of processes for a client         dock      what docks tell, and are asked to do
//! admission who a peer is                            signals   what the bus has to say to a connection
//! websocket frames in the messages of a WebSocket    keep_alive   pings, and the end of a peer that shows no life
//! ```
//!
//! The actor owns one task, which has the socket and ends with the actor; the bus reaches the task by [`signals::Signals`]. Imports
//! the pure parts of the door, and the bus. Invariant: requests of one connection are done one after the other, in the order
//! in which they came, and each is answered once.

mod admission;
mod client;
mod dock;
mod follower;
mod keep_alive;
mod opening;
mod session;
mod signals;
mod stream;
pub(super) mod websocket;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use actix::ActorFutureExt as _;
use actix::fut::wrap_future;
use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler};
use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::admit::Shown;
use super::context::DoorContext;
use super::outbox::Outbox;
use crate::base::actors::{Belongs, Kind, start_with_its_stream};
use crate::bus::client::clients::{ClientMessage, CloseReason};
use crate::net::listener::tcp;
use crate::net::peer::Peer;
use session::{Session, Setup};
use signals::Signals;

/// The actor of one connection.
pub(super) struct Connection {
    context: Arc<DoorContext>,
    closing: watch::Sender<Option<CloseReason>>,
    rights: watch::Sender<u64>,
    /// Dropped when the connection ends.
    _ended: oneshot::Sender<Infallible>,
}

/// Starts the actor of a connection, which ends when the connection does. `ended` is dropped then.
pub(super) fn start(context: &Arc<DoorContext>, connection: tcp::Connection, ended: oneshot::Sender<Infallible>) {
    let opened = Arc::clone(context);
    start_with(context, ended, |signals| opening::serve(opened, connection, signals));
}

/// Starts the actor of a stream of frames, of which some bytes were read already.
fn start_on<S: AsyncRead + AsyncWrite + Unpin + 'static>(
    context: &Arc<DoorContext>,
    (stream, read): (S, BytesMut),
    (peer, shown): (Peer, Shown),
    ended: oneshot::Sender<Infallible>,
) {
    let shared = Arc::clone(context);
    start_with(context, ended, |signals| {
        let outbox = Arc::new(Outbox::new(shared.settings.queue_bytes_max));
        let session = Session::new(Setup { context: shared, peer, shown, outbox, signals });
        // The bus tells the client when the node stops.
        stream::run(stream, read, session, CancellationToken::new())
    });
}

fn start_with<F: Future<Output = ()> + 'static>(
    context: &Arc<DoorContext>,
    ended: oneshot::Sender<Infallible>,
    serve: impl FnOnce(Signals) -> F,
) {
    start_with_its_stream(&context.services.bus.metrics().actors, |ctx: &mut Context<Connection>| {
        let (closing, close) = watch::channel(None);
        let (rights, changed) = watch::channel(0);
        let signals = Signals { closing: close, rights: changed, to: ctx.address().recipient() };
        let serving = serve(signals);
        ctx.spawn(wrap_future(serving).map(|(), _: &mut Connection, ctx: &mut Context<Connection>| ctx.stop()));
        context.count.fetch_add(1, Ordering::Relaxed);
        Connection { context: Arc::clone(context), closing, rights, _ended: ended }
    });
}

impl Actor for Connection {
    type Context = Context<Self>;
}

impl Belongs for Connection {
    const KIND: Kind = Kind::HmsConnection;
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.context.count.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Handler<ClientMessage> for Connection {
    type Result = ();

    fn handle(&mut self, message: ClientMessage, _: &mut Self::Context) {
        match message {
            ClientMessage::Close(reason) => {
                self.closing.send_replace(Some(reason));
            }
            ClientMessage::RightsChanged => self.rights.send_modify(|changes| *changes = changes.wrapping_add(1)),
            // This door does not ask the bus for the others.
            _ => {}
        }
    }
}
