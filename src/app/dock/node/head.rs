//! The head of an HTTP answer.

use std::io;

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::net::framed_body::Framing;

/// Most bytes of a head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// What the head of an answer says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status.
    pub(crate) status: u16,
    /// How the body ends.
    pub(crate) framing: Framing,
}

/// Reads a head. Gives what came behind the head too.
///
/// # Errors
///
/// The connection ends before the head does, or the bytes are no head.
pub(crate) async fn read_head(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<(Head, BytesMut)> {
    let mut bytes = BytesMut::with_capacity(1024);
    loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = bytes.split_to(end.saturating_add(4));
            let head = parse(&String::from_utf8_lossy(&head))
                .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the node does not answer in HTTP"))?;
            return Ok((head, bytes));
        }
        if bytes.len() > HEAD_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the head of the answer is too long"));
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the node closed the connection (socket hang up)",
            ));
        }
    }
}

fn parse(text: &str) -> Option<Head> {
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = words.next()?.parse().ok()?;
    let mut head = Head { status, framing: Framing::UntilEnd };
    let mut chunked = false;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = value.to_ascii_lowercase().ends_with("chunked");
        } else if name.eq_ignore_ascii_case("content-length") {
            head.framing = Framing::Length(value.parse().ok()?);
        }
    }
    if chunked {
        head.framing = Framing::Chunked;
    }
    Some(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_head_ends_at_the_blank_line_and_the_rest_is_kept() {
        let mut bytes: &[u8] = b"HTTP/1.1 101 Swiching Protocols\r\nUpgrade: hms-protocol\r\n\r\nrest";
        let (head, rest) = read_head(&mut bytes).await.unwrap();
        assert_eq!((head.status, head.framing), (101, Framing::UntilEnd));
        assert_eq!(rest, "rest");
        let mut bytes: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\ncontent-length: 7\r\n\r\n";
        let (head, _) = read_head(&mut bytes).await.unwrap();
        assert_eq!((head.status, head.framing), (200, Framing::Chunked));
    }

    #[tokio::test]
    async fn what_is_no_head_is_refused() {
        let long = vec![b'x'; 20_000];
        for mut bytes in [b"".as_slice(), b"HTTP/1.1 200", b"SSH-2.0\r\n\r\n", b"HTTP/1.1 x\r\n\r\n", &long] {
            assert!(read_head(&mut bytes).await.is_err());
        }
    }
}
