//! A connection of NATS whose payloads are bytes, and whose end is an answer and no panic.

use std::io::{Error, ErrorKind, Read as _, Result, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::{Buf as _, BytesMut};

/// Longest wait for a connection and its first answer.
const CONNECTED: Duration = Duration::from_secs(5);

/// A message that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Delivery {
    pub(super) subject: String,
    /// The subscription.
    pub(super) sid: String,
    /// Empty when no reply is wanted.
    pub(super) reply: String,
    pub(super) payload: Vec<u8>,
}

/// A connection.
pub(super) struct Wire {
    socket: TcpStream,
    read: BytesMut,
    /// What is written with the next flush.
    written: Vec<u8>,
}

impl Wire {
    /// Connects; everything is ready when this returns.
    ///
    /// # Errors
    /// Nobody is there, or closes.
    pub(super) fn connect(address: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&address, CONNECTED)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(CONNECTED))?;
        let mut wire = Self { socket, read: BytesMut::new(), written: Vec::new() };
        wire.say(r#"CONNECT {"verbose":false,"pedantic":false,"name":"test@3.0","headers":false,"protocol":0}"#);
        wire.say("PING");
        wire.flush()?;
        let until = Instant::now() + CONNECTED;
        loop {
            match wire.line()? {
                Some(line) if line == "PONG" => return Ok(wire),
                Some(line) if line.starts_with("-ERR") => return Err(Error::other(line)),
                Some(_) => {}
                None if !wire.fill(until)? => return Err(ErrorKind::TimedOut.into()),
                None => {}
            }
        }
    }

    fn say(&mut self, line: &str) {
        self.written.extend_from_slice(line.as_bytes());
        self.written.extend_from_slice(b"\r\n");
    }

    pub(super) fn subscribe(&mut self, filter: &str, sid: &str) {
        self.say(&format!("SUB {filter} {sid}"));
    }

    pub(super) fn unsubscribe(&mut self, sid: &str) {
        self.say(&format!("UNSUB {sid}"));
    }

    /// Publishes with the next flush.
    pub(super) fn publish(&mut self, subject: &str, reply: &str, payload: &[u8]) {
        let reply = if reply.is_empty() { String::new() } else { format!("{reply} ") };
        self.say(&format!("PUB {subject} {reply}{}", payload.len()));
        self.written.extend_from_slice(payload);
        self.written.extend_from_slice(b"\r\n");
    }

    /// Writes what waits.
    ///
    /// # Errors
    /// The connection has ended.
    pub(super) fn flush(&mut self) -> Result<()> {
        let written = std::mem::take(&mut self.written);
        self.socket.write_all(&written)
    }

    /// The next message, or `None` when none came in time. What waits to be written is written first.
    ///
    /// # Errors
    /// The connection has ended, or the server says that something is wrong.
    pub(super) fn next(&mut self, wait: Duration) -> Result<Option<Delivery>> {
        let until = Instant::now() + wait;
        loop {
            self.flush()?;
            if let Some(delivery) = self.buffered()? {
                return Ok(Some(delivery));
            }
            if self.written.is_empty() && !self.fill(until)? {
                return Ok(None);
            }
        }
    }

    /// The next message that has come already.
    ///
    /// # Errors
    /// As [`Wire::next`].
    pub(super) fn buffered(&mut self) -> Result<Option<Delivery>> {
        loop {
            let Some(end) = memchr::memmem::find(&self.read, b"\r\n") else { return Ok(None) };
            let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
            let Some(rest) = line.strip_prefix("MSG ") else {
                self.read.advance(end + 2);
                match &*line {
                    "PING" => self.say("PONG"),
                    _ if line.starts_with("-ERR") => return Err(Error::other(line)),
                    _ => {}
                }
                if line == "PING" {
                    return Ok(None);
                }
                continue;
            };
            let words: Vec<&str> = rest.split(' ').collect();
            let size: usize = words[words.len() - 1].parse().map_err(|_| Error::other(line.clone()))?;
            if self.read.len() < end + 2 + size + 2 {
                return Ok(None);
            }
            let reply = if words.len() == 4 { words[2] } else { "" };
            let payload = self.read[end + 2..end + 2 + size].to_vec();
            self.read.advance(end + 2 + size + 2);
            let (subject, sid, reply) = (words[0].to_owned(), words[1].to_owned(), reply.to_owned());
            return Ok(Some(Delivery { subject, sid, reply, payload }));
        }
    }

    fn line(&mut self) -> Result<Option<String>> {
        let Some(end) = memchr::memmem::find(&self.read, b"\r\n") else { return Ok(None) };
        let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.advance(end + 2);
        Ok(Some(line))
    }

    /// Reads some bytes; `false` when none came in time.
    fn fill(&mut self, until: Instant) -> Result<bool> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        self.socket.set_read_timeout(Some(left))?;
        let mut buffer = [0; 64 * 1024];
        match self.socket.read(&mut buffer) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.read.extend_from_slice(&buffer[..count]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
