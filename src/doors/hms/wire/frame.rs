//! The cable frame: a header of seven bytes, little endian, and a body.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};

/// Bytes of a header: kind, id, length of the body.
pub const HEADER_BYTES: usize = 7;
/// Bytes of the longest body that a peer may send, unless a setting says otherwise. The protocol itself has no bound below 1 GiB.
pub const BODY_BYTES_MAX: u32 = 64 * 1024 * 1024;
/// The time after the start of a connection, and after each pong, when a peer pings.
pub const PING_AFTER: Duration = Duration::from_secs(15);
/// The time in which a ping must be answered, or the connection has ended.
pub const PONG_WITHIN: Duration = Duration::from_secs(5);

/// What a frame is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A message that nobody answers. The id is 0.
    Message,
    /// A message that is answered by one response or error with the same id.
    Request,
    /// The answer to a request that succeeded, or to a ping.
    Response,
    /// The answer to a request that failed: the body is a text.
    Error,
    /// Asks for a response with the same id and no body. Works before the handshake.
    Ping,
    /// A kind that the protocol does not have. Such frames are ignored.
    Unknown(u8),
}

/// A value is too long for its length field. Nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
    /// The body of the frame.
    #[error("the body of a frame has {0} bytes, and may have at most 4294967295")]
    Body(usize),
    /// The id of the message, with its origin.
    #[error("the id of a message has {0} bytes, and may have at most 65535")]
    Id(usize),
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the frame is for.
    pub kind: FrameKind,
    /// Ties an answer to its request.
    pub id: u16,
    /// A message, a reply or a text.
    pub body: Bytes,
}

/// A header: all but the body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: FrameKind,
    pub(super) id: u16,
    pub(super) body_bytes: u32,
}

impl FrameKind {
    /// The first byte of a frame of this kind.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Message => 0,
            Self::Request => 1,
            Self::Response => 2,
            Self::Error => 3,
            Self::Ping => 4,
            Self::Unknown(code) => code,
        }
    }
}

impl From<u8> for FrameKind {
    fn from(code: u8) -> Self {
        match code {
            0 => Self::Message,
            1 => Self::Request,
            2 => Self::Response,
            3 => Self::Error,
            4 => Self::Ping,
            code => Self::Unknown(code),
        }
    }
}

impl Frame {
    /// A ping with this id, which is one of those of requests.
    #[must_use]
    pub fn ping(id: u16) -> Self {
        Self { kind: FrameKind::Ping, id, body: Bytes::new() }
    }

    /// The answer to a ping with this id.
    #[must_use]
    pub fn pong(id: u16) -> Self {
        Self { kind: FrameKind::Response, id, body: Bytes::new() }
    }

    /// Appends the frame to `out`.
    ///
    /// # Errors
    ///
    /// The length of the body does not fit into a header.
    pub fn encode(&self, out: &mut BytesMut) -> Result<(), EncodeError> {
        encode_header(self.kind, self.id, self.body.len(), out)?;
        out.put_slice(&self.body);
        Ok(())
    }
}

/// Appends the header of a frame whose body of `body_bytes` follows, so the body may be written in parts. Makes room for both.
///
/// # Errors
///
/// The length of the body does not fit into a header.
pub fn encode_header(kind: FrameKind, id: u16, body_bytes: usize, out: &mut BytesMut) -> Result<(), EncodeError> {
    let length = u32::try_from(body_bytes).map_err(|_| EncodeError::Body(body_bytes))?;
    out.reserve(body_bytes.saturating_add(HEADER_BYTES));
    out.put_u8(kind.code());
    out.put_u16_le(id);
    out.put_u32_le(length);
    Ok(())
}

impl Header {
    /// Reads the header at the start of `bytes`, if the header has come whole.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let [kind, id @ .., a, b, c, d] = bytes.first_chunk::<HEADER_BYTES>()?;
        let body_bytes = u32::from_le_bytes([*a, *b, *c, *d]);
        Some(Self { kind: FrameKind::from(*kind), id: u16::from_le_bytes(*id), body_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_keeps_its_byte() {
        for code in 0..=u8::MAX {
            assert_eq!(FrameKind::from(code).code(), code);
        }
    }

    #[test]
    fn a_frame_is_kind_id_and_length_in_little_endian_and_its_body() {
        let mut out = BytesMut::new();
        Frame { kind: FrameKind::Request, id: 0x0102, body: Bytes::from_static(b"abc") }.encode(&mut out).unwrap();
        assert_eq!(&out[..], [1, 2, 1, 3, 0, 0, 0, b'a', b'b', b'c']);
        let header = Header { kind: FrameKind::Request, id: 0x0102, body_bytes: 3 };
        assert_eq!(Header::parse(&out), Some(header));
        assert_eq!(Header::parse(&out[..6]), None);
    }

    #[test]
    fn a_body_that_no_header_can_announce_is_refused_and_nothing_is_written() {
        let (mut out, long) = (BytesMut::new(), usize::try_from(u64::from(u32::MAX) + 1).unwrap());
        assert_eq!(encode_header(FrameKind::Message, 0, long, &mut out), Err(EncodeError::Body(long)));
        assert!(out.is_empty());
    }
}
