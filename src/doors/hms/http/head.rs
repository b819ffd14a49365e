//! The head of a request.

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use crate::bus::security::credentials::bearer::AUTHORIZATION_BYTES_MAX;
use crate::bus::security::credentials::secret::Secret;
use crate::net::framed_body::Framing;

/// Longest head, in bytes.
const HEAD_BYTES_MAX: usize = 32 * 1024;
/// Most headers.
const HEADERS_MAX: usize = 64;

/// The head of a request.
#[derive(Debug)]
pub(in crate::doors::hms) struct Head {
    pub(in crate::doors::hms) method: String,
    pub(super) target: String,
    /// The value of the header `Authorization`.
    pub(in crate::doors::hms) authorization: Option<Secret>,
    pub(super) framing: Framing,
    /// Whether the client waits to be told to send the body.
    pub(super) expects_continue: bool,
}

/// Why a head cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::doors::hms) enum HeadError {
    /// The connection ended before.
    #[error("the request ended within its head")]
    Ended,
    /// The head is too long.
    #[error("the head of a request has at most {HEAD_BYTES_MAX} bytes and {HEADERS_MAX} headers")]
    TooLong,
    /// The head is no HTTP.
    #[error("no request of HTTP: {0}")]
    Malformed(String),
}

impl HeadError {
    /// The status of the answer.
    pub(super) const fn status(&self) -> u16 {
        match self {
            Self::TooLong => 431,
            Self::Ended | Self::Malformed(_) => 400,
        }
    }
}

/// Reads a head. What came behind it stays in `read`.
pub(in crate::doors::hms) async fn read<S: AsyncRead + Unpin>(
    stream: &mut S,
    read: &mut BytesMut,
) -> Result<Head, HeadError> {
    loop {
        if let Some((head, length)) = parse(read)? {
            read.advance(length);
            return Ok(head);
        }
        if read.len() >= HEAD_BYTES_MAX {
            return Err(HeadError::TooLong);
        }
        match stream.read_buf(read).await {
            Ok(count) if count > 0 => {}
            _ => return Err(HeadError::Ended),
        }
    }
}

/// A head and its length, if it has come whole.
fn parse(bytes: &[u8]) -> Result<Option<(Head, usize)>, HeadError> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let length = match request.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HeadError::TooLong),
        Err(error) => return Err(HeadError::Malformed(error.to_string())),
    };
    let mut head = Head {
        method: request.method.unwrap_or_default().to_owned(),
        target: request.path.unwrap_or_default().to_owned(),
        authorization: None,
        framing: Framing::Length(0),
        expects_continue: false,
    };
    let mut framings = 0_u32;
    for header in request.headers.iter() {
        let value = header.value.trim_ascii();
        if header.name.eq_ignore_ascii_case("authorization") {
            let text = str::from_utf8(value).ok().filter(|text| text.len() <= AUTHORIZATION_BYTES_MAX);
            // What cannot be one is a wrong credential, and not none.
            head.authorization = Some(Secret::new(text.unwrap_or("?").to_owned()));
        } else if header.name.eq_ignore_ascii_case("content-length") {
            framings = framings.saturating_add(1);
            let digits = str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
            let length = digits.and_then(|text| text.parse().ok());
            head.framing = Framing::Length(length.ok_or_else(|| malformed("content-length is no number"))?);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            framings = framings.saturating_add(1);
            if !value.eq_ignore_ascii_case(b"chunked") {
                return Err(malformed("transfer-encoding can be chunked alone"));
            }
            head.framing = Framing::Chunked;
        } else if header.name.eq_ignore_ascii_case("expect") {
            head.expects_continue = value.eq_ignore_ascii_case(b"100-continue");
        }
    }
    if framings > 1 {
        return Err(malformed("the length of the body is said twice"));
    }
    Ok(Some((head, length)))
}

fn malformed(text: &str) -> HeadError {
    HeadError::Malformed(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Option<(Head, usize)>, HeadError> {
        parse(text.as_bytes())
    }

    #[test]
    fn the_heads_of_stock_clients_are_read() {
        let (connect, length) =
            head("CONNECT / HTTP/1.1\r\norigin: dock1\r\nHost: h:1\r\nConnection: keep-alive\r\n\r\n\0")
                .unwrap()
                .unwrap();
        assert_eq!((connect.method.as_str(), connect.target.as_str(), length), ("CONNECT", "/", 72));
        let (put, _) =
            head("PUT /app?revision=r1 HTTP/1.1\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer x\r\n\r\n")
                .unwrap()
                .unwrap();
        assert_eq!((put.target.as_str(), put.framing), ("/app?revision=r1", Framing::Chunked));
        assert_eq!(put.authorization.unwrap().expose(), "Bearer x");
    }

    #[test]
    fn a_body_has_one_length() {
        for wrong in [
            "Content-Length: 1\r\nContent-Length: 1",
            "Content-Length: 1\r\nTransfer-Encoding: chunked",
            "Content-Length: -1",
            "Content-Length: +1",
            "Content-Length: ",
            "Transfer-Encoding: gzip, chunked",
        ] {
            let error = head(&format!("PUT /a HTTP/1.1\r\n{wrong}\r\n\r\n")).unwrap_err();
            assert_eq!(error.status(), 400, "{wrong}");
        }
    }

    #[tokio::test]
    async fn a_head_without_an_end_is_bounded() {
        let mut endless = tokio::io::repeat(b'a');
        let mut bytes = BytesMut::from(&b"GET / HTTP/1.1\r\nx: "[..]);
        let error = read(&mut endless, &mut bytes).await.unwrap_err();
        assert_eq!((error, bytes.len() < 2 * HEAD_BYTES_MAX), (HeadError::TooLong, true));
    }
}
