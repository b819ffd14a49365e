//! The two ends of a tunnelled WebSocket: [`RemoteSession`] where it is connected, [`SessionOwner`] where its session is. Each
//! stands in for the other at its own node, and each waits for the other, so nothing piles up in between.

use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, Message, Recipient, ResponseFuture};
use actix::{ActorFutureExt as _, WrapFuture as _};
use rollbook_cluster::node::peer_messages::PeerMessages;

use super::session_state::{Carried, Word, decode};
use crate::base::actors::{Belongs, Kind, must_tell};
use crate::bus::relay::peer_client::PeerClient;
use crate::bus::relay::reachability::PeerReachability;
use crate::doors::socketio::settings::NAME;
use crate::net::websocket::connection::{Inbound, Received, Write, Writer};
use crate::net::websocket::reader::code;

/// How long the other end may take for one message.
const CARRY_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether the other node is there.
const LOOK: Duration = Duration::from_millis(250);
/// After this many looks in vain it has gone.
const MISSED_MAX: u32 = 4;

/// The way to the other end.
pub(in crate::doors::socketio) struct Link {
    pub(in crate::doors::socketio) messages: PeerMessages,
    pub(in crate::doors::socketio) peers: PeerClient,
    /// The other node.
    pub(in crate::doors::socketio) to: u64,
    /// Number of the WebSocket at the node where it is connected.
    pub(in crate::doors::socketio) conn: u64,
}

impl Link {
    fn carry(&self, word: Word) -> impl Future<Output = bool> + use<> {
        let (peers, to) = (self.peers.clone(), self.to);
        async move { decode(peers.ask_door(to, NAME, word.into_bytes(), CARRY_MAX).await).is_ok() }
    }

    fn reach(&self) -> PeerReachability {
        PeerReachability::new(self.messages.clone(), self.to, MISSED_MAX)
    }
}

/// Takes an end out of the table of its door when it is dropped.
pub(in crate::doors::socketio) struct Forget(Option<Box<dyn FnOnce() + Send>>);

impl Forget {
    pub(in crate::doors::socketio) fn new(forget: impl FnOnce() + Send + 'static) -> Self {
        Self(Some(Box::new(forget)))
    }
}

impl Drop for Forget {
    fn drop(&mut self) {
        if let Some(forget) = self.0.take() {
            forget();
        }
    }
}

/// Where the WebSocket is connected: stands in for the session.
pub(in crate::doors::socketio) struct RemoteSession {
    link: Link,
    /// Owns the WebSocket.
    writer: Option<Writer>,
    _forget: Forget,
    reach: PeerReachability,
    /// The other end knows that nothing more comes.
    ended: bool,
}

/// The WebSocket that a [`RemoteSession`] belongs to; sent before anything can have come over it.
#[derive(Debug, Message)]
#[rtype(result = "()")]
pub(in crate::doors::socketio) struct Keep(pub(in crate::doors::socketio) Writer);

impl RemoteSession {
    pub(in crate::doors::socketio) fn new(link: Link, forget: Forget) -> Self {
        Self { reach: link.reach(), link, writer: None, _forget: forget, ended: false }
    }

    fn shut(&self) {
        if let Some(writer) = &self.writer {
            must_tell(writer.to(), Write::Close(code::RESTART));
        }
    }
}

impl Actor for RemoteSession {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK, |act, ctx| {
            if act.reach.is_lost() {
                act.shut();
                ctx.stop();
            }
        });
    }

    fn stopped(&mut self, _: &mut Self::Context) {
        if !std::mem::replace(&mut self.ended, true) {
            // It was told to go, and its session waits for it.
            actix_web::rt::spawn(self.link.carry(Word::In(Carried::end(self.link.conn, code::NORMAL))));
        }
    }
}

impl Belongs for RemoteSession {
    const KIND: Kind = Kind::TunnelNear;
}

impl Handler<Keep> for RemoteSession {
    type Result = ();

    fn handle(&mut self, Keep(writer): Keep, _: &mut Self::Context) {
        self.writer = Some(writer);
    }
}

impl Handler<Received> for RemoteSession {
    type Result = ();

    fn handle(&mut self, received: Received, ctx: &mut Self::Context) {
        let ended = received.what == Inbound::Closed;
        let carried = match received.what {
            Inbound::Frame(frame) => Carried::new(self.link.conn, vec![frame]),
            Inbound::Closed => Carried::end(self.link.conn, code::NORMAL),
        };
        self.ended |= ended;
        // One after the other: nothing more is read until this has arrived.
        let carried = self.link.carry(Word::In(carried)).into_actor(self).map(move |arrived, act, ctx| {
            if !arrived {
                act.ended = true;
                act.shut();
            }
            if ended || !arrived {
                ctx.stop();
            }
        });
        ctx.wait(carried);
    }
}

/// Where the session is: stands in for the WebSocket.
pub(in crate::doors::socketio) struct SessionOwner {
    link: Link,
    session: Recipient<Received>,
    /// Number of the WebSocket here.
    conn: u64,
    _forget: Forget,
    reach: PeerReachability,
}

impl SessionOwner {
    pub(in crate::doors::socketio) fn new(link: Link, session: Recipient<Received>, conn: u64, forget: Forget) -> Self {
        Self { reach: link.reach(), link, session, conn, _forget: forget }
    }
}

impl Actor for SessionOwner {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK, |act, ctx| {
            if act.reach.is_lost() {
                must_tell(&act.session, Received { conn: act.conn, what: Inbound::Closed });
                ctx.stop();
            }
        });
    }
}

impl Belongs for SessionOwner {
    const KIND: Kind = Kind::TunnelFar;

    fn released(&mut self, ctx: &mut Self::Context) {
        // Behind what the session has had to say.
        must_tell(&ctx.address(), Write::Close(code::AWAY));
    }
}

impl Handler<Write> for SessionOwner {
    type Result = ResponseFuture<()>;

    fn handle(&mut self, write: Write, ctx: &mut Self::Context) -> Self::Result {
        let ends = matches!(write, Write::Close(_));
        let carried = match write {
            Write::Frames(frames) => Carried::new(self.link.conn, frames),
            Write::Close(code) => Carried::end(self.link.conn, code),
        };
        let carry = self.link.carry(Word::Out(carried));
        let (session, conn) = (self.session.clone(), self.conn);
        if ends {
            // The last word goes out on its own.
            actix_web::rt::spawn(carry);
            ctx.stop();
            return Box::pin(std::future::ready(()));
        }
        Box::pin(async move {
            if !carry.await {
                must_tell(&session, Received { conn, what: Inbound::Closed });
            }
        })
    }
}
