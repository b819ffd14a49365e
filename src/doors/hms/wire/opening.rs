//! How a connection begins: with frames, or with HTTP on the same port.

/// What the first byte of a connection tells about the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Frames of hms-protocol follow from this byte on.
    Raw,
    /// An HTTP request follows: a CONNECT after which there are frames, an upload, or a download.
    Http,
    /// Neither a client nor a dock starts with this byte. The connection must be closed.
    Foreign,
}

impl Opening {
    /// What a connection is whose first byte is `first`. TLS starts with 0x16, and is foreign.
    #[must_use]
    pub fn of(first: u8) -> Self {
        match first {
            0..=4 => Self::Raw,
            b'A'..=b'Z' => Self::Http,
            _ => Self::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_port_tells_frames_from_http_by_the_first_byte() {
        let of = |kind: Opening| (0..=u8::MAX).filter(|byte| Opening::of(*byte) == kind).collect::<Vec<_>>();
        assert_eq!(of(Opening::Raw), [0, 1, 2, 3, 4]);
        assert_eq!(of(Opening::Http), (b'A'..=b'Z').collect::<Vec<_>>());
        assert_eq!(of(Opening::Foreign).len(), 256 - 5 - 26);
    }
}
