//! The message in the body of a message frame and of a request frame: operation, id, origin, payload.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use super::frame::{EncodeError, FrameKind, encode_header};
use super::op::{Op, UnknownOp};
use super::texts::UNKNOWN_ORIGIN;

/// Bytes before the id: the code of the operation, and the length of the id.
const PREFIX_BYTES: usize = 3;

/// A body is no message. The text answers a request; a message frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The body ends before the length of the id.
    #[error("Message is too short")]
    TooShort,
    /// No operation has this code.
    #[error(transparent)]
    UnknownOp(#[from] UnknownOp),
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What the message asks for or tells.
    pub op: Op,
    /// The service. Empty where the operation needs none; `*` subscribes to all services.
    pub id: String,
    /// The dock that the message came from. On the wire it follows the id, behind an `@`.
    pub origin: Option<String>,
    /// What comes with the operation, see [`payload`](super::payload). Shares the memory of the body.
    pub payload: Bytes,
}

impl Message {
    /// A message without an origin and a payload.
    #[must_use]
    pub fn new(op: Op, id: impl Into<String>) -> Self {
        Self { op, id: id.into(), origin: None, payload: Bytes::new() }
    }

    /// The same message with a payload.
    #[must_use]
    pub fn with_payload(self, payload: impl Into<Bytes>) -> Self {
        Self { payload: payload.into(), ..self }
    }

    /// The same message with an origin.
    #[must_use]
    pub fn with_origin(self, origin: impl Into<String>) -> Self {
        Self { origin: Some(origin.into()), ..self }
    }

    /// The origin, or `unknown` when there is none.
    #[must_use]
    pub fn origin(&self) -> &str {
        self.origin.as_deref().unwrap_or(UNKNOWN_ORIGIN)
    }

    /// Reads a message. As in the original, an id that is announced too long ends with the body, and invalid UTF-8 is
    /// replaced. The id ends at its first `@`, and the origin follows.
    ///
    /// # Errors
    ///
    /// The body is too short, or the operation is unknown.
    pub fn parse(body: &Bytes) -> Result<Self, MessageError> {
        let Some([code, low, high]) = body.first_chunk::<PREFIX_BYTES>() else { return Err(MessageError::TooShort) };
        let op = Op::try_from(*code)?;
        let id_bytes = usize::from(u16::from_le_bytes([*low, *high]));
        let mut payload = body.clone();
        payload.advance(PREFIX_BYTES);
        let id = payload.split_to(id_bytes.min(payload.len()));
        let id = String::from_utf8_lossy(&id);
        let (id, origin) = match id.split_once('@') {
            Some((id, origin)) => (id.to_owned(), Some(origin.to_owned())),
            None => (id.into_owned(), None),
        };
        Ok(Self { op, id, origin, payload })
    }

    /// Appends the message as a frame that nobody answers.
    ///
    /// # Errors
    ///
    /// The id or the message is too long for its length field.
    pub fn encode_message(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode(FrameKind::Message, 0, out)
    }

    /// Appends the message as a request with an id of [`RequestIds`](super::request_ids::RequestIds).
    ///
    /// # Errors
    ///
    /// The id or the message is too long for its length field.
    pub fn encode_request(&self, id: u16, out: &mut BytesMut) -> Result<(), EncodeError> {
        self.encode(FrameKind::Request, id, out)
    }

    fn encode(&self, kind: FrameKind, frame_id: u16, out: &mut BytesMut) -> Result<(), EncodeError> {
        let origin_bytes = self.origin.as_ref().map_or(0, |origin| origin.len().saturating_add(1));
        let id_bytes = self.id.len().saturating_add(origin_bytes);
        let length = u16::try_from(id_bytes).map_err(|_| EncodeError::Id(id_bytes))?;
        let body_bytes = self.payload.len().saturating_add(id_bytes).saturating_add(PREFIX_BYTES);
        encode_header(kind, frame_id, body_bytes, out)?;
        out.put_u8(self.op.code());
        out.put_u16_le(length);
        out.put_slice(self.id.as_bytes());
        if let Some(origin) = &self.origin {
            out.put_u8(b'@');
            out.put_slice(origin.as_bytes());
        }
        out.put_slice(&self.payload);
        Ok(())
    }
}
