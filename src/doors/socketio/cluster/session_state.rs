//! Messages between the doors of two nodes, as bytes.

use bytes::Bytes;
use prost::Message;
use rollbook_core::error::Refusal;
use rollbook_core::service::InstanceRegister;

use crate::bus::client::announcement::AnnouncedUpTo;
use crate::doors::socketio::engine::protocol::Wrong;
use crate::net::websocket::writer::Frame;

/// A message between the doors of two nodes.
#[derive(Clone, PartialEq, Message)]
struct Envelope {
    #[prost(oneof = "Word", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    word: Option<Word>,
}

/// What they say.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(in crate::doors::socketio) enum Word {
    /// A GET for a session of the node that is asked.
    #[prost(string, tag = "1")]
    Poll(String),
    /// Its connection was cut.
    #[prost(string, tag = "2")]
    PollGone(String),
    /// A POST.
    #[prost(message, tag = "3")]
    Post(Post),
    /// A WebSocket has come for a session of the node that is asked.
    #[prost(message, tag = "4")]
    Open(Open),
    /// Something came over that WebSocket.
    #[prost(message, tag = "5")]
    In(Carried),
    /// Something is to be written to it, at the node that is asked.
    #[prost(message, tag = "6")]
    Out(Carried),
    /// Has the node that is asked kept the state of this pid?
    #[prost(string, tag = "7")]
    Restore(String),
    /// A state for the node that is told to keep.
    #[prost(message, boxed, tag = "8")]
    Keep(Box<Kept>),
}

/// What a client was.
#[derive(Clone, PartialEq, Message)]
pub(in crate::doors::socketio) struct Kept {
    /// The secret by which it finds this.
    #[prost(string, tag = "1")]
    pub(in crate::doors::socketio) pid: String,
    /// Its id.
    #[prost(string, tag = "2")]
    pub(in crate::doors::socketio) sid: String,
    #[prost(message, optional, tag = "3")]
    pub(in crate::doors::socketio) registration: Option<InstanceRegister>,
    #[prost(uint64, tag = "4")]
    roll: u64,
    #[prost(uint64, tag = "5")]
    notify: u64,
}

impl Kept {
    /// What a client was that is told of the book what comes after `floor`.
    pub(in crate::doors::socketio) fn new(
        pid: &str,
        sid: &str,
        registration: Option<InstanceRegister>,
        floor: AnnouncedUpTo,
    ) -> Self {
        let AnnouncedUpTo { roll, notify } = floor;
        Self { pid: pid.to_owned(), sid: sid.to_owned(), registration, roll, notify }
    }

    /// Nothing up to here concerns it.
    pub(in crate::doors::socketio) const fn floor(&self) -> AnnouncedUpTo {
        AnnouncedUpTo { roll: self.roll, notify: self.notify }
    }
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::doors::socketio) struct Post {
    #[prost(string, tag = "1")]
    pub(in crate::doors::socketio) sid: String,
    /// Absent when it was no text.
    #[prost(string, optional, tag = "2")]
    pub(in crate::doors::socketio) body: Option<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(in crate::doors::socketio) struct Open {
    #[prost(string, tag = "1")]
    pub(in crate::doors::socketio) sid: String,
    /// Number of the WebSocket at the node where it is.
    #[prost(uint64, tag = "2")]
    pub(in crate::doors::socketio) conn: u64,
}

/// Frames of a WebSocket, or its end.
#[derive(Clone, PartialEq, Message)]
pub(in crate::doors::socketio) struct Carried {
    #[prost(uint64, tag = "1")]
    pub(in crate::doors::socketio) conn: u64,
    #[prost(message, repeated, tag = "2")]
    frames: Vec<Carry>,
    /// It ends, with this close code.
    #[prost(uint32, optional, tag = "3")]
    pub(in crate::doors::socketio) code: Option<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Carry {
    #[prost(string, optional, tag = "1")]
    text: Option<String>,
    #[prost(bytes = "bytes", tag = "2")]
    binary: Bytes,
}

impl Carried {
    pub(in crate::doors::socketio) fn new(conn: u64, frames: Vec<Frame>) -> Self {
        let carry = |frame| match frame {
            Frame::Text(text) => Carry { text: Some(text.to_string()), binary: Bytes::new() },
            Frame::Binary(binary) => Carry { text: None, binary },
        };
        Self { conn, frames: frames.into_iter().map(carry).collect(), code: None }
    }

    pub(in crate::doors::socketio) fn end(conn: u64, code: u16) -> Self {
        Self { conn, frames: Vec::new(), code: Some(u32::from(code)) }
    }

    pub(in crate::doors::socketio) fn into_frames(self) -> Vec<Frame> {
        let frame = |carry: Carry| match carry.text {
            Some(text) => Frame::Text(text.into()),
            None => Frame::Binary(carry.binary),
        };
        self.frames.into_iter().map(frame).collect()
    }
}

impl Word {
    pub(in crate::doors::socketio) fn into_bytes(self) -> Bytes {
        Envelope { word: Some(self) }.encode_to_vec().into()
    }

    pub(in crate::doors::socketio) fn from_bytes(bytes: Bytes) -> Option<Self> {
        Envelope::decode(bytes).ok()?.word
    }
}

/// What became of something that was forwarded.
#[derive(Clone, PartialEq, Message)]
struct Became {
    #[prost(string, tag = "1")]
    payload: String,
    /// 0: done, 1: no such session, 2: not like this.
    #[prost(uint32, tag = "2")]
    wrong: u32,
}

/// What became of something that was forwarded, as bytes.
pub(in crate::doors::socketio) fn encode(became: Result<String, Wrong>) -> Bytes {
    let (payload, wrong) = match became {
        Ok(payload) => (payload, 0),
        Err(Wrong::Unknown) => (String::new(), 1),
        Err(Wrong::Request) => (String::new(), 2),
    };
    Became { payload, wrong }.encode_to_vec().into()
}

/// Reads [`encode`] back.
pub(in crate::doors::socketio) fn decode(bytes: Result<Bytes, Refusal>) -> Result<String, Wrong> {
    // A node that cannot be asked has no session any more, as far as its client is concerned.
    let bytes = bytes.map_err(|_| Wrong::Unknown)?;
    match Became::decode(bytes) {
        Ok(Became { payload, wrong: 0 }) => Ok(payload),
        Ok(Became { wrong: 2, .. }) => Err(Wrong::Request),
        _ => Err(Wrong::Unknown),
    }
}
