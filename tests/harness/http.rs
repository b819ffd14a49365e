//! A raw HTTP/1.1 client, so that exact bytes can be sent and exact bytes seen.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;

/// Bound of one response.
pub(crate) const ANSWER: Duration = Duration::from_secs(20);

/// Value of `Access-Control-Allow-Headers` and, from the second name on, of
/// `Access-Control-Expose-Headers`.
pub(crate) const ALLOW_HEADERS: &str =
    "Content-Type, X-BUS-EVENT-ID, X-BUS-EVENT-CREATED-AT, X-BUS-EVENT-INDEX, X-BUS-CONSUMER-ID";

/// One connection, kept alive between requests.
pub(crate) struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Status line, headers and, unless it is a stream, the body.
#[derive(Clone, Debug, Default)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

/// What the three headers of an accepted publish say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Published {
    pub(crate) id: String,
    pub(crate) created_at: String,
    pub(crate) index: i64,
}

impl Http {
    /// Breaks the connection without a word, as a client that crashed.
    pub(crate) fn reset(self) {
        rustix::net::sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).expect("a socket");
    }

    pub(crate) fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::connect_within(address, ANSWER)
    }

    /// Connecting, and each read and write, takes at most that long.
    pub(crate) fn connect_within(address: SocketAddr, bound: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, bound)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(bound))?;
        stream.set_write_timeout(Some(bound))?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    /// The socket and the bytes read too far.
    pub(crate) fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.buffer)
    }

    pub(crate) fn set_read_timeout(&self, bound: Duration) {
        let set = self.stream.set_read_timeout(Some(bound));
        set.expect("set the read timeout");
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request with a `Content-Length` and reads the whole answer.
    pub(crate) fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.try_request(method, target, headers, body)
            .unwrap_or_else(|error| panic!("{method} {target}: no answer: {error}"))
    }

    pub(crate) fn try_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Response> {
        let mut bytes = head(method, target, headers);
        if !body.is_empty() || method == "POST" {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.send(&bytes)?;
        self.read_response(method == "HEAD")
    }

    pub(crate) fn post(&mut self, body: impl AsRef<[u8]>) -> Response {
        self.request("POST", "/", &[], body.as_ref())
    }

    /// Reads a response head and its body, if it can have one.
    pub(crate) fn read_response(&mut self, head_only: bool) -> io::Result<Response> {
        let mut response = self.read_head()?;
        if head_only || response.status == 204 || response.status == 304 {
            return Ok(response);
        }
        response.body = if response.has("transfer-encoding", "chunked") {
            self.read_chunked()?
        } else if let Some(length) = response.header("content-length") {
            let length = length.parse().map_err(io::Error::other)?;
            self.take(length)?
        } else {
            self.read_to_end()?
        };
        Ok(response)
    }

    /// Reads up to the blank line; a `100 Continue` before it is skipped.
    pub(crate) fn read_head(&mut self) -> io::Result<Response> {
        loop {
            let mut lines = Vec::new();
            loop {
                let line = self.read_line()?;
                if line.is_empty() {
                    break;
                }
                lines.push(line);
            }
            let response = parse_head(&lines)?;
            if response.status != 100 {
                return Ok(response);
            }
        }
    }

    fn read_chunked(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.read_line()?;
            let size = usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?;
            body.extend_from_slice(&self.take(size)?);
            self.read_line()?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn read_line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end)?;
                self.take(2)?;
                return String::from_utf8(line).map_err(io::Error::other);
            }
            self.fill()?;
        }
    }

    fn take(&mut self, length: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < length {
            self.fill()?;
        }
        Ok(self.buffer.drain(..length).collect())
    }

    fn read_to_end(&mut self) -> io::Result<Vec<u8>> {
        loop {
            match self.fill() {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                Err(error) => return Err(error),
            }
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut chunk = [0; 16 * 1024];
        // A machine that sleeps and wakes interrupts a read that has a timeout.
        let count = loop {
            match self.stream.read(&mut chunk) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result?,
            }
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.buffer.extend_from_slice(&chunk[..count]);
        Ok(())
    }
}

/// Request line and headers without the blank line.
pub(crate) fn head(method: &str, target: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.into_bytes()
}

fn parse_head(lines: &[String]) -> io::Result<Response> {
    let status = lines.first().and_then(|line| line.split(' ').nth(1));
    let status = status.and_then(|code| code.parse().ok());
    let headers = lines.iter().skip(1).filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    });
    Ok(Response {
        status: status.ok_or_else(|| io::Error::other(format!("no status in {lines:?}")))?,
        headers: headers.collect(),
        body: Vec::new(),
    })
}

impl Response {
    /// The first header of that name, in any case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter();
        let found = found.find(|(own, _)| own.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    fn has(&self, name: &str, value: &str) -> bool {
        let found = self.header(name);
        found.is_some_and(|own| own.eq_ignore_ascii_case(value))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("body is not JSON ({error}): {self:?}"))
    }

    /// The three headers of a publish that was accepted.
    pub(crate) fn published(&self) -> Published {
        assert_eq!(self.status, 202, "publish refused: {}", self.text());
        self.event()
    }

    /// The three headers of a publish that repeats one, and says so in this text.
    pub(crate) fn repeats(&self, text: &str) -> Published {
        self.refusal(409, text).unwrap_or_else(|problem| panic!("{problem}"));
        self.event()
    }

    fn event(&self) -> Published {
        let header = |name| {
            let value = self.header(name).map(str::to_owned);
            value.unwrap_or_else(|| panic!("{name} is missing: {self:?}"))
        };
        Published {
            id: header("x-bus-event-id"),
            created_at: header("x-bus-event-created-at"),
            index: header("x-bus-event-index").parse().expect("an int64 index"),
        }
    }

    /// What differs from a text/plain refusal with this status and text.
    pub(crate) fn refusal(&self, status: u16, text: &str) -> Result<(), String> {
        let own = self.text();
        // What follows helps people and is no part of the protocol.
        let known = own == format!("{text}\n") || own.starts_with(&format!("{text}; "));
        if self.status != status || !known {
            return Err(format!("want {status} {text:?}, got {} {:?}", self.status, self.text()));
        }
        self.refusal_headers()
    }

    /// What is missing of the headers that every refusal carries.
    pub(crate) fn refusal_headers(&self) -> Result<(), String> {
        self.want("content-type", "text/plain; charset=utf-8")?;
        self.want("x-content-type-options", "nosniff")?;
        self.cors()
    }

    /// What is missing of the CORS headers that every answer carries.
    pub(crate) fn cors(&self) -> Result<(), String> {
        self.want("access-control-allow-origin", "*")?;
        self.want("access-control-allow-methods", "GET, POST, PUT, OPTIONS")?;
        self.want("access-control-allow-headers", ALLOW_HEADERS)?;
        let exposed = ALLOW_HEADERS.strip_prefix("Content-Type, ").unwrap_or_default();
        let exposed = format!("{exposed}, X-BUS-DELAYED-ID, X-BUS-DELAYED-UNTIL");
        self.want("access-control-expose-headers", &exposed)
    }

    /// Exactly one header of that name, with exactly that value.
    pub(crate) fn want(&self, name: &str, value: &str) -> Result<(), String> {
        let found = self.headers.iter();
        let found = found.filter(|(own, _)| own.eq_ignore_ascii_case(name));
        let found: Vec<&str> = found.map(|(_, value)| value.as_str()).collect();
        if found == [value] {
            return Ok(());
        }
        Err(format!("status {}: header {name} is {found:?}, want {value:?}", self.status))
    }
}
