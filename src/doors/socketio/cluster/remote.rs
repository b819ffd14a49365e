//! Forwards requests for sessions of other nodes over the peer link, so that a load balancer needs no sticky
//! sessions. Polls and posts are forwarded one by one; a WebSocket is tunnelled.

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
use super::session_owner::{Link, RemoteSession, RemoveOnDrop, SessionOwner, SetWriter};
use super::session_state::{OpenTunnel, PeerMessage, Post, TunnelFrames, decode, encode};
use crate::base::actors::{Actors, Owned, must_tell};
use crate::bus::relay::peer_client::PeerClient;
use crate::doors::socketio::engine::actor::{Attach, Poll, PollAborted, PostBody, PostStart, SessionActor};
use crate::doors::socketio::engine::steps::RequestError;
use crate::doors::socketio::engine::table::SessionTable;
use crate::doors::socketio::settings::NAME;
use crate::net::websocket::connection::{self, Inbound, Received, Write, Writer};

/// How long the other node may take to answer a message that does not wait for a client.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);

/// A WebSocket of this node that serves a session of another node.
struct ConnectionTunnel {
    /// Owns the actor that stands in for the session.
    _session: Owned<RemoteSession>,
    writer: Recipient<Write>,
}

/// A WebSocket of another node that serves a session of this node. The session owns the actor that stands in for the
/// WebSocket.
struct SessionTunnel {
    session: Recipient<Received>,
    /// Number of the WebSocket at this node.
    conn: u64,
}

/// The client of the same door on other nodes.
pub(in crate::doors::socketio) struct Remote {
    node: Node,
    peers: PeerClient,
    table: SessionTable<SessionActor>,
    /// How long a forwarded poll may take.
    poll_timeout: Duration,
    arbiter: ArbiterHandle,
    actors: Actors,
    /// The WebSockets of this node that serve sessions of other nodes, by number.
    connection_tunnels: Mutex<HashMap<u64, ConnectionTunnel>>,
    /// The WebSockets of other nodes that serve sessions of this node, by node and number there.
    session_tunnels: Mutex<HashMap<(u64, u64), SessionTunnel>>,
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
        poll_timeout: Duration,
        actors: Actors,
    ) -> Arc<Self> {
        let poll_timeout = poll_timeout + REQUEST_TIMEOUT;
        let arbiter = actix::Arbiter::current();
        Arc::new(Self {
            node,
            peers,
            table,
            poll_timeout,
            arbiter,
            actors,
            connection_tunnels: Mutex::default(),
            session_tunnels: Mutex::default(),
        })
    }

    async fn ask(&self, node: u64, message: PeerMessage, within: Duration) -> Result<String, RequestError> {
        if !self.node.state().others_up().contains(&node) {
            return Err(RequestError::Unknown);
        }
        decode(self.peers.ask_door(node, NAME, message.into_bytes(), within).await)
    }

    pub(in crate::doors::socketio) async fn poll(&self, node: u64, sid: &str) -> Result<String, RequestError> {
        self.ask(node, PeerMessage::Poll(sid.to_owned()), self.poll_timeout).await
    }

    pub(in crate::doors::socketio) fn poll_aborted(&self, node: u64, sid: &str) {
        self.peers.tell_door(node, NAME, PeerMessage::PollAborted(sid.to_owned()).into_bytes());
    }

    pub(in crate::doors::socketio) async fn post(
        &self,
        node: u64,
        sid: &str,
        body: Option<ByteString>,
    ) -> Result<(), RequestError> {
        let message = PeerMessage::Post(Post { sid: sid.to_owned(), body: body.map(|body| body.to_string()) });
        self.ask(node, message, REQUEST_TIMEOUT.saturating_mul(5)).await.map(drop)
    }

    /// Lets a WebSocket of this node serve a session of another node. The caller has checked the upgrade: for a
    /// malformed one, the other node is not asked and no actor starts.
    pub(in crate::doors::socketio) async fn tunnel(
        self: &Arc<Self>,
        request: &HttpRequest,
        limit: usize,
        node: u64,
        sid: &str,
        conn: u64,
    ) -> Result<HttpResponse, RequestError> {
        self.ask(node, PeerMessage::OpenTunnel(OpenTunnel { sid: sid.to_owned(), conn }), REQUEST_TIMEOUT).await?;
        let link = Link { messages: self.node.messages().clone(), peers: self.peers.clone(), to: node, conn };
        let remote = Arc::clone(self);
        let remove_on_drop = RemoveOnDrop::new(move || {
            let removed = lock(&remote.connection_tunnels).remove(&conn);
            drop(removed);
        });
        let session = Owned::start(&self.actors, RemoteSession::new(link, remove_on_drop));
        let started = connection::start(request, limit, session.addr().clone().recipient(), conn, &self.actors);
        let (writer, response) = started.map_err(|_| RequestError::Request)?;
        let (addr, to) = (session.addr().clone(), writer.to().clone());
        lock(&self.connection_tunnels).insert(conn, ConnectionTunnel { _session: session, writer: to });
        must_tell(&addr, SetWriter(writer));
        Ok(response)
    }

    fn poll_here(&self, sid: &str) -> BoxFuture<'static, Result<String, RequestError>> {
        let Some(session) = self.table.find(sid) else { return ready(Err(RequestError::Unknown)) };
        async move {
            let (answer, polled) = oneshot::channel();
            session.send(Poll(answer)).await.map_err(|_| RequestError::Unknown)?;
            polled.await.unwrap_or(Err(RequestError::Unknown))
        }
        .boxed()
    }

    fn post_here(&self, post: Post) -> BoxFuture<'static, Result<String, RequestError>> {
        let Some(session) = self.table.find(&post.sid) else { return ready(Err(RequestError::Unknown)) };
        let number = self.table.conn();
        async move {
            // The body is complete, so the POST cannot be aborted.
            let (_not_aborted, aborted) = oneshot::channel();
            session.send(PostStart(number, aborted)).await.map_err(|_| RequestError::Unknown)??;
            let body = post.body.map(ByteString::from);
            session.send(PostBody(number, body)).await.map_err(|_| RequestError::Unknown)??;
            Ok(String::new())
        }
        .boxed()
    }

    fn open_here(self: &Arc<Self>, from: u64, open: OpenTunnel) -> BoxFuture<'static, Result<String, RequestError>> {
        let Some(session) = self.table.find(&open.sid) else { return ready(Err(RequestError::Unknown)) };
        let conn = self.table.conn();
        let key = (from, open.conn);
        lock(&self.session_tunnels).insert(key, SessionTunnel { session: session.clone().recipient(), conn });
        let link =
            Link { messages: self.node.messages().clone(), peers: self.peers.clone(), to: from, conn: open.conn };
        let (remote, to) = (Arc::clone(self), session.clone().recipient());
        let remove_on_drop = RemoveOnDrop::new(move || {
            // The numbers of the other node begin again with each start of that node.
            let mut tunnels = lock(&remote.session_tunnels);
            if tunnels.get(&key).is_some_and(|end| end.conn == conn) {
                tunnels.remove(&key);
            }
        });
        let owner =
            Owned::start_in(&self.actors, &self.arbiter, move |_| SessionOwner::new(link, to, conn, remove_on_drop));
        let writer = Writer::new(owner);
        async move {
            let attach = Attach { conn, writer, open: None };
            session.send(attach).await.map_err(|_| RequestError::Unknown)?;
            Ok(String::new())
        }
        .boxed()
    }

    /// Handles frames that came over a WebSocket of another node.
    fn pass_to_session(&self, from: u64, frames: TunnelFrames) -> BoxFuture<'static, Result<String, RequestError>> {
        let key = (from, frames.conn);
        let Some((session, conn)) = lock(&self.session_tunnels).get(&key).map(|end| (end.session.clone(), end.conn))
        else {
            return ready(Err(RequestError::Unknown));
        };
        let ended = frames.code.is_some();
        if ended {
            lock(&self.session_tunnels).remove(&key);
        }
        async move {
            for frame in frames.into_frames() {
                let received = Received { conn, what: Inbound::Frame(frame) };
                session.send(received).await.map_err(|_| RequestError::Unknown)?;
            }
            if ended {
                session.send(Received { conn, what: Inbound::Closed }).await.map_err(|_| RequestError::Unknown)?;
            }
            Ok(String::new())
        }
        .boxed()
    }

    /// Writes frames to a WebSocket of this node.
    fn write_to_client(&self, frames: TunnelFrames) -> BoxFuture<'static, Result<String, RequestError>> {
        let writer = lock(&self.connection_tunnels).get(&frames.conn).map(|end| end.writer.clone());
        let Some(writer) = writer else { return ready(Err(RequestError::Unknown)) };
        let write = match frames.code {
            Some(code) => Write::Close(u16::try_from(code).unwrap_or(1000)),
            None => Write::Frames(frames.into_frames()),
        };
        async move { writer.send(write).await.map(|()| String::new()).map_err(|_| RequestError::Unknown) }.boxed()
    }
}

fn ready(result: Result<String, RequestError>) -> BoxFuture<'static, Result<String, RequestError>> {
    std::future::ready(result).boxed()
}

/// Handles the messages of the same door on other nodes.
#[derive(Debug)]
pub(in crate::doors::socketio) struct RemoteHandler {
    pub(in crate::doors::socketio) remote: Arc<Remote>,
    pub(in crate::doors::socketio) recovery: Arc<Recovery>,
}

impl Live for RemoteHandler {
    fn hear(&self, _: u64, message: Bytes) {
        match PeerMessage::from_bytes(message) {
            Some(PeerMessage::PollAborted(sid)) => {
                if let Some(session) = self.remote.table.find(&sid) {
                    must_tell(&session, PollAborted);
                }
            }
            Some(PeerMessage::SaveState(kept)) => self.recovery.keep(*kept),
            _ => {}
        }
    }

    fn answer(&self, from: u64, message: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let result = match PeerMessage::from_bytes(message) {
            Some(PeerMessage::Poll(sid)) => self.remote.poll_here(&sid),
            Some(PeerMessage::Post(post)) => self.remote.post_here(post),
            Some(PeerMessage::OpenTunnel(open)) => self.remote.open_here(from, open),
            Some(PeerMessage::FromClient(frames)) => self.remote.pass_to_session(from, frames),
            Some(PeerMessage::ToClient(frames)) => self.remote.write_to_client(frames),
            Some(PeerMessage::Restore(pid)) => return std::future::ready(Ok(self.recovery.answer(&pid))).boxed(),
            Some(PeerMessage::PollAborted(_) | PeerMessage::SaveState(_)) | None => ready(Err(RequestError::Request)),
        };
        async move { Ok(encode(result.await)) }.boxed()
    }
}
