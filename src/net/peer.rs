//! Who is at the other end of a connection, as far as the connection shows.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use actix_web::{HttpMessage as _, HttpRequest};

/// The other end of a connection. Among the extensions of every HTTP request, that of an upgrade too.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    /// Address of the client: that of the socket, or what a listed load balancer says.
    pub address: SocketAddr,
    /// The certificate that the client has shown, in DER. The handshake has verified that it is of `tls.client_ca`, is
    /// in its time, and that the client has its key.
    pub certificate: Option<Arc<[u8]>>,
    /// Whether the connection is over TLS.
    pub tls: bool,
    /// Whether the listener and the client are on this machine: the listener is on loopback, and so is the client, also
    /// behind a load balancer.
    pub local: bool,
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let certificate = self.certificate.is_some();
        let Self { address, tls, local, .. } = self;
        let mut shown = f.debug_struct("Peer");
        shown.field("address", address).field("certificate", &certificate).field("tls", tls).field("local", local);
        shown.finish()
    }
}

impl Peer {
    /// The other end of the connection of a request. `None` for a request that no listener has received, as in tests.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Option<Self> {
        request.extensions().get::<Self>().cloned()
    }
}
