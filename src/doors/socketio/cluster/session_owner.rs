//! The two ends of a tunnelled WebSocket. [`RemoteSession`] runs at the node of the WebSocket and stands in for the
//! session. [`SessionOwner`] runs at the node of the session and stands in for the WebSocket. Invariant: each end
//! sends one message and waits for its answer, so no queue grows between the nodes.

use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, Message, Recipient, ResponseFuture};
use actix::{ActorFutureExt as _, WrapFuture as _};
use rollbook_cluster::node::peer_messages::PeerMessages;

use super::session_state::{PeerMessage, TunnelFrames, decode};
use crate::base::actors::{Belongs, Kind, must_tell};
use crate::bus::relay::peer_client::PeerClient;
use crate::bus::relay::reachability::PeerReachability;
use crate::doors::socketio::settings::NAME;
use crate::net::websocket::connection::{Inbound, Received, Write, Writer};
use crate::net::websocket::reader::code;

/// How long the other end may take to answer one message.
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an end checks that the other node is reachable.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// After so many failed checks the other node counts as lost.
const MISSED_CHECKS_MAX: u32 = 4;

/// The connection to the other end.
pub(in crate::doors::socketio) struct Link {
    pub(in crate::doors::socketio) messages: PeerMessages,
    pub(in crate::doors::socketio) peers: PeerClient,
    /// The other node.
    pub(in crate::doors::socketio) to: u64,
    /// Number of the WebSocket at the node of the WebSocket.
    pub(in crate::doors::socketio) conn: u64,
}

impl Link {
    fn send(&self, message: PeerMessage) -> impl Future<Output = bool> + use<> {
        let (peers, to) = (self.peers.clone(), self.to);
        async move { decode(peers.ask_door(to, NAME, message.into_bytes(), SEND_TIMEOUT).await).is_ok() }
    }

    fn reachability(&self) -> PeerReachability {
        PeerReachability::new(self.messages.clone(), self.to, MISSED_CHECKS_MAX)
    }
}

/// Removes an end from the table of the door when this value is dropped.
pub(in crate::doors::socketio) struct RemoveOnDrop(Option<Box<dyn FnOnce() + Send>>);

impl RemoveOnDrop {
    pub(in crate::doors::socketio) fn new(remove: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(remove)))
    }
}

impl Drop for RemoveOnDrop {
    fn drop(&mut self) {
        if let Some(remove) = self.0.take() {
            remove();
        }
    }
}

/// Stands in for the session at the node of the WebSocket.
pub(in crate::doors::socketio) struct RemoteSession {
    link: Link,
    /// Owns the WebSocket.
    writer: Option<Writer>,
    _remove_on_drop: RemoveOnDrop,
    reachability: PeerReachability,
    /// Whether the other end knows that no more frames come, so that the end is sent once.
    ended: bool,
}

/// Gives a [`RemoteSession`] its WebSocket. Sent before any frame can come.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::doors::socketio) struct SetWriter(pub(in crate::doors::socketio) Writer);

impl RemoteSession {
    pub(in crate::doors::socketio) fn new(link: Link, remove_on_drop: RemoveOnDrop) -> Self {
        Self { reachability: link.reachability(), link, writer: None, _remove_on_drop: remove_on_drop, ended: false }
    }

    fn close_socket(&self) {
        if let Some(writer) = &self.writer {
            must_tell(writer.to(), Write::Close(code::RESTART));
        }
    }
}

impl Actor for RemoteSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(CHECK_INTERVAL, |act, ctx| {
            if act.reachability.is_lost() {
                act.close_socket();
                ctx.stop();
            }
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if !std::mem::replace(&mut self.ended, true) {
            // The session at the other node waits for frames, so it is told of the end.
            actix_web::rt::spawn(
                self.link.send(PeerMessage::FromClient(TunnelFrames::end(self.link.conn, code::NORMAL))),
            );
        }
    }
}

impl Belongs for RemoteSession {
    const KIND: Kind = Kind::TunnelNear;
}

impl Handler<SetWriter> for RemoteSession {
    type Result = ();

    fn handle(&mut self, SetWriter(writer): SetWriter, _: &mut Self::Context) {
        self.writer = Some(writer);
    }
}

impl Handler<Received> for RemoteSession {
    type Result = ();

    fn handle(&mut self, received: Received, ctx: &mut Self::Context) {
        let ended = received.what == Inbound::Closed;
        let frames_out = match received.what {
            Inbound::Frame(frame) => TunnelFrames::new(self.link.conn, vec![frame]),
            Inbound::Closed => TunnelFrames::end(self.link.conn, code::NORMAL),
        };
        self.ended |= ended;
        // The actor reads no further frame until the other end has this one.
        let sent =
            self.link.send(PeerMessage::FromClient(frames_out)).into_actor(self).map(move |arrived, act, ctx| {
                if !arrived {
                    act.ended = true;
                    act.close_socket();
                }
                if ended || !arrived {
                    ctx.stop();
                }
            });
        ctx.wait(sent);
    }
}

/// Stands in for the WebSocket at the node of the session.
pub(in crate::doors::socketio) struct SessionOwner {
    link: Link,
    session: Recipient<Received>,
    /// Number of the WebSocket at this node.
    conn: u64,
    _remove_on_drop: RemoveOnDrop,
    reachability: PeerReachability,
}

impl SessionOwner {
    pub(in crate::doors::socketio) fn new(
        link: Link,
        session: Recipient<Received>,
        conn: u64,
        remove_on_drop: RemoveOnDrop,
    ) -> Self {
        Self { reachability: link.reachability(), link, session, conn, _remove_on_drop: remove_on_drop }
    }
}

impl Actor for SessionOwner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(CHECK_INTERVAL, |act, ctx| {
            if act.reachability.is_lost() {
                must_tell(&act.session, Received { conn: act.conn, what: Inbound::Closed });
                ctx.stop();
            }
        });
    }
}

impl Belongs for SessionOwner {
    const KIND: Kind = Kind::TunnelFar;

    fn released(&mut self, ctx: &mut Self::Context) {
        // The close is queued behind the frames of the session.
        must_tell(&ctx.address(), Write::Close(code::AWAY));
    }
}

impl Handler<Write> for SessionOwner {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, write: Write, ctx: &mut Self::Context) -> Self::Result {
        let ends = matches!(write, Write::Close(_));
        let frames_out = match write {
            Write::Frames(frames) => TunnelFrames::new(self.link.conn, frames),
            Write::Close(code) => TunnelFrames::end(self.link.conn, code),
        };
        let sent = self.link.send(PeerMessage::ToClient(frames_out));
        let (session, conn) = (self.session.clone(), self.conn);
        if ends {
            // The close is sent by a task of its own, because this actor stops.
            actix_web::rt::spawn(sent);
            ctx.stop();
            return Box::pin(std::future::ready(()));
        }
        Box::pin(async move {
            if !sent.await {
                must_tell(&session, Received { conn, what: Inbound::Closed });
            }
        })
    }
}
