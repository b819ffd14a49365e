//! The state machine of Socket.IO v5 on one Engine.IO session: namespaces, events, acknowledgements, binary
//! attachments. Pure. An [`Application`] is behind the namespaces.

use std::sync::Arc;

use actix::Recipient;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::codec::{self, Kind, Malformed, Packet};
use crate::bus::client::clients::ClientMessage;
use crate::bus::subscribe::streams::Turn;
use crate::net::peer::Peer;
use crate::net::websocket::writer::Frame;

/// Most namespaces that one connection may join.
const NAMESPACES_MAX: usize = 64;

/// The data of a handshake.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshake {
    /// Query of the first request, as it came.
    pub(super) query: String,
    /// Address of the client.
    pub(super) address: String,
    /// The other end of the connection of the first request.
    pub(super) peer: Option<Peer>,
    /// The header `Authorization` of the first request, for clients that send no token in their CONNECT.
    pub(super) authorization: Option<Authorization>,
    /// The mailbox through which the bus reaches the client.
    pub(super) mailbox: Option<Recipient<ClientMessage>>,
}

/// The value of a header `Authorization`, which no output shows.
#[derive(Clone)]
pub(super) struct Authorization(pub(super) Vec<u8>);

impl std::fmt::Debug for Authorization {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authorization(hidden)")
    }
}

impl Handshake {
    /// The value of a parameter of the query.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        parameter(&self.query, name)
    }
}

/// The value of a parameter of a query.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
}

/// An event of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// Name of the event; empty when the name was a number.
    pub(super) name: ByteString,
    /// The number of the acknowledgement that the client wants.
    pub(super) id: Option<u64>,
    /// The arguments, each of them JSON.
    pub(super) args: Vec<ByteString>,
    /// The attachments that the placeholders in the arguments stand for.
    pub(super) attachments: Vec<Bytes>,
    /// Whether the arguments were nested too deep. They are left out then.
    pub(super) deep: bool,
}

/// Why a client may not join a namespace: the data of `connect_error`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ConnectError {
    pub(super) message: String,
    pub(super) data: Option<serde_json::Value>,
}

/// The application behind the namespaces.
pub(super) trait Application: Send + Sync {
    /// Accepts a client, or refuses it. `auth` is a JSON object or nothing.
    fn connect(
        &self,
        namespace: &str,
        sid: &str,
        handshake: &Handshake,
        auth: Option<&str>,
    ) -> Result<Box<dyn Socket>, ConnectError>;

    /// Makes a new id for a client.
    fn sid(&self) -> String;

    /// Looks for the state that a reconnecting client names in `auth`. `None` means that the client names none, or
    /// that no state is kept.
    fn restore(
        &self,
        _namespace: &str,
        _handshake: &Handshake,
        _auth: Option<&str>,
    ) -> Option<LocalBoxFuture<'static, Option<Restored>>> {
        None
    }
}

/// A client whose state was recovered.
pub(super) struct Restored {
    /// The id of the client before it disconnected.
    pub(super) sid: String,
    pub(super) socket: Box<dyn Socket>,
    /// The events that the client missed.
    pub(super) missed: Vec<Frame>,
}

/// One client in one namespace.
pub(super) trait Socket {
    /// The client has joined the namespace.
    fn joined(&mut self, out: &mut Out);
    /// The client sent an event.
    fn event(&mut self, event: Event, out: &mut Out);
    /// The client acknowledged the message that was sent under `id`.
    fn acked(&mut self, id: u64, args: Vec<ByteString>, attachments: Vec<Bytes>, out: &mut Out);
    /// The bus sent a message to the client.
    fn client_message(&mut self, message: ClientMessage, out: &mut Out);
    /// The client left. The state of the client may be recovered if its connection broke.
    fn disconnected(&mut self, connection_broke: bool);
    /// The name of the state of the client, if the state can be recovered.
    fn pid(&self) -> Option<&str> {
        None
    }
}

/// The result of [`Out::wait`].
pub(super) enum WaitResult {
    /// A message of the bus.
    Message(ClientMessage),
    /// The state that the client of this CONNECT left behind.
    Restored(Packet, Option<Restored>),
}

/// How a client is disconnected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Disconnect {
    /// The client leaves the namespace and does not come back by itself.
    Kick,
    /// The connection ends, and the client reconnects by itself.
    Drop(&'static str, u16),
}

/// What a socket wants the session to do.
#[derive(Default)]
pub(super) struct Out {
    /// Frames for the client.
    pub(super) frames: Vec<Frame>,
    /// A future that the session waits for. The session takes no message of the client meanwhile.
    pub(super) wait: Option<LocalBoxFuture<'static, WaitResult>>,
    pub(super) disconnect: Option<Disconnect>,
    /// Bytes of `frames` that come at the pace of the client.
    pub(super) paced: usize,
    /// The turn of a stream of the book. The session keeps the turn until little of that stream waits for the client.
    pub(super) turn: Option<Turn>,
    namespace: ByteString,
}

impl Out {
    fn of(namespace: &ByteString) -> Self {
        Self { namespace: namespace.clone(), ..Self::default() }
    }

    /// Sends an event. With an `id` the client may acknowledge the event.
    pub(super) fn emit(&mut self, id: Option<u64>, name: &str, args: &[&str], attachments: Vec<Bytes>) {
        self.frames.push(Frame::Text(codec::event(&self.namespace, id, name, args, attachments.len())));
        self.frames.extend(codec::binaries(attachments));
    }

    /// Sends an event that comes at the pace of the client.
    pub(super) fn emit_paced(&mut self, name: &str, args: &[&str]) {
        let frame = Frame::Text(codec::event(&self.namespace, None, name, args, 0));
        self.paced = self.paced.saturating_add(frame.len());
        self.frames.push(frame);
    }

    /// Acknowledges an event.
    pub(super) fn ack(&mut self, id: u64, args: &[&str], attachments: Vec<Bytes>) {
        self.frames.push(Frame::Text(codec::ack(&self.namespace, id, args, attachments.len())));
        self.frames.extend(codec::binaries(attachments));
    }
}

/// The state of one session.
pub(super) struct Session {
    /// Accepts clients into namespaces.
    application: Arc<dyn Application>,
    /// The handshake, which the application sees with each CONNECT.
    handshake: Handshake,
    /// The joined namespaces. Nearly all clients join one, so a list is enough.
    sockets: Vec<(ByteString, Box<dyn Socket>)>,
    /// A packet whose binary attachments are not all there.
    partial: Option<Box<(Packet, Vec<Bytes>)>>,
}

impl Session {
    pub(super) fn new(application: Arc<dyn Application>, handshake: Handshake) -> Self {
        Self { application, handshake, sockets: Vec::new(), partial: None }
    }

    fn socket(&mut self, namespace: &ByteString) -> Option<&mut Box<dyn Socket>> {
        self.sockets.iter_mut().find(|(name, _)| name == namespace).map(|(_, socket)| socket)
    }

    /// Whether the client has joined any namespace.
    pub(super) fn is_joined(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// Handles a message of the client.
    pub(super) fn message(&mut self, frame: Frame) -> Result<Out, Malformed> {
        match frame {
            Frame::Text(text) => {
                if self.partial.is_some() {
                    return Err(Malformed("got plaintext data when reconstructing a packet"));
                }
                let packet = Packet::decode(&text)?;
                if packet.attachments > 0 {
                    self.partial = Some(Box::new((packet, Vec::new())));
                    return Ok(Out::default());
                }
                self.packet(packet, Vec::new())
            }
            Frame::Binary(part) => {
                let Some((packet, mut parts)) = self.partial.take().map(|partial| *partial) else {
                    return Err(Malformed("got binary data when not reconstructing a packet"));
                };
                parts.push(part);
                if parts.len() < packet.attachments {
                    self.partial = Some(Box::new((packet, parts)));
                    return Ok(Out::default());
                }
                if !codec::placeholders_fit(&packet.data, parts.len()) {
                    return Err(Malformed("illegal attachments"));
                }
                self.packet(packet, parts)
            }
        }
    }

    fn packet(&mut self, packet: Packet, attachments: Vec<Bytes>) -> Result<Out, Malformed> {
        let mut out = Out::of(&packet.namespace);
        if packet.kind == Kind::Connect {
            self.connect(packet, &mut out)?;
            return Ok(out);
        }
        let Some(socket) = self.socket(&packet.namespace) else {
            return Err(Malformed("a packet for a namespace that is not joined"));
        };
        let mut args = packet.data.into_iter();
        match (packet.kind, packet.id) {
            (Kind::Event, id) => {
                let name = args.next().and_then(|name| codec::event_name(&name)).unwrap_or_default();
                socket.event(Event { name, id, args: args.collect(), attachments, deep: packet.deep }, &mut out);
            }
            (Kind::Ack, Some(id)) => socket.acked(id, args.collect(), attachments, &mut out),
            _ => self.leave(&packet.namespace),
        }
        Ok(out)
    }

    fn connect(&mut self, packet: Packet, out: &mut Out) -> Result<(), Malformed> {
        if self.socket(&packet.namespace).is_some() {
            return Err(Malformed("joined before"));
        }
        if self.sockets.len() >= NAMESPACES_MAX {
            return Err(Malformed("too many namespaces"));
        }
        match self.application.restore(&packet.namespace, &self.handshake, packet.object()) {
            Some(restored) => {
                out.wait = Some(restored.map(|restored| WaitResult::Restored(packet, restored)).boxed_local());
            }
            None => self.join(&packet, out),
        }
        Ok(())
    }

    fn join(&mut self, packet: &Packet, out: &mut Out) {
        let sid = self.application.sid();
        match self.application.connect(&packet.namespace, &sid, &self.handshake, packet.object()) {
            Ok(socket) => self.add_socket(&packet.namespace, &sid, socket, out),
            Err(ConnectError { message, data }) => {
                let mut error = serde_json::Map::new();
                error.insert("message".to_owned(), message.into());
                if let Some(data) = data {
                    error.insert("data".to_owned(), data);
                }
                out.frames.push(Frame::Text(codec::refused(&packet.namespace, &error.into())));
            }
        }
    }

    fn add_socket(&mut self, namespace: &ByteString, sid: &str, mut socket: Box<dyn Socket>, out: &mut Out) {
        out.frames.push(Frame::Text(codec::connected(namespace, sid, socket.pid())));
        socket.joined(out);
        self.sockets.reserve_exact(1);
        self.sockets.push((namespace.clone(), socket));
    }

    /// Continues with the result of [`Out::wait`].
    pub(super) fn wait_ended(&mut self, result: WaitResult) -> Out {
        match result {
            WaitResult::Message(message) => self.client_message(message),
            WaitResult::Restored(packet, Some(Restored { sid, socket, missed })) => {
                let mut out = Out::of(&packet.namespace);
                self.add_socket(&packet.namespace, &sid, socket, &mut out);
                out.frames.extend(missed);
                out
            }
            WaitResult::Restored(packet, None) => {
                let mut out = Out::of(&packet.namespace);
                self.join(&packet, &mut out);
                out
            }
        }
    }

    fn leave(&mut self, namespace: &ByteString) {
        if let Some(at) = self.sockets.iter().position(|(name, _)| name == namespace) {
            self.sockets.swap_remove(at).1.disconnected(false);
        }
    }

    /// Handles a message of the bus, which concerns the main namespace.
    pub(super) fn client_message(&mut self, message: ClientMessage) -> Out {
        let main = ByteString::from_static("/");
        let mut out = Out::of(&main);
        if let Some(socket) = self.socket(&main) {
            socket.client_message(message, &mut out);
        }
        out
    }

    /// Sends the client out of the namespace of `out`.
    pub(super) fn kick(&mut self, out: &mut Out) {
        let namespace = out.namespace.clone();
        out.frames.push(Frame::Text(codec::disconnected(&namespace)));
        self.leave(&namespace);
    }

    /// Ends the session.
    pub(super) fn end(&mut self) {
        std::mem::take(&mut self.sockets).into_iter().for_each(|(_, mut socket)| socket.disconnected(true));
    }
}
