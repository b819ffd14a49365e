//! The incremental decoder: bytes, cut anywhere, become frames.

use bytes::{Buf as _, BytesMut};

use super::frame::{Frame, HEADER_BYTES, Header};

/// Capacity that an empty decoder keeps. A connection that was once fed a large frame and is idle holds no more.
const IDLE_BYTES: usize = 64 * 1024;

/// The peer announced a body that is too long. The connection must be closed: the next frame cannot be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame announces a body of {bytes} bytes, and may have at most {max}")]
pub struct BodyTooLong {
    /// Bytes announced.
    pub bytes: u32,
    /// Bytes allowed.
    pub max: u32,
}

/// Turns the bytes of one peer into frames. The caller takes all frames with [`Self::next_frame`] after each
/// [`Self::feed`]; then the decoder holds at most one incomplete frame.
///
/// Bodies share the memory in which they came, without a copy: who keeps a small body for long keeps the bytes around
/// the body too, and should copy the body.
#[derive(Debug)]
pub struct Decoder {
    max_body: u32,
    /// What has come and is no frame yet. Grows with what comes, never by what a header announces.
    buffer: BytesMut,
    failed: Option<BodyTooLong>,
}

impl Decoder {
    /// A decoder for a new connection whose bodies have at most `max_body` bytes.
    #[must_use]
    pub fn new(max_body: u32) -> Self {
        Self { max_body, buffer: BytesMut::new(), failed: None }
    }

    /// Bodies may have so many bytes from the next frame on.
    pub fn set_max_body(&mut self, max_body: u32) {
        self.max_body = max_body;
    }

    /// Takes the next bytes of the peer. Bytes behind an error are dropped.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Takes the next frame, if one has come whole. Frames of unknown kinds are given too.
    ///
    /// # Errors
    ///
    /// A header announces too long a body. The error is final, and known before the body is waited for.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, BodyTooLong> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let Some(Header { kind, id, body_bytes }) = Header::parse(&self.buffer) else { return Ok(None) };
        if body_bytes > self.max_body {
            return Err(self.fail(BodyTooLong { bytes: body_bytes, max: self.max_body }));
        }
        // Saturated only where the address space is smaller than the limit: then the frame never comes whole.
        let body_bytes = usize::try_from(body_bytes).unwrap_or(usize::MAX);
        if self.buffer.len().saturating_sub(HEADER_BYTES) < body_bytes {
            return Ok(None);
        }
        self.buffer.advance(HEADER_BYTES);
        let body = self.buffer.split_to(body_bytes).freeze();
        if self.buffer.is_empty() && self.buffer.capacity() > IDLE_BYTES {
            self.buffer = BytesMut::new();
        }
        Ok(Some(Frame { kind, id, body }))
    }

    /// Bytes that have come and were not taken as frames.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn fail(&mut self, error: BodyTooLong) -> BodyTooLong {
        self.failed = Some(error);
        self.buffer = BytesMut::new();
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER_OF_64_MIB: [u8; 7] = [1, 0, 0, 0, 0, 0, 4];

    #[test]
    fn a_body_that_does_not_come_takes_no_memory() {
        let mut decoder = Decoder::new(64 * 1024 * 1024);
        decoder.feed(&HEADER_OF_64_MIB);
        decoder.feed(&[7; 10]);
        assert_eq!(decoder.next_frame(), Ok(None));
        assert!(decoder.buffer.capacity() < 256, "{} bytes", decoder.buffer.capacity());
        for _ in 0..1000 {
            decoder.feed(&[7; 100]);
            assert_eq!(decoder.next_frame(), Ok(None));
        }
        let (held, came) = (decoder.buffer.capacity(), decoder.buffered());
        assert!(came == 100_017 && held <= 2 * came, "{held} bytes are held for {came}");
    }

    #[test]
    fn a_body_above_the_limit_is_an_error_before_any_of_the_body_has_come() {
        let mut decoder = Decoder::new(64 * 1024 * 1024 - 1);
        let error = BodyTooLong { bytes: 64 * 1024 * 1024, max: 64 * 1024 * 1024 - 1 };
        decoder.feed(&HEADER_OF_64_MIB[..6]);
        assert_eq!(decoder.next_frame(), Ok(None));
        decoder.feed(&HEADER_OF_64_MIB[6..]);
        assert_eq!(decoder.next_frame(), Err(error));
        decoder.feed(&[4, 0, 0, 0, 0, 0, 0]);
        assert_eq!((decoder.next_frame(), decoder.buffered(), decoder.buffer.capacity()), (Err(error), 0, 0));
    }

    #[test]
    fn a_decoder_that_was_fed_much_and_is_empty_holds_little() {
        let mut decoder = Decoder::new(1024 * 1024);
        decoder.feed(&[1, 0, 0, 0, 0, 16, 0]);
        // In pieces, so that the buffer has grown further than it had to.
        vec![7; 1024 * 1024].chunks(1000).for_each(|piece| decoder.feed(piece));
        assert!(decoder.buffer.capacity() > 1024 * 1024 + IDLE_BYTES + HEADER_BYTES);
        assert_eq!(decoder.next_frame().unwrap().unwrap().body.len(), 1024 * 1024);
        assert!(decoder.buffered() == 0 && decoder.buffer.capacity() <= IDLE_BYTES);
    }
}
