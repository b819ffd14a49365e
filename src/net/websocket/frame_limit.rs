//! A bound on the size that a WebSocket peer announces, checked before a byte of the payload is kept.
//!
//! The codec compares a frame with its limit only when the whole frame is in memory. This check follows the frame
//! headers and finds the frame, or the sum of fragments of one message, that announces too much. Pure.

/// Longest header: two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;
/// Longest control frame that RFC 6455 allows.
const CONTROL_MAX: u64 = 125;

/// Follows the frames of one direction.
#[derive(Debug)]
pub struct FrameLimit {
    /// Most bytes of one message.
    message_max: u64,
    /// The header that is being read.
    header: [u8; HEADER_MAX],
    /// Bytes of that header so far. Chunks may end inside a header.
    header_len: usize,
    /// Payload bytes until the next header.
    skip: u64,
    /// Bytes of the fragments of the present message.
    sum: u64,
}

impl FrameLimit {
    /// Permits messages of at most this many bytes.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        let message_max = u64::try_from(message_bytes_max).unwrap_or(u64::MAX);
        Self { message_max, header: [0; HEADER_MAX], header_len: 0, skip: 0, sum: 0 }
    }

    /// Follows a chunk.
    ///
    /// # Errors
    /// Too much is announced: so many bytes of the chunk are of frames before that one.
    pub fn pass(&mut self, whole: &[u8]) -> Result<(), usize> {
        let (mut chunk, mut good) = (whole, 0);
        while !chunk.is_empty() {
            if self.skip > 0 {
                let here = usize::try_from(self.skip).unwrap_or(usize::MAX).min(chunk.len());
                self.skip = self.skip.saturating_sub(u64::try_from(here).unwrap_or(0));
                chunk = chunk.get(here..).unwrap_or_default();
                if self.skip == 0 {
                    good = whole.len().saturating_sub(chunk.len());
                }
                continue;
            }
            let Some((byte, rest)) = chunk.split_first() else { break };
            chunk = rest;
            if let Some(slot) = self.header.get_mut(self.header_len) {
                *slot = *byte;
                self.header_len = self.header_len.saturating_add(1);
            }
            if self.header_len >= needed(&self.header, self.header_len) {
                if !self.announced() {
                    return Err(good);
                }
                if self.skip == 0 {
                    good = whole.len().saturating_sub(chunk.len());
                }
            }
        }
        Ok(())
    }

    /// Checks a complete header.
    fn announced(&mut self) -> bool {
        let [first, second, ..] = self.header;
        let length = match second & 0x7f {
            126 => u64::from(u16::from_be_bytes([self.header[2], self.header[3]])),
            127 => {
                let mut bytes = [0; 8];
                bytes.copy_from_slice(&self.header[2..10]);
                u64::from_be_bytes(bytes)
            }
            short => u64::from(short),
        };
        (self.header_len, self.skip) = (0, length);
        let (last, opcode) = (first & 0x80 != 0, first & 0x0f);
        if opcode >= 8 {
            return length <= CONTROL_MAX;
        }
        self.sum = if opcode == 0 { self.sum.saturating_add(length) } else { length };
        let fits = self.sum <= self.message_max;
        if last {
            self.sum = 0;
        }
        fits
    }
}

/// The length of the header, as far as its first bytes tell.
const fn needed(header: &[u8; HEADER_MAX], present: usize) -> usize {
    if present < 2 {
        return 2;
    }
    let length = match header[1] & 0x7f {
        126 => 2,
        127 => 8,
        _ => 0,
    };
    let mask = if header[1] & 0x80 == 0 { 0 } else { 4 };
    2 + length + mask
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A masked frame that announces `length` bytes, with `present` of them.
    fn frame(first: u8, length: u64, present: usize) -> Vec<u8> {
        let mut out = vec![first];
        match length {
            0..=125 => out.push(0x80 | u8::try_from(length).unwrap_or(0)),
            126..=65_535 => {
                out.push(0x80 | 126);
                out.extend(u16::try_from(length).unwrap_or(0).to_be_bytes());
            }
            _ => {
                out.push(0x80 | 127);
                out.extend(length.to_be_bytes());
            }
        }
        out.extend([1, 2, 3, 4]);
        out.extend(std::iter::repeat_n(7, present));
        out
    }

    #[test]
    fn what_is_announced_too_large_ends_the_stream_before_its_payload() {
        for length in [101, 1 << 20, 1 << 40, 1 << 63, u64::MAX] {
            let mut bytes = frame(0x82, 7, 7);
            let before = bytes.len();
            bytes.extend(frame(0x82, length, 0));
            let ends_at = (1..=bytes.len()).find(|end| FrameLimit::new(100).pass(&bytes[..*end]).is_err());
            assert_eq!(ends_at, Some(bytes.len()), "{length}: not before the header is whole");
            assert_eq!(FrameLimit::new(100).pass(&bytes), Err(before), "what came before is good");
        }
        assert_eq!(FrameLimit::new(100).pass(&frame(0x82, 100, 100)), Ok(()), "exactly at the limit");
    }

    #[test]
    fn headers_may_be_cut_anywhere_and_chunks_may_hold_many_frames() {
        let mut bytes = Vec::new();
        for length in [0, 1, 125, 126, 300] {
            bytes.extend(frame(0x81, length, usize::try_from(length).unwrap_or(0)));
        }
        bytes.extend(frame(0x81, 301, 0));
        for size in 1..bytes.len() {
            let mut limit = FrameLimit::new(300);
            let passed = bytes.chunks(size).all(|chunk| limit.pass(chunk).is_ok());
            assert!(!passed, "chunks of {size}");
        }
        let whole = &bytes[..bytes.len() - 8];
        for size in 1..whole.len() {
            let mut limit = FrameLimit::new(300);
            assert!(whole.chunks(size).all(|chunk| limit.pass(chunk).is_ok()), "chunks of {size}");
        }
    }

    #[test]
    fn fragments_count_together_and_control_frames_between_them_do_not() {
        let mut limit = FrameLimit::new(100);
        assert_eq!(limit.pass(&frame(0x01, 60, 60)), Ok(()));
        assert_eq!(limit.pass(&frame(0x89, 125, 125)), Ok(()), "a ping between fragments");
        assert_eq!(limit.pass(&frame(0x80, 40, 40)), Ok(()), "the last fragment, exactly at the limit");
        assert_eq!(limit.pass(&frame(0x01, 60, 60)), Ok(()));
        assert_eq!(limit.pass(&frame(0x00, 41, 0)), Err(0), "one over");
        assert_eq!(FrameLimit::new(1000).pass(&frame(0x89, 126, 0)), Err(0), "a control frame that is too long");
    }
}
