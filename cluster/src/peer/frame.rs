//! Frames of the peer protocol: what crosses a connection between two nodes.
//!
//! ```text
//! u32 bytes behind this field | u8 kind | u32 raft group | u64 session | body
//! ```
//! Integers are little-endian. A session is one exchange; many share a connection.

use std::io;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::store::layout::GROUP;

/// Longest frame after the hello, bytes.
pub(crate) const FRAME_BYTES_MAX: usize = 32 << 20;
/// Longest frame before the other side is known, bytes.
pub(crate) const HELLO_BYTES_MAX: usize = 8 << 10;
/// Bytes of a frame before its body.
pub(crate) const HEADER_BYTES: usize = 17;

/// The kind of a frame. Numbers are never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// First frame of a connection: names the calling and the called node.
    Hello = 1,
    /// The call is taken.
    Welcome = 2,
    /// The call is refused; the connection ends.
    HelloRefused = 3,
    /// One append-entries request of a stream.
    Append = 10,
    /// The answer to one of them, in order.
    Appended = 11,
    /// Nothing more comes in this session.
    End = 12,
    /// A request for a vote.
    Vote = 20,
    /// A question whether a vote would be granted.
    PreVote = 21,
    /// Leadership is handed over.
    Transfer = 22,
    /// A question for the index that a linearizable read must have seen.
    ReadIndex = 23,
    /// Recorded writes for the leader.
    Forward = 24,
    /// A live message without an answer.
    Tell = 25,
    /// A live message with an answer.
    Ask = 26,
    /// A change of the membership, for the leader.
    Change = 27,
    /// A question how far the founding of the cluster is.
    Founding = 28,
    /// The cluster gets its id.
    Found = 29,
    /// Are you there?
    Ping = 30,
    /// A question how far the log and the state are.
    Figures = 31,
    /// A snapshot is offered: its files.
    Offer = 40,
    /// Part of a file of a snapshot.
    Chunk = 41,
    /// All files were sent.
    Complete = 42,
    /// The receiver of a snapshot is still working. Sent only to a sender that announced that it understands this
    /// frame.
    Progress = 43,
    /// An answer.
    Reply = 50,
    /// A refusal, see [`rollbook_core::reply::decode_refusal`].
    Refused = 51,
    /// The node that was asked is not the leader; nothing was done.
    NotLeader = 52,
}

impl Kind {
    const ALL: [Self; 25] = [
        Self::Hello,
        Self::Welcome,
        Self::HelloRefused,
        Self::Append,
        Self::Appended,
        Self::End,
        Self::Vote,
        Self::PreVote,
        Self::Transfer,
        Self::ReadIndex,
        Self::Forward,
        Self::Tell,
        Self::Ask,
        Self::Change,
        Self::Founding,
        Self::Found,
        Self::Ping,
        Self::Figures,
        Self::Offer,
        Self::Chunk,
        Self::Complete,
        Self::Progress,
        Self::Reply,
        Self::Refused,
        Self::NotLeader,
    ];

    #[expect(clippy::as_conversions, reason = "the number of a fieldless variant")]
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.number() == number)
    }
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    pub(crate) session: u64,
    pub(crate) body: Bytes,
}

impl Frame {
    pub(crate) fn new(kind: Kind, session: u64, body: impl Into<Bytes>) -> Self {
        Self { kind, session, body: body.into() }
    }

    /// Bytes that it takes while it waits to be written.
    pub(crate) fn room(&self) -> u32 {
        u32::try_from(self.body.len().saturating_add(64)).unwrap_or(u32::MAX)
    }

    /// The header before the body.
    pub(crate) fn header(&self) -> [u8; HEADER_BYTES] {
        let length = u32::try_from(self.body.len().saturating_add(HEADER_BYTES - 4)).unwrap_or(u32::MAX);
        let mut out = [0; HEADER_BYTES];
        out[..4].copy_from_slice(&length.to_le_bytes());
        out[4] = self.kind.number();
        out[5..9].copy_from_slice(&GROUP.to_le_bytes());
        out[9..17].copy_from_slice(&self.session.to_le_bytes());
        out
    }
}

fn wrong(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}

/// Reads a frame of at most `bytes_max`; `None` at a clean end.
pub(crate) async fn read(from: &mut (impl AsyncRead + Unpin), bytes_max: usize) -> io::Result<Option<Frame>> {
    let mut header = [0; HEADER_BYTES];
    if let Err(error) = from.read_exact(&mut header).await {
        return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
    }
    let [a, b, c, d, kind, e, f, g, h, session @ ..] = header;
    let length = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length > bytes_max {
        return Err(wrong(format!("a frame of {length} bytes, at most {bytes_max} are taken")));
    }
    let body = length.checked_sub(HEADER_BYTES - 4).ok_or_else(|| wrong("a frame shorter than its header"))?;
    let kind = Kind::from_number(kind).ok_or_else(|| wrong(format!("a frame of unknown kind {kind}")))?;
    if u32::from_le_bytes([e, f, g, h]) != GROUP {
        return Err(wrong("a frame of an unknown raft group"));
    }
    // Grows as bytes come: an announced length alone takes no memory.
    let mut bytes = BytesMut::with_capacity(body.min(64 << 10));
    let mut rest = from.take(u64::try_from(body).unwrap_or(u64::MAX));
    while bytes.len() < body {
        if rest.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if bytes.len() == bytes.capacity() {
            bytes.reserve(body.saturating_sub(bytes.len()).min(bytes.len().max(64 << 10)));
        }
    }
    Ok(Some(Frame { kind, session: u64::from_le_bytes(session), body: bytes.freeze() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(frame: &Frame) -> Vec<u8> {
        [frame.header().as_slice(), &frame.body].concat()
    }

    #[tokio::test]
    async fn frames_of_every_kind_read_back() {
        for kind in Kind::ALL {
            let frame = Frame::new(kind, 7, vec![1; 300_000]);
            let wire = bytes(&frame);
            assert_eq!(read(&mut wire.as_slice(), FRAME_BYTES_MAX).await.unwrap(), Some(frame));
        }
        assert_eq!(read(&mut [].as_slice(), 100).await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_frame_too_long_too_short_unknown_or_cut_is_an_error() {
        let good = bytes(&Frame::new(Kind::Ping, 1, vec![5; 10]));
        let mut long = good.clone();
        long[..4].copy_from_slice(&u32::MAX.to_le_bytes());
        let mut short = good.clone();
        short[..4].copy_from_slice(&3_u32.to_le_bytes());
        let (mut kind, mut group) = (good.clone(), good.clone());
        kind[4] = 99;
        group[5] = 1;
        for wire in [long.as_slice(), &short, &kind, &group, &good[..20]] {
            assert!(read(&mut &*wire, FRAME_BYTES_MAX).await.is_err(), "{wire:?}");
        }
        assert!(read(&mut good.as_slice(), 20).await.is_err(), "beyond the limit of a hello");
    }
}
