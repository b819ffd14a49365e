//! Where a client comes from, as its door knows it.

use std::net::SocketAddr;
use std::sync::Arc;

use crate::net::peer::Peer;

/// Where a client comes from.
#[derive(Debug, Clone)]
pub struct Origin {
    /// Name of the door, or `rest`.
    pub door: &'static str,
    /// Address of the client, if it is known.
    pub address: Option<SocketAddr>,
    /// Whether the client and the listener are on the same machine: such clients need no credential unless the settings
    /// say so.
    pub local: bool,
    /// The leaf of the client's certificate chain, in DER, which TLS has verified.
    pub certificate: Option<Arc<[u8]>>,
}

impl Origin {
    /// Where a client of this door comes from. Without a connection, as in tests, it is local.
    #[must_use]
    pub fn new(door: &'static str, peer: Option<Peer>) -> Self {
        let Some(Peer { address, certificate, local, .. }) = peer else {
            return Self { door, address: None, local: true, certificate: None };
        };
        Self { door, address: Some(address), local, certificate }
    }
}
