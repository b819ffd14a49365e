//! Sessions of other nodes: whatever arrives here for one of them goes to its node over the peer link, so that a
//! load balancer needs no memory. Polls and posts are forwarded one by one, a WebSocket is tunnelled.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::{ArbiterHandle, Recipient};
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rollbook_cluster::live::Live;
use rollbook_cluster::lock::lock;
use rollbook_cluster::node::Node;
use rollbook_core::error::Refusal;
use tokio::sync::oneshot;

use super::recovery::Recovery;
use super::session_owner::{Forget, Keep, Link, RemoteSession, SessionOwner};
use super::session_state::{Carried, Open, Post, Word, decode, encode};
use crate::base::actors::{Actors, Owned, must_tell};
use crate::bus::relay::peer_client::PeerClient;
use crate::doors::socketio::engine::actor::{Attach, Poll, PollGone, PostBegins, PostEnds, SessionActor};
use crate::doors::socketio::engine::protocol::Wrong;
use crate::doors::socketio::engine::table::SessionTable;
use crate::doors::socketio::settings::NAME;
use crate::net::websocket::connection::{self, Inbound, Received, Write, Writer};

/// How long the other node may take for what needs no client.
const ASK_MAX: Duration = Duration::from_secs(3);

/// A WebSocket that is here for a session of another node.
struct NearEnd {
    /// Owns the actor that stands in for the session.
    _near: Owned<RemoteSession>,
    writer: Recipient<Write>,
}

/// The other end of a WebSocket that is at another node. Its session owns the actor that stands in for it.
struct FarEnd {
    session: Recipient<Received>,
    /// Its number here.
    conn: u64,
}

/// The way to the same door of other nodes.
pub(in crate::doors::socketio) struct Remote {
    node: Node,
    peers: PeerClient,
    table: SessionTable<SessionActor>,
    /// How long a poll may take.
    patience: Duration,
    arbiter: ArbiterHandle,
    actors: Actors,
    /// WebSockets that are here for sessions of other nodes.
    near: Mutex<HashMap<u64, NearEnd>>,
    /// WebSockets that are at other nodes for sessions here, by node and number there.
    far: Mutex<HashMap<(u64, u64), FarEnd>>,
}

impl std::fmt::Debug for Remote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remote").finish_non_exhaustive()
    }
}

impl Remote {
    pub(in crate::doors::socketio) fn new(
        node: Node,
        peers: PeerClient,
        table: SessionTable<SessionActor>,
        patience: Duration,
        actors: Actors,
    ) -> Arc<Self> {
        let patience = patience + ASK_MAX;
        let arbiter = actix::Arbiter::current();
        Arc::new(Self { node, peers, table, patience, arbiter, actors, near: Mutex::default(), far: Mutex::default() })
    }

    async fn ask(&self, node: u64, word: Word, within: Duration) -> Result<String, Wrong> {
        if !self.node.state().others_up().contains(&node) {
            return Err(Wrong::Unknown);
        }
        decode(self.peers.ask_door(node, NAME, word.into_bytes(), within).await)
    }

    pub(in crate::doors::socketio) async fn poll(&self, node: u64, sid: &str) -> Result<String, Wrong> {
        self.ask(node, Word::Poll(sid.to_owned()), self.patience).await
    }

    pub(in crate::doors::socketio) fn poll_gone(&self, node: u64, sid: &str) {
        self.peers.tell_door(node, NAME, Word::PollGone(sid.to_owned()).into_bytes());
    }

    pub(in crate::doors::socketio) async fn post(
        &self,
        node: u64,
        sid: &str,
        body: Option<ByteString>,
    ) -> Result<(), Wrong> {
        let word = Word::Post(Post { sid: sid.to_owned(), body: body.map(|body| body.to_string()) });
        self.ask(node, word, ASK_MAX.saturating_mul(5)).await.map(drop)
    }

    /// Lets a WebSocket here serve a session there. The request is known to be a proper upgrade: nothing is asked of
    /// the other node, and nothing started here, for any other.
    pub(in crate::doors::socketio) async fn tunnel(
        self: &Arc<Self>,
        request: &HttpRequest,
        limit: usize,
        node: u64,
        sid: &str,
        conn: u64,
    ) -> Result<HttpResponse, Wrong> {
        self.ask(node, Word::Open(Open { sid: sid.to_owned(), conn }), ASK_MAX).await?;
        let link = Link { messages: self.node.messages().clone(), peers: self.peers.clone(), to: node, conn };
        let remote = Arc::clone(self);
        let forget = Forget::new(move || {
            let gone = lock(&remote.near).remove(&conn);
            drop(gone);
        });
        let near = Owned::start(&self.actors, RemoteSession::new(link, forget));
        let started = connection::start(request, limit, near.addr().clone().recipient(), conn, &self.actors);
        let (writer, response) = started.map_err(|_| Wrong::Request)?;
        let (addr, to) = (near.addr().clone(), writer.to().clone());
        lock(&self.near).insert(conn, NearEnd { _near: near, writer: to });
        must_tell(&addr, Keep(writer));
        Ok(response)
    }

    fn poll_here(&self, sid: &str) -> BoxFuture<'static, Result<String, Wrong>> {
        let Some(session) = self.table.find(sid) else { return ready(Err(Wrong::Unknown)) };
        async move {
            let (answer, polled) = oneshot::channel();
            session.send(Poll(answer)).await.map_err(|_| Wrong::Unknown)?;
            polled.await.unwrap_or(Err(Wrong::Unknown))
        }
        .boxed()
    }

    fn post_here(&self, post: Post) -> BoxFuture<'static, Result<String, Wrong>> {
        let Some(session) = self.table.find(&post.sid) else { return ready(Err(Wrong::Unknown)) };
        let number = self.table.conn();
        async move {
            // It has come whole, so it goes on until its end.
            let (_here, goes_on) = oneshot::channel();
            session.send(PostBegins(number, goes_on)).await.map_err(|_| Wrong::Unknown)??;
            let body = post.body.map(ByteString::from);
            session.send(PostEnds(number, body)).await.map_err(|_| Wrong::Unknown)??;
            Ok(String::new())
        }
        .boxed()
    }

    fn open_here(self: &Arc<Self>, from: u64, open: Open) -> BoxFuture<'static, Result<String, Wrong>> {
        let Some(session) = self.table.find(&open.sid) else { return ready(Err(Wrong::Unknown)) };
        let conn = self.table.conn();
        let key = (from, open.conn);
        lock(&self.far).insert(key, FarEnd { session: session.clone().recipient(), conn });
        let link =
            Link { messages: self.node.messages().clone(), peers: self.peers.clone(), to: from, conn: open.conn };
        let (remote, to) = (Arc::clone(self), session.clone().recipient());
        let forget = Forget::new(move || {
            // Numbers of the other node begin anew with each of its lives.
            let mut far = lock(&remote.far);
            if far.get(&key).is_some_and(|end| end.conn == conn) {
                far.remove(&key);
            }
        });
        let far = Owned::start_in(&self.actors, &self.arbiter, move |_| SessionOwner::new(link, to, conn, forget));
        let writer = Writer::new(far);
        async move {
            let attach = Attach { conn, writer, open: None };
            session.send(attach).await.map_err(|_| Wrong::Unknown)?;
            Ok(String::new())
        }
        .boxed()
    }

    /// Something came over a WebSocket that is at another node.
    fn came(&self, from: u64, carried: Carried) -> BoxFuture<'static, Result<String, Wrong>> {
        let key = (from, carried.conn);
        let Some((session, conn)) = lock(&self.far).get(&key).map(|end| (end.session.clone(), end.conn)) else {
            return ready(Err(Wrong::Unknown));
        };
        let ended = carried.code.is_some();
        if ended {
            lock(&self.far).remove(&key);
        }
        async move {
            for frame in carried.into_frames() {
                let received = Received { conn, what: Inbound::Frame(frame) };
                session.send(received).await.map_err(|_| Wrong::Unknown)?;
            }
            if ended {
                session.send(Received { conn, what: Inbound::Closed }).await.map_err(|_| Wrong::Unknown)?;
            }
            Ok(String::new())
        }
        .boxed()
    }

    /// Something is to be written to a WebSocket that is here.
    fn goes(&self, carried: Carried) -> BoxFuture<'static, Result<String, Wrong>> {
        let writer = lock(&self.near).get(&carried.conn).map(|end| end.writer.clone());
        let Some(writer) = writer else { return ready(Err(Wrong::Unknown)) };
        let write = match carried.code {
            Some(code) => Write::Close(u16::try_from(code).unwrap_or(1000)),
            None => Write::Frames(carried.into_frames()),
        };
        async move { writer.send(write).await.map(|()| String::new()).map_err(|_| Wrong::Unknown) }.boxed()
    }
}

fn ready(became: Result<String, Wrong>) -> BoxFuture<'static, Result<String, Wrong>> {
    std::future::ready(became).boxed()
}

/// The door as other nodes reach it.
#[derive(Debug)]
pub(in crate::doors::socketio) struct Ear {
    pub(in crate::doors::socketio) remote: Arc<Remote>,
    pub(in crate::doors::socketio) recovery: Arc<Recovery>,
}

impl Live for Ear {
    fn hear(&self, _: u64, message: Bytes) {
        match Word::from_bytes(message) {
            Some(Word::PollGone(sid)) => {
                if let Some(session) = self.remote.table.find(&sid) {
                    must_tell(&session, PollGone);
                }
            }
            Some(Word::Keep(kept)) => self.recovery.keep(*kept),
            _ => {}
        }
    }

    fn answer(&self, from: u64, message: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let became = match Word::from_bytes(message) {
            Some(Word::Poll(sid)) => self.remote.poll_here(&sid),
            Some(Word::Post(post)) => self.remote.post_here(post),
            Some(Word::Open(open)) => self.remote.open_here(from, open),
            Some(Word::In(carried)) => self.remote.came(from, carried),
            Some(Word::Out(carried)) => self.remote.goes(carried),
            Some(Word::Restore(pid)) => return std::future::ready(Ok(self.recovery.answer(&pid))).boxed(),
            Some(Word::PollGone(_) | Word::Keep(_)) | None => ready(Err(Wrong::Request)),
        };
        async move { Ok(encode(became.await)) }.boxed()
    }
}
