//! What a request is answered: once, and with nothing that a stock client dies of.

use bytes::{BufMut as _, Bytes, BytesMut};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::frame::{EncodeError, FrameKind, encode_header};
use super::json;
use super::op::Op;
use super::texts::UNKNOWN_ERROR;

/// The outcome of a request.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The request succeeded, and there is nothing more to say.
    Done,
    /// The request succeeded with this result. Only some operations have one, see [`Op::is_answered_with_json`].
    Json(Box<RawValue>),
    /// The request failed with this text.
    Error(String),
}

/// A result is no JSON, though its operation has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer to {} is not valid JSON", .0.name())]
pub struct InvalidAnswer(pub Op);

impl Answer {
    /// The answer with `result` as JSON, or an error when `result` has none.
    #[must_use]
    pub fn json<T: Serialize + ?Sized>(result: &T) -> Self {
        to_raw_value(result).map_or_else(|error| Self::Error(error.to_string()), Self::Json)
    }

    /// Appends the answer to the request `id` with operation `op`. A result that the operation has none of is left out,
    /// and a result that is missing is an empty one. Events are never answered, so nothing is written for them.
    ///
    /// # Errors
    ///
    /// The result or the text is too long for a frame.
    pub fn encode(&self, op: Op, id: u16, out: &mut BytesMut) -> Result<(), EncodeError> {
        if op.is_event() {
            return Ok(());
        }
        let result = match self {
            Self::Error(text) => return encode_error(text, id, out),
            Self::Json(result) if op.is_answered_with_json() => result.get(),
            Self::Json(_) | Self::Done => empty_result(op),
        };
        append(FrameKind::Response, id, result, out)
    }

    /// Reads the frame that answers a request with operation `op`, or a ping with `None`. Bodies that no operation
    /// needs are ignored. `None` if the kind of the frame is no answer.
    ///
    /// # Errors
    ///
    /// The operation needs a result, and the body is no JSON.
    pub fn parse(op: Option<Op>, kind: FrameKind, body: &Bytes) -> Result<Option<Self>, InvalidAnswer> {
        match (kind, op) {
            (FrameKind::Error, _) => Ok(Some(Self::Error(String::from_utf8_lossy(body).into_owned()))),
            (FrameKind::Response, Some(op)) if op.is_answered_with_json() => {
                json::check(body).map(|result| Some(Self::Json(result))).ok_or(InvalidAnswer(op))
            }
            (FrameKind::Response, _) => Ok(Some(Self::Done)),
            _ => Ok(None),
        }
    }
}

/// Appends an error as the answer to the request `id`, also to one whose operation is not known.
///
/// # Errors
///
/// The text is too long for a frame.
pub fn encode_error(text: &str, id: u16, out: &mut BytesMut) -> Result<(), EncodeError> {
    append(FrameKind::Error, id, if text.is_empty() { UNKNOWN_ERROR } else { text }, out)
}

/// The result of an operation when there is none: of the type that a stock client reads without dying.
fn empty_result(op: Op) -> &'static str {
    match op {
        Op::Handshake => "{}",
        Op::List | Op::Ps => "[]",
        Op::Get => "null",
        _ => "",
    }
}

fn append(kind: FrameKind, id: u16, body: &str, out: &mut BytesMut) -> Result<(), EncodeError> {
    encode_header(kind, id, body.len(), out)?;
    out.put_slice(body.as_bytes());
    Ok(())
}
