//! A keep-alive HTTP/1.1 client with one request in flight and reused buffers.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use memchr::memmem;
use reqwest::Url;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

use super::chunk::ChunkDecoder;
use super::stream::{Stream, Tls};
use crate::app::cli::access::resolve::Access;
use crate::app::cli::access::secret::Secret;

/// Longest head of a response.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// How long a server may take to answer outside the measured load.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// Where requests go, and what they present there.
#[derive(Clone)]
pub(in crate::app::bench) struct Target {
    /// Resolved address.
    pub(in crate::app::bench) addr: SocketAddr,
    /// Value of the `Host` header.
    pub(in crate::app::bench) host: String,
    /// The line of the header `Authorization`, or nothing.
    authorization: String,
    /// Set for `https`.
    tls: Option<Tls>,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Target").field("addr", &self.addr).field("tls", &self.tls.is_some()).finish_non_exhaustive()
    }
}

impl Target {
    /// A server in clear text that asks nobody who he is.
    #[cfg(test)]
    pub(in crate::app::bench) fn plain(addr: SocketAddr) -> Self {
        Self { addr, host: addr.to_string(), authorization: String::new(), tls: None }
    }

    /// Resolves the host of `url`, whose path is ignored. Token, CA and client certificate are those of `access`.
    pub(in crate::app::bench) async fn resolve(url: &Url, access: &Access) -> Result<Self> {
        let name = url.host_str().unwrap_or_default();
        let bare = name.trim_matches(['[', ']']);
        let port = url.port_or_known_default().with_context(|| format!("{url} has no port"))?;
        let mut found = lookup_host((bare, port)).await.with_context(|| format!("cannot resolve `{name}`"))?;
        let addr = found.next().with_context(|| format!("`{name}` has no address"))?;
        let tls = match url.scheme() {
            "https" => {
                let name = ServerName::try_from(bare.to_owned()).with_context(|| format!("`{name}` is no host"))?;
                Some(Tls { config: Arc::new(access.tls.config()?), name })
            }
            _ => None,
        };
        let line = |value: Secret| format!("Authorization: {}\r\n", value.reveal());
        let authorization = access.authorization(url)?.map_or_else(String::new, line);
        let host = url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"));
        Ok(Self { addr, host, authorization, tls })
    }

    /// The bytes of a GET request.
    pub(in crate::app::bench) fn get(&self, path: &str, accept: &str) -> Vec<u8> {
        let Self { host, authorization, .. } = self;
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Accept: {accept}\r\n\r\n").into_bytes()
    }

    /// The head of a POST request to `/` with a JSON body of `length` bytes.
    pub(in crate::app::bench) fn post_head(&self, length: usize) -> String {
        self.head("POST", "/", length)
    }

    /// The head of a request with a JSON body of `length` bytes.
    pub(in crate::app::bench) fn head(&self, method: &str, path: &str, length: usize) -> String {
        let Self { host, authorization, .. } = self;
        format!(
            "{method} {path} HTTP/1.1\r\nHost: {host}\r\n{authorization}Content-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n"
        )
    }

    /// A connected socket with small writes sent at once, without TLS.
    pub(in crate::app::bench) async fn socket(&self) -> Result<TcpStream> {
        let stream = TcpStream::connect(self.addr).await.with_context(|| {
            format!(
                "cannot connect to {}: is the server running, and `ulimit -n` above the number of connections?",
                self.addr
            )
        })?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// How TLS connections are made, if the server speaks TLS.
    pub(in crate::app::bench) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// A connection that is ready for requests.
    pub(in crate::app::bench) async fn connect(&self) -> Result<Stream> {
        let socket = self.socket().await?;
        Ok(match &self.tls {
            Some(tls) => Stream::Tls(Box::new(tls.handshake(socket).await?)),
            None => Stream::Plain(socket),
        })
    }
}

/// How a response body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app::bench) enum Body {
    /// After this many bytes.
    Sized(usize),
    /// After the last chunk.
    Chunked,
    /// When the server closes.
    UntilClose,
}

/// The needed parts of a response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::app::bench) struct Head {
    /// Status code.
    pub(in crate::app::bench) status: u16,
    /// Bytes of the head, including the blank line.
    pub(in crate::app::bench) length: usize,
    /// Framing of the body.
    pub(in crate::app::bench) body: Body,
}

/// Parses a response head. `None` means that more bytes are needed.
pub(in crate::app::bench) fn parse_head(input: &[u8]) -> Result<Option<Head>> {
    let Some(end) = memmem::find(input, b"\r\n\r\n") else {
        if input.len() > HEAD_BYTES_MAX {
            bail!("response head longer than {HEAD_BYTES_MAX} bytes");
        }
        return Ok(None);
    };
    let head = input.get(..end).unwrap_or_default();
    let status = head
        .strip_prefix(b"HTTP/1.1 ")
        .and_then(|rest| rest.get(..3))
        .and_then(digits)
        .and_then(|n| u16::try_from(n).ok());
    let Some(status) = status else {
        bail!("not an HTTP/1.1 response: {}", String::from_utf8_lossy(head.get(..32).unwrap_or(head)));
    };
    let body = if matches!(status, 204 | 304) {
        Body::Sized(0)
    } else if let Some(length) = header(head, b"content-length") {
        Body::Sized(digits(length).context("malformed Content-Length")?)
    } else if header(head, b"transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case(b"chunked")) {
        Body::Chunked
    } else {
        Body::UntilClose
    };
    Ok(Some(Head { status, length: end + 4, body }))
}

/// The value of a header of a response head, without surrounding blanks.
pub(in crate::app::bench) fn header<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|&b| b == b'\n').skip(1).find_map(|line| {
        let (field, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        field.eq_ignore_ascii_case(name).then(|| value.trim_ascii())
    })
}

fn digits(text: &[u8]) -> Option<usize> {
    if text.is_empty() || text.len() > 15 {
        return None;
    }
    text.iter().try_fold(0, |n: usize, &b| b.is_ascii_digit().then(|| n * 10 + usize::from(b - b'0')))
}

/// One response.
#[derive(Debug)]
pub(in crate::app::bench) struct Reply<'a> {
    /// Status code.
    pub(in crate::app::bench) status: u16,
    head: &'a [u8],
    /// The body without its framing.
    pub(in crate::app::bench) body: Cow<'a, [u8]>,
}

impl Reply<'_> {
    /// The value of a header, if it is there and is text.
    pub(in crate::app::bench) fn header(&self, name: &str) -> Option<String> {
        let value = header(self.head, name.as_bytes())?;
        String::from_utf8(value.to_vec()).ok()
    }

    /// Status and first line of the body, for an error message.
    pub(in crate::app::bench) fn describe(&self) -> String {
        let text = String::from_utf8_lossy(&self.body);
        format!("HTTP {}: {}", self.status, text.lines().next().unwrap_or_default())
    }
}

/// A keep-alive connection.
#[derive(Debug)]
pub(in crate::app::bench) struct Connection {
    stream: Stream,
    buffer: Vec<u8>,
    /// Bytes at the front of `buffer` that belong to the last reply.
    used: usize,
}

impl Connection {
    /// Connects to the server.
    pub(in crate::app::bench) async fn open(target: &Target) -> Result<Self> {
        Ok(Self { stream: target.connect().await?, buffer: Vec::with_capacity(4096), used: 0 })
    }

    /// Like [`Connection::exchange`], but gives up on a server that does not answer in 30 s.
    pub(in crate::app::bench) async fn ask(&mut self, request: &[u8]) -> Result<Reply<'_>> {
        timeout(ANSWER_TIMEOUT, self.exchange(request)).await.context("no answer in 30 s")?
    }

    /// Sends one request and waits for its whole response, without the cost of a timer.
    pub(in crate::app::bench) async fn exchange(&mut self, request: &[u8]) -> Result<Reply<'_>> {
        self.discard_last();
        self.stream.send(request).await?;
        let head = loop {
            if let Some(head) = parse_head(&self.buffer)? {
                break head;
            }
            self.fill().await?;
        };
        let body = match head.body {
            Body::Sized(length) => {
                self.used = head.length + length;
                while self.buffer.len() < self.used {
                    self.fill().await?;
                }
                Cow::Borrowed(self.buffer.get(head.length..self.used).unwrap_or_default())
            }
            Body::Chunked => Cow::Owned(self.chunked_body(head.length).await?),
            Body::UntilClose => bail!("response without a length on a keep-alive connection"),
        };
        let bytes = self.buffer.get(..head.length).unwrap_or_default();
        Ok(Reply { status: head.status, head: bytes, body })
    }

    async fn chunked_body(&mut self, start: usize) -> Result<Vec<u8>> {
        let (mut decoder, mut body) = (ChunkDecoder::default(), Vec::new());
        self.used = start;
        loop {
            let taken = decoder.decode(self.buffer.get(self.used..).unwrap_or_default(), &mut body)?;
            self.used += taken;
            if decoder.is_done() {
                return Ok(body);
            }
            self.fill().await?;
        }
    }

    fn discard_last(&mut self) {
        if self.used >= self.buffer.len() {
            self.buffer.clear();
        } else {
            self.buffer.drain(..self.used);
        }
        self.used = 0;
    }

    async fn fill(&mut self) -> Result<()> {
        if self.stream.receive(&mut self.buffer).await? == 0 {
            bail!("the server closed the connection");
        }
        Ok(())
    }
}

/// Percent-encodes a query value.
pub(in crate::app::bench) fn encode(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[u8] = b"HTTP/1.1 202 Accepted\r\ncontent-length: 5\r\nX-BUS-EVENT-ID: e_1 \r\n\r\nhello";

    #[test]
    fn a_head_cut_at_every_byte_waits_for_more() {
        let whole = parse_head(ACCEPTED).unwrap().unwrap();
        assert_eq!((whole.status, whole.body), (202, Body::Sized(5)));
        for cut in 0..ACCEPTED.len() {
            let expected = (cut >= whole.length).then_some(whole);
            assert_eq!(parse_head(ACCEPTED.get(..cut).unwrap()).unwrap(), expected, "{cut}");
        }
        let head = ACCEPTED.get(..whole.length).unwrap();
        assert_eq!(header(head, b"x-bus-event-id"), Some(&b"e_1"[..]));
        assert_eq!(header(head, b"x-bus-event"), None);
    }

    #[test]
    fn body_framing_follows_the_head() {
        let body = |head: &str| parse_head(head.as_bytes()).unwrap().unwrap().body;
        assert_eq!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"), Body::Chunked);
        assert_eq!(body("HTTP/1.1 204 No Content\r\n\r\n"), Body::Sized(0));
        assert_eq!(body("HTTP/1.1 200 OK\r\n\r\n"), Body::UntilClose);
    }

    #[test]
    fn malformed_heads_are_refused() {
        for bad in [
            "HTTP/1.1 abc\r\n\r\n",
            "SSH-2.0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        ] {
            assert!(parse_head(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(parse_head(&vec![b'a'; HEAD_BYTES_MAX + 1]).is_err());
    }

    #[test]
    fn query_values_are_encoded() {
        assert_eq!(encode("a.b-c_>*"), "a.b-c_%3E%2A");
    }
}
