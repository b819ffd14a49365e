//! The opening of a connection: CONNECT, then the handshake.

use std::io;
use std::time::Duration;

use crate::doors::hms::wire::decoder::Decoder;
use crate::doors::hms::wire::frame::{BODY_BYTES_MAX, Frame, FrameKind};
use crate::doors::hms::wire::handshake::HandshakeReply;
use crate::doors::hms::wire::message::Message;
use crate::doors::hms::wire::op::Op;
use crate::doors::hms::wire::texts::VERSION;
use bytes::{Bytes, BytesMut};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

use super::super::config::Config;
use super::super::node::head::read_head;
use super::super::node::node_address::NodeAddress;
use super::super::node::node_stream::NodeStream;

/// Most frames that are kept for after the handshake.
const EARLY_FRAMES_MAX: usize = 1024;
/// Most bytes of the bodies of these frames, and of the answer to the handshake.
const EARLY_BYTES_MAX: u32 = 1024 * 1024;
/// Letters of what a node says that are shown in the log.
const SHOWN_LETTERS: usize = 200;
/// The id of the handshake, which is the first request of the connection.
const HANDSHAKE_ID: u16 = 0;

/// A connection on which the hub knows the dock.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) stream: NodeStream,
    pub(super) decoder: Decoder,
    /// What came before the answer to the handshake: stock hubs send subscriptions that early.
    pub(super) early: Vec<Frame>,
}

/// Opens a connection to `node`.
///
/// # Errors
///
/// The node cannot be reached, or refuses the dock.
pub(super) async fn open(config: &Config, node: &NodeAddress, hostname: &str) -> io::Result<Opened> {
    let longest = config.timing.connect_timeout;
    let mut stream = node.request("CONNECT", "/", "keep-alive").await?;
    let (head, rest) = in_time(longest, read_head(&mut stream)).await?;
    // Stock hubs answer 101 and a proxy may answer 200. What follows anything else is no frame.
    if !matches!(head.status, 101 | 200) {
        return Err(io::Error::other(format!("the node refuses the connection with status {}", head.status)));
    }
    let mut decoder = Decoder::new(EARLY_BYTES_MAX);
    decoder.feed(&rest);
    let mut opened = Opened { stream, decoder, early: Vec::new() };
    in_time(longest, opened.shake_hands(config, node, hostname)).await?;
    opened.decoder.set_max_body(BODY_BYTES_MAX);
    Ok(opened)
}

impl Opened {
    async fn shake_hands(&mut self, config: &Config, node: &NodeAddress, hostname: &str) -> io::Result<()> {
        let mut out = BytesMut::new();
        let message = Message::new(Op::Handshake, "").with_payload(handshake(config, node, hostname));
        message.encode_request(HANDSHAKE_ID, &mut out).map_err(io::Error::other)?;
        self.stream.write_all(&out).await?;
        self.stream.flush().await?;
        let mut room = usize::try_from(EARLY_BYTES_MAX).unwrap_or(usize::MAX);
        loop {
            while let Some(frame) = self.decoder.next_frame().map_err(io::Error::other)? {
                match frame.kind {
                    FrameKind::Response if frame.id == HANDSHAKE_ID => return check(&frame.body),
                    FrameKind::Error if frame.id == HANDSHAKE_ID => {
                        let text = String::from_utf8_lossy(&frame.body);
                        return Err(io::Error::other(format!("the node refuses the dock: {}", shown(&text))));
                    }
                    FrameKind::Ping => {
                        out.clear();
                        Frame::pong(frame.id).encode(&mut out).map_err(io::Error::other)?;
                        self.stream.write_all(&out).await?;
                        self.stream.flush().await?;
                    }
                    _ if self.early.len() >= EARLY_FRAMES_MAX || frame.body.len() > room => {
                        return Err(io::Error::other("the node sends too much before it answers the handshake"));
                    }
                    _ => {
                        room = room.saturating_sub(frame.body.len());
                        self.early.push(frame);
                    }
                }
            }
            let mut bytes = BytesMut::with_capacity(4096);
            if self.stream.read_buf(&mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.decoder.feed(&bytes);
        }
    }
}

/// The options, in the order in which stock docks write them. `agent` says that the dock understands the keys of services
/// that stock docks do not.
fn handshake(config: &Config, node: &NodeAddress, hostname: &str) -> Bytes {
    let mut options = json!({
        "type": "dock", "version": VERSION, "hostname": hostname, "id": config.id, "tags": config.tags,
        "default": config.default, "agent": "rollbook", "protocol": 1,
    });
    if let (Some(options), Some(token)) = (options.as_object_mut(), &node.token) {
        options.insert("token".into(), token.secret().reveal().into());
    }
    Bytes::from(options.to_string())
}

fn check(body: &[u8]) -> io::Result<()> {
    match HandshakeReply::parse(body) {
        Ok(reply) if reply.kind == "terminal" => Ok(()),
        Ok(reply) => Err(io::Error::other(format!("the peer is no hub, but a {}", shown(&reply.kind)))),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// What a node says, short and on one line.
fn shown(text: &str) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(SHOWN_LETTERS).collect()
}

async fn in_time<T>(longest: Duration, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(longest, work).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}
