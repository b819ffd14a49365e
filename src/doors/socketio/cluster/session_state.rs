//! The messages between the doors of two nodes, encoded with protobuf.

use bytes::Bytes;
use prost::Message;
use rollbook_core::error::Refusal;
use rollbook_core::service::InstanceRegister;

use crate::bus::client::announcement::AnnouncedUpTo;
use crate::doors::socketio::engine::steps::RequestError;
use crate::net::websocket::writer::Frame;

/// The envelope of a message.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(oneof = "PeerMessage", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    message: Option<PeerMessage>,
}

/// A message between the doors of two nodes.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(in crate::doors::socketio) enum PeerMessage {
    /// A GET for a session of the receiver.
    #[prost(string, tag = "1")]
    Poll(String),
    /// The client closed the connection of the GET.
    #[prost(string, tag = "2")]
    PollAborted(String),
    /// A POST for a session of the receiver.
    #[prost(message, tag = "3")]
    Post(Post),
    /// A WebSocket for a session of the receiver.
    #[prost(message, tag = "4")]
    OpenTunnel(OpenTunnel),
    /// Frames that came over that WebSocket.
    #[prost(message, tag = "5")]
    FromClient(TunnelFrames),
    /// Frames to write to a WebSocket of the receiver.
    #[prost(message, tag = "6")]
    ToClient(TunnelFrames),
    /// Asks for the state of this pid.
    #[prost(string, tag = "7")]
    Restore(String),
    /// A state that the receiver saves.
    #[prost(message, boxed, tag = "8")]
    SaveState(Box<SessionState>),
}

/// The saved state of a client.
#[derive(Clone, PartialEq, Message)]
pub(in crate::doors::socketio) struct SessionState {
    /// The secret name of the state. The client sends it to recover the state.
    #[prost(string, tag = "1")]
    pub(in crate::doors::socketio) pid: String,
    /// The Socket.IO id of the client.
    #[prost(string, tag = "2")]
    pub(in crate::doors::socketio) sid: String,
    #[prost(message, optional, tag = "3")]
    pub(in crate::doors::socketio) registration: Option<InstanceRegister>,
    #[prost(uint64, tag = "4")]
    roll: u64,
    #[prost(uint64, tag = "5")]
    notify: u64,
    /// Whose state it is.
    #[prost(string, tag = "6")]
    pub(in crate::doors::socketio) principal: String,
}

impl SessionState {
    /// Describes a client that needs the events of the book after `floor`.
    pub(in crate::doors::socketio) fn new(
        pid: &str,
        sid: &str,
        registration: Option<InstanceRegister>,
        floor: AnnouncedUpTo,
        principal: &str,
    ) -> Self {
        let AnnouncedUpTo { roll, notify } = floor;
        Self { pid: pid.to_owned(), sid: sid.to_owned(), registration, roll, notify, principal: principal.to_owned() }
    }

    /// No event up to here concerns the client.
    pub(in crate::doors::socketio) const fn floor(&self) -> AnnouncedUpTo {
        AnnouncedUpTo { roll: self.roll, notify: self.notify }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::doors::socketio) struct Post {
    #[prost(string, tag = "1")]
    pub(in crate::doors::socketio) sid: String,
    /// The body; absent when the body is not text.
    #[prost(string, optional, tag = "2")]
    pub(in crate::doors::socketio) body: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::doors::socketio) struct OpenTunnel {
    #[prost(string, tag = "1")]
    pub(in crate::doors::socketio) sid: String,
    /// Number of the WebSocket at its node.
    #[prost(uint64, tag = "2")]
    pub(in crate::doors::socketio) conn: u64,
}

/// Frames of a tunnelled WebSocket, or its end.
#[derive(Clone, PartialEq, Message)]
pub(in crate::doors::socketio) struct TunnelFrames {
    #[prost(uint64, tag = "1")]
    pub(in crate::doors::socketio) conn: u64,
    #[prost(message, repeated, tag = "2")]
    frames: Vec<TunnelFrame>,
    /// The close code, when the WebSocket ends.
    #[prost(uint32, optional, tag = "3")]
    pub(in crate::doors::socketio) code: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct TunnelFrame {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(bytes = "bytes", tag = "2")]
    binary: Bytes,
}

impl TunnelFrames {
    pub(in crate::doors::socketio) fn new(conn: u64, frames: Vec<Frame>) -> Self {
        let frame = |frame| match frame {
            Frame::Text(text) => TunnelFrame { text: Some(text.to_string()), binary: Bytes::new() },
            Frame::Binary(binary) => TunnelFrame { text: None, binary },
        };
        Self { conn, frames: frames.into_iter().map(frame).collect(), code: None }
    }

    pub(in crate::doors::socketio) fn end(conn: u64, code: u16) -> Self {
        Self { conn, frames: Vec::new(), code: Some(u32::from(code)) }
    }

    pub(in crate::doors::socketio) fn into_frames(self) -> Vec<Frame> {
        let frame = |frame: TunnelFrame| match frame.text {
            Some(text) => Frame::Text(text.into()),
            None => Frame::Binary(frame.binary),
        };
        self.frames.into_iter().map(frame).collect()
    }
}

impl PeerMessage {
    pub(in crate::doors::socketio) fn into_bytes(self) -> Bytes {
        Envelope { message: Some(self) }.encode_to_vec().into()
    }

    pub(in crate::doors::socketio) fn from_bytes(bytes: Bytes) -> Option<Self> {
        Envelope::decode(bytes).ok()?.message
    }
}

/// The result of a forwarded request.
#[derive(Clone, PartialEq, Message)]
struct ForwardResult {
    #[prost(string, tag = "1")]
    payload: String,
    /// 0: done, 1: no such session, 2: the session does not accept the request.
    #[prost(uint32, tag = "2")]
    error: u32,
}

/// Encodes the result of a forwarded request.
pub(in crate::doors::socketio) fn encode(result: Result<String, RequestError>) -> Bytes {
    let (payload, error) = match result {
        Ok(payload) => (payload, 0),
        Err(RequestError::Unknown) => (String::new(), 1),
        Err(RequestError::Request) => (String::new(), 2),
    };
    ForwardResult { payload, error }.encode_to_vec().into()
}

/// Decodes the result of a forwarded request.
pub(in crate::doors::socketio) fn decode(bytes: Result<Bytes, Refusal>) -> Result<String, RequestError> {
    // A node that does not answer has no session, as far as the client can tell.
    let bytes = bytes.map_err(|_| RequestError::Unknown)?;
    match ForwardResult::decode(bytes) {
        Ok(ForwardResult { payload, error: 0 }) => Ok(payload),
        Ok(ForwardResult { error: 2, .. }) => Err(RequestError::Request),
        _ => Err(RequestError::Unknown),
    }
}
