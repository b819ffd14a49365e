//! Answers of HTTP: whole, or in chunks with a status behind them.

use std::io;
use std::time::Duration;

use actix_web::http::StatusCode;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// How long the other end may take to read one piece.
const WRITE_MAX: Duration = Duration::from_secs(60);

/// Writes one piece. A client that does not read holds nothing for longer than the bound.
pub(super) async fn write<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &[u8]) -> io::Result<()> {
    let written = async {
        stream.write_all(bytes).await?;
        stream.flush().await
    };
    tokio::time::timeout(WRITE_MAX, written).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Says that nothing more follows.
pub(super) async fn end<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    let ended = tokio::time::timeout(WRITE_MAX, stream.shutdown()).await;
    ended.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// An answer whose body is a text.
#[derive(Debug)]
pub(super) struct TextAnswer {
    status: u16,
    text: String,
    /// Whether a trailer says the status once more, as stock clients expect of an upload.
    trailer: bool,
}

fn reason(status: u16) -> &'static str {
    StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason()).unwrap_or("Unknown")
}

impl TextAnswer {
    pub(super) fn new(status: u16, text: impl Into<String>) -> Self {
        Self { status, text: text.into(), trailer: false }
    }

    /// The same answer as one to an upload.
    pub(super) fn with_trailer(self) -> Self {
        Self { trailer: true, ..self }
    }

    pub(super) async fn send<S: AsyncWrite + Unpin>(&self, stream: &mut S) -> io::Result<()> {
        if self.trailer {
            let mut chunks = Chunks::begin(stream, self.status, "text/plain; charset=utf-8").await?;
            chunks.send(self.text.as_bytes()).await?;
            return chunks.end(Some(self.status)).await;
        }
        let Self { status, text, .. } = self;
        let (reason, challenge) = (reason(*status), if *status == 401 { CHALLENGE } else { "" });
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n{challenge}Connection: close\r\n\r\n{text}",
            text.len()
        );
        write(stream, head.as_bytes()).await?;
        end(stream).await
    }
}

const CHALLENGE: &str = "WWW-Authenticate: Bearer realm=\"rollbook\"\r\n";

/// Nothing to say: there may be no trailer then, because the HTTP server of node refuses to send one, and so do others.
pub(super) async fn nothing<S: AsyncWrite + Unpin>(stream: &mut S) -> io::Result<()> {
    write(stream, b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await?;
    end(stream).await
}

/// An answer in chunks.
pub(super) struct Chunks<'s, S> {
    stream: &'s mut S,
}

impl<'s, S: AsyncWrite + Unpin> Chunks<'s, S> {
    /// Sends the head. The trailer `X-Status` is announced: [`Chunks::end`] says it.
    pub(super) async fn begin(stream: &'s mut S, status: u16, kind: &str) -> io::Result<Self> {
        let (reason, challenge) = (reason(status), if status == 401 { CHALLENGE } else { "" });
        let head = format!(
            "HTTP/1.1 {status} {reason}\r\nContent-Type: {kind}\r\nTrailer: X-Status\r\nTransfer-Encoding: chunked\r\n{challenge}Connection: close\r\n\r\n"
        );
        write(stream, head.as_bytes()).await?;
        Ok(Self { stream })
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        write(self.stream, &chunk).await
    }

    pub(super) async fn end(self, status: Option<u16>) -> io::Result<()> {
        let trailer = status.map(|status| format!("X-Status: {status}\r\n")).unwrap_or_default();
        write(self.stream, format!("0\r\n{trailer}\r\n").as_bytes()).await?;
        end(self.stream).await
    }
}
