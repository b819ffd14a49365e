//! A connection to the server under test, in clear text or over TLS.

use std::fmt;
use std::io;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// How TLS connections to one server are made. Connections share the sessions, so later ones resume earlier ones.
#[derive(Clone)]
pub(in crate::app::bench) struct Tls {
    /// Trusted CAs, client certificate and sessions.
    pub(in crate::app::bench) config: Arc<ClientConfig>,
    /// The name or address that the certificate of the server must have.
    pub(in crate::app::bench) name: ServerName<'static>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Tls {
    /// Shakes hands over a connected socket.
    pub(in crate::app::bench) async fn handshake(&self, socket: TcpStream) -> Result<TlsStream<TcpStream>> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let shaken = connector.connect(self.name.clone(), socket).await;
        shaken.context("the TLS handshake failed; does --ca name the CA of the server?")
    }
}

/// An open connection.
#[derive(Debug)]
pub(in crate::app::bench) enum Stream {
    /// In clear text.
    Plain(TcpStream),
    /// Over TLS.
    Tls(Box<TlsStream<TcpStream>>),
}

impl Stream {
    /// Writes all bytes and sends them.
    pub(in crate::app::bench) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes).await,
            Self::Tls(stream) => {
                stream.write_all(bytes).await?;
                stream.flush().await
            }
        }
    }

    /// Appends what has arrived, and returns the number of bytes. Zero means that the server has closed.
    pub(in crate::app::bench) async fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read_buf(buffer).await,
            Self::Tls(stream) => stream.read_buf(buffer).await,
        }
    }
}
