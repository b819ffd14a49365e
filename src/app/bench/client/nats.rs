//! A connection of NATS by hand: what is written is gathered, what came is taken as it is.

use anyhow::{Context as _, Result, bail, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// Receive buffer of a connection.
const BUFFER_BYTES: usize = 256 * 1024;

/// A message that came.
#[derive(Debug)]
pub(in crate::app::bench) struct Message {
    /// The subject.
    pub(in crate::app::bench) subject: Bytes,
    /// Where an answer goes; empty when none is wanted.
    pub(in crate::app::bench) reply: Bytes,
    /// The payload.
    pub(in crate::app::bench) payload: Bytes,
}

/// What a client says, gathered until it is flushed.
#[derive(Debug)]
pub(in crate::app::bench) struct Writer {
    socket: OwnedWriteHalf,
    waiting: Vec<u8>,
}

/// What a server says.
#[derive(Debug)]
pub(in crate::app::bench) struct Reader {
    socket: OwnedReadHalf,
    read: BytesMut,
}

/// Connects without TLS and without a credential.
///
/// # Errors
/// Nobody is there, or the server wants to know who it is.
pub(in crate::app::bench) async fn connect(address: &str) -> Result<(Reader, Writer)> {
    let socket = TcpStream::connect(address).await.with_context(|| format!("cannot connect to {address}"))?;
    socket.set_nodelay(true)?;
    let (read, write) = socket.into_split();
    let mut reader = Reader { socket: read, read: BytesMut::with_capacity(BUFFER_BYTES) };
    let mut writer = Writer { socket: write, waiting: Vec::new() };
    writer.say(b"CONNECT {\"verbose\":false,\"pedantic\":false,\"name\":\"bench@3.0\",\"protocol\":0}\r\nPING\r\n");
    writer.flush().await?;
    loop {
        match reader.line().await? {
            line if line.as_ref() == b"PONG" => return Ok((reader, writer)),
            line if line.starts_with(b"-ERR") => bail!("{address}: {}", String::from_utf8_lossy(&line)),
            _ => {}
        }
    }
}

impl Writer {
    fn say(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// Subscribes.
    pub(in crate::app::bench) fn subscribe(&mut self, filter: &str, name: &str) {
        self.say(format!("SUB {filter} {name}\r\n").as_bytes());
    }

    /// Publishes.
    pub(in crate::app::bench) fn publish(&mut self, subject: &[u8], reply: &[u8], payload: &[u8]) {
        self.say(b"PUB ");
        self.say(subject);
        self.say(b" ");
        if !reply.is_empty() {
            self.say(reply);
            self.say(b" ");
        }
        self.say(payload.len().to_string().as_bytes());
        self.say(b"\r\n");
        self.say(payload);
        self.say(b"\r\n");
    }

    /// Writes everything.
    ///
    /// # Errors
    /// The connection has ended.
    pub(in crate::app::bench) async fn flush(&mut self) -> Result<()> {
        if !self.waiting.is_empty() {
            self.socket.write_all(&self.waiting).await?;
            self.waiting.clear();
        }
        Ok(())
    }
}

impl Reader {
    async fn line(&mut self) -> Result<Bytes> {
        loop {
            if let Some(line) = self.buffered_line() {
                return Ok(line);
            }
            self.fill().await?;
        }
    }

    fn buffered_line(&mut self) -> Option<Bytes> {
        let end = memchr::memmem::find(&self.read, b"\r\n")?;
        let line = self.read.split_to(end).freeze();
        self.read.advance(2);
        Some(line)
    }

    async fn fill(&mut self) -> Result<()> {
        self.read.reserve(BUFFER_BYTES / 2);
        ensure!(self.socket.read_buf(&mut self.read).await? > 0, "the server closed the connection");
        Ok(())
    }

    /// Waits until something came, and takes all whole messages. `PING` is answered.
    ///
    /// # Errors
    /// The connection has ended, or the server says an error.
    pub(in crate::app::bench) async fn messages(&mut self, writer: &mut Writer) -> Result<Vec<Message>> {
        loop {
            let mut found = Vec::new();
            while let Some(message) = self.buffered(writer)? {
                found.push(message);
            }
            if !found.is_empty() {
                return Ok(found);
            }
            writer.flush().await?;
            self.fill().await?;
        }
    }

    fn buffered(&mut self, writer: &mut Writer) -> Result<Option<Message>> {
        loop {
            let Some(end) = memchr::memmem::find(&self.read, b"\r\n") else { return Ok(None) };
            let line = self.read.get(..end).unwrap_or_default();
            if !line.starts_with(b"MSG ") {
                let line = self.buffered_line().unwrap_or_default();
                match line.as_ref() {
                    b"PING" => writer.say(b"PONG\r\n"),
                    line if line.starts_with(b"-ERR") => bail!("{}", String::from_utf8_lossy(line)),
                    _ => {}
                }
                continue;
            }
            let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
            let size = words.last().and_then(|size| std::str::from_utf8(size).ok()?.parse::<usize>().ok());
            let size = size.context("a message without a size")?;
            let total = end.saturating_add(size).saturating_add(4);
            if self.read.len() < total {
                return Ok(None);
            }
            let word = |at: usize| words.get(at).map_or_else(Bytes::new, |word| Bytes::copy_from_slice(word));
            let (subject, reply) = (word(1), if words.len() == 5 { word(3) } else { Bytes::new() });
            let mut message = self.read.split_to(total);
            message.advance(end.saturating_add(2));
            message.truncate(size);
            return Ok(Some(Message { subject, reply, payload: message.freeze() }));
        }
    }
}
