//! nrpc: requests and replies over NATS, errors, and replies of several messages.
//!
//! A reply is a protobuf message, which never begins with the byte 0. A payload that does is an error, the end of a
//! stream, or a lone 0, by which the sender of a stream says that it is still there.

use prost::Message as _;

/// Whose fault it is. The numbers are those of nrpc.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum ErrorType {
    /// The request is wrong.
    Client = 0,
    /// The server failed.
    Server = 1,
    /// No fault: the stream ended.
    EndOfStream = 3,
    /// The server has no room: try again later.
    ServerTooBusy = 4,
}

impl ErrorType {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "CLIENT",
            Self::Server => "SERVER",
            Self::EndOfStream => "EOS",
            Self::ServerTooBusy => "SERVERTOOBUSY",
        }
    }
}

/// Why a call failed, or that a stream ended.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Error {
    /// Whose fault it is.
    #[prost(enumeration = "ErrorType", tag = "1")]
    pub error: i32,
    /// The message.
    #[prost(string, tag = "2")]
    pub message: String,
    /// At the end of a stream: how many messages it had.
    #[prost(uint32, tag = "3")]
    pub msg_count: u32,
}

/// The caller of a stream is still there.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HeartBeat {
    /// Whether the caller does not want the rest.
    #[prost(bool, tag = "1")]
    pub lastbeat: bool,
}

/// What the sender of a stream sends about once a second when it has nothing else.
pub const KEEP_ALIVE: [u8; 1] = [0];

/// What is behind the reply subject of a stream, and is the subject of the caller's [`HeartBeat`].
pub const HEARTBEAT_SUFFIX: &str = ".heartbeat";

/// The token behind a subject whose payloads are JSON.
pub const JSON_TOKEN: &str = "json";

/// The payload of an error.
#[must_use]
pub fn error(kind: ErrorType, message: &str) -> Vec<u8> {
    // An error of the client without a message would be a lone 0: the sign of life of a stream.
    let message = if message.is_empty() { kind.name() } else { message };
    framed(&Error { error: kind.into(), message: message.to_owned(), msg_count: 0 })
}

/// The payload by which a stream of this many messages ends.
#[must_use]
pub fn end_of_stream(messages: u32) -> Vec<u8> {
    framed(&Error { error: ErrorType::EndOfStream.into(), message: String::new(), msg_count: messages })
}

fn framed(error: &Error) -> Vec<u8> {
    let mut out = Vec::with_capacity(error.encoded_len().saturating_add(1));
    out.push(0);
    error.encode_raw(&mut out);
    out
}

/// A payload of a reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply<'a> {
    /// A message; empty for Void.
    Message(&'a [u8]),
    /// The sender of a stream is still there.
    KeepAlive,
    /// The stream ended. The number of its messages, when its sender counts them.
    End(Option<u32>),
    /// The call failed.
    Error(Error),
}

impl<'a> Reply<'a> {
    /// Reads a payload.
    ///
    /// # Errors
    /// The payload begins like an error and is none.
    pub fn read(payload: &'a [u8]) -> Result<Self, prost::DecodeError> {
        match payload {
            [0] => Ok(Self::KeepAlive),
            [0, error @ ..] => {
                let error = Error::decode(error)?;
                if error.error() == ErrorType::EndOfStream {
                    return Ok(Self::End(Some(error.msg_count).filter(|count| *count > 0)));
                }
                Ok(Self::Error(error))
            }
            message => Ok(Self::Message(message)),
        }
    }
}
