//! A TCP connection becomes a TLS connection: the first byte shows whether the client speaks TLS at all.

use std::fmt;
use std::io;
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use bytes::BytesMut;
use rustls::HandshakeKind;
use tokio::io::AsyncReadExt as _;
use tokio_rustls::TlsAcceptor;

use super::certificates::ServerTls;
use super::stream::{Prefixed, TlsStream};
use crate::base::metrics::Metrics;

/// Longest time from the connection to the end of the handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of the first read: a usual first message of a client.
const HELLO_BYTES: usize = 2 << 10;
/// The first byte of a TLS connection: a record of the handshake.
const HANDSHAKE_RECORD: u8 = 0x16;

/// Why there is no TLS connection.
#[derive(Debug)]
pub(in crate::net) enum Failed {
    /// The client speaks something else, maybe HTTP. These are its first bytes.
    Plaintext(TcpStream, BytesMut),
    /// The client has left without a byte, as a health check of a load balancer does.
    Left,
    /// The handshake took too long.
    Late,
    /// The client and this node have no version, certificate or method in common, or the connection broke.
    Refused(io::Error),
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext(..) => f.write_str("the client speaks no TLS"),
            Self::Left => f.write_str("the client has left"),
            Self::Late => f.write_str("the handshake took too long"),
            Self::Refused(error) => error.fmt(f),
        }
    }
}

/// Makes a connection secure; `read` holds what was read of it already. Counts the handshake.
///
/// # Errors
/// There will be no TLS connection.
pub(in crate::net) async fn accept(
    tls: &ServerTls,
    tcp: TcpStream,
    read: BytesMut,
    metrics: &Metrics,
) -> Result<TlsStream, Failed> {
    let shaken = tokio::time::timeout(HANDSHAKE_TIME_MAX, shake(tls, tcp, read)).await.unwrap_or(Err(Failed::Late));
    let outcome = match &shaken {
        Ok((_, Some(HandshakeKind::Resumed))) => "resumed",
        Ok(_) => "full",
        Err(Failed::Plaintext(..)) => "plaintext",
        Err(Failed::Left) => "left",
        Err(Failed::Late) => "late",
        Err(Failed::Refused(_)) => "refused",
    };
    metrics.tls_handshakes.get_or_create(&[("listener", tls.name), ("outcome", outcome)]).inc();
    shaken.map(|(stream, _)| stream)
}

async fn shake(
    tls: &ServerTls,
    mut tcp: TcpStream,
    mut read: BytesMut,
) -> Result<(TlsStream, Option<HandshakeKind>), Failed> {
    if read.is_empty() {
        // No memory for a client that only connects.
        tcp.readable().await.map_err(Failed::Refused)?;
        read.reserve(HELLO_BYTES);
        if tcp.read_buf(&mut read).await.map_err(Failed::Refused)? == 0 {
            return Err(Failed::Left);
        }
    }
    if read.first() != Some(&HANDSHAKE_RECORD) {
        return Err(Failed::Plaintext(tcp, read));
    }
    let stream = TlsAcceptor::from(tls.config()).accept(Prefixed::new(read, tcp)).await.map_err(Failed::Refused)?;
    let kind = stream.get_ref().1.handshake_kind();
    Ok((TlsStream::new(stream), kind))
}
