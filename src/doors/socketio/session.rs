//! Socket.IO v5 on top of one Engine.IO session: namespaces, events, acknowledgements, binary parts. Pure;
//! what is behind a namespace is an [`Application`].

use std::sync::Arc;

use actix::Recipient;
use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

use super::codec::{self, Kind, Malformed, Packet};
use crate::bus::client::clients::ClientMessage;
use crate::bus::subscribe::streams::Turn;
use crate::net::websocket::writer::Frame;

/// Most namespaces that one connection may join.
const NAMESPACES_MAX: usize = 64;

/// How a client came.
#[derive(Debug, Clone, Default)]
pub(super) struct Handshake {
    /// Query of the first request, as it came.
    pub(super) query: String,
    /// Where it comes from.
    pub(super) address: String,
    /// How the bus reaches it.
    pub(super) mailbox: Option<Recipient<ClientMessage>>,
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
    /// Its name; empty when it was a number.
    pub(super) name: ByteString,
    /// What the client wants an answer under.
    pub(super) id: Option<u64>,
    /// Each of them JSON.
    pub(super) args: Vec<ByteString>,
    /// What the placeholders in them stand for.
    pub(super) attachments: Vec<Bytes>,
    /// Its arguments were nested too deep, and were left out.
    pub(super) deep: bool,
}

/// Why a client may not join a namespace.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Refused {
    pub(super) message: String,
    pub(super) data: Option<serde_json::Value>,
}

/// What is behind the namespaces.
pub(super) trait Application: Send + Sync {
    /// A client joins; `auth` is a JSON object or nothing.
    fn connect(
        &self,
        namespace: &str,
        sid: &str,
        handshake: &Handshake,
        auth: Option<&str>,
    ) -> Result<Box<dyn Socket>, Refused>;

    /// A new id for a client.
    fn sid(&self) -> String;

    /// Looks for the state of a client that was here before and says so in `auth`; `None` when it does not, or when
    /// no state is ever kept.
    fn restore(
        &self,
        _namespace: &str,
        _handshake: &Handshake,
        _auth: Option<&str>,
    ) -> Option<LocalBoxFuture<'static, Option<Restored>>> {
        None
    }
}

/// A client that has found its state again.
pub(super) struct Restored {
    /// The id that it had.
    pub(super) sid: String,
    pub(super) socket: Box<dyn Socket>,
    /// What it has missed.
    pub(super) missed: Vec<Frame>,
}

/// One client in one namespace.
pub(super) trait Socket {
    /// It has been told that it is in.
    fn joined(&mut self, out: &mut Out);
    /// It sends an event.
    fn event(&mut self, event: Event, out: &mut Out);
    /// It answers what it was sent under `id`.
    fn acked(&mut self, id: u64, args: Vec<ByteString>, attachments: Vec<Bytes>, out: &mut Out);
    /// The bus tells it something.
    fn told(&mut self, told: ClientMessage, out: &mut Out);
    /// It has gone; it may come back for its state if it was its connection that `broke`.
    fn left(&mut self, broke: bool);
    /// What it finds its state by when it comes back, if that is kept.
    fn pid(&self) -> Option<&str> {
        None
    }
}

/// What was waited for.
pub(super) enum Waited {
    /// A word of the bus.
    Told(ClientMessage),
    /// The state that the client of this CONNECT left behind.
    Restored(Packet, Option<Restored>),
}

/// How a client is sent away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Away {
    /// Out of the namespace: it stays away.
    Kick,
    /// The connection ends: it comes back by itself.
    Drop(&'static str, u16),
}

/// What a socket wants done.
#[derive(Default)]
pub(super) struct Out {
    /// To be sent to the client.
    pub(super) frames: Vec<Frame>,
    /// Nothing more is taken from the client until this is done; its result is told.
    pub(super) wait: Option<LocalBoxFuture<'static, Waited>>,
    pub(super) away: Option<Away>,
    /// Bytes of `frames` that come at the pace of the client.
    pub(super) paced: usize,
    /// Kept until little of what the stream of the book has said waits for the client.
    pub(super) turn: Option<Turn>,
    namespace: ByteString,
}

impl Out {
    fn of(namespace: &ByteString) -> Self {
        Self { namespace: namespace.clone(), ..Self::default() }
    }

    /// Sends an event; with an `id` the client may answer it.
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

    /// Answers an event.
    pub(super) fn ack(&mut self, id: u64, args: &[&str], attachments: Vec<Bytes>) {
        self.frames.push(Frame::Text(codec::ack(&self.namespace, id, args, attachments.len())));
        self.frames.extend(codec::binaries(attachments));
    }
}

/// The session.
pub(super) struct Session {
    application: Arc<dyn Application>,
    handshake: Handshake,
    /// One, nearly always: not worth a map.
    sockets: Vec<(ByteString, Box<dyn Socket>)>,
    /// A packet whose binary parts are not all there.
    partial: Option<Box<(Packet, Vec<Bytes>)>>,
}

impl Session {
    pub(super) fn new(application: Arc<dyn Application>, handshake: Handshake) -> Self {
        Self { application, handshake, sockets: Vec::new(), partial: None }
    }

    fn socket(&mut self, namespace: &ByteString) -> Option<&mut Box<dyn Socket>> {
        self.sockets.iter_mut().find(|(name, _)| name == namespace).map(|(_, socket)| socket)
    }

    /// Whether the client is in any namespace.
    pub(super) fn is_joined(&self) -> bool {
        !self.sockets.is_empty()
    }

    /// A message of the client.
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
                out.wait = Some(restored.map(|restored| Waited::Restored(packet, restored)).boxed_local());
            }
            None => self.join(&packet, out),
        }
        Ok(())
    }

    fn join(&mut self, packet: &Packet, out: &mut Out) {
        let sid = self.application.sid();
        match self.application.connect(&packet.namespace, &sid, &self.handshake, packet.object()) {
            Ok(socket) => self.seat(&packet.namespace, &sid, socket, out),
            Err(Refused { message, data }) => {
                let mut error = serde_json::Map::new();
                error.insert("message".to_owned(), message.into());
                if let Some(data) = data {
                    error.insert("data".to_owned(), data);
                }
                out.frames.push(Frame::Text(codec::refused(&packet.namespace, &error.into())));
            }
        }
    }

    fn seat(&mut self, namespace: &ByteString, sid: &str, mut socket: Box<dyn Socket>, out: &mut Out) {
        out.frames.push(Frame::Text(codec::connected(namespace, sid, socket.pid())));
        socket.joined(out);
        self.sockets.reserve_exact(1);
        self.sockets.push((namespace.clone(), socket));
    }

    /// What [`Out::wait`] was for has come.
    pub(super) fn waited(&mut self, waited: Waited) -> Out {
        match waited {
            Waited::Told(told) => self.told(told),
            Waited::Restored(packet, Some(Restored { sid, socket, missed })) => {
                let mut out = Out::of(&packet.namespace);
                self.seat(&packet.namespace, &sid, socket, &mut out);
                out.frames.extend(missed);
                out
            }
            Waited::Restored(packet, None) => {
                let mut out = Out::of(&packet.namespace);
                self.join(&packet, &mut out);
                out
            }
        }
    }

    fn leave(&mut self, namespace: &ByteString) {
        if let Some(at) = self.sockets.iter().position(|(name, _)| name == namespace) {
            self.sockets.swap_remove(at).1.left(false);
        }
    }

    /// The bus tells the client something: that concerns the main namespace.
    pub(super) fn told(&mut self, told: ClientMessage) -> Out {
        let main = ByteString::from_static("/");
        let mut out = Out::of(&main);
        if let Some(socket) = self.socket(&main) {
            socket.told(told, &mut out);
        }
        out
    }

    /// Sends a client out of the namespace that `out` is about.
    pub(super) fn kick(&mut self, out: &mut Out) {
        let namespace = out.namespace.clone();
        out.frames.push(Frame::Text(codec::disconnected(&namespace)));
        self.leave(&namespace);
    }

    /// The connection is over.
    pub(super) fn end(&mut self) {
        std::mem::take(&mut self.sockets).into_iter().for_each(|(_, mut socket)| socket.left(true));
    }
}
