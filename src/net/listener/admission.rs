//! The steps between the accepted connection and the protocol, for listeners of every protocol.

use std::net::SocketAddr;

use actix_web::rt::net::TcpStream;
use bytes::{Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use super::limits::{ListenerLimits, TurnedAway};
use super::proxy;
use crate::base::clock;
use crate::net::peer::Peer;
use crate::net::socket::Socket;
use crate::net::tls::handshake::{self, Failed};

/// A connection of an address that may connect.
pub(in crate::net) struct Arrival {
    tcp: TcpStream,
    /// Address of the socket at the other end: the client, or a load balancer.
    from: SocketAddr,
}

/// A connection that the protocol can use.
pub(in crate::net) struct Admitted {
    /// The connection.
    pub(in crate::net) socket: Socket,
    /// Bytes that were read already; they come before those of the socket.
    pub(in crate::net) read: BytesMut,
    /// The other end.
    pub(in crate::net) peer: Peer,
    /// What was said to the client already, in a protocol in which the server begins.
    pub(in crate::net) greeting: Bytes,
}

/// Why a connection does not get to the protocol. What can be said was counted.
pub(in crate::net) enum Rejected {
    /// The connection is closed without a word.
    Close,
    /// The client speaks no TLS. These are its first bytes.
    Plaintext(Socket, BytesMut, Peer),
}

impl Arrival {
    /// Checks how often the address connects. `None`: too often, or the connection has ended already.
    pub(in crate::net) fn new(tcp: TcpStream, limits: &ListenerLimits) -> Option<Self> {
        // Without it answers are late, no more.
        tcp.set_nodelay(true).ok();
        let from = tcp.peer_addr().ok()?;
        // A load balancer connects for its clients, whose addresses its PROXY headers say.
        let is_client = !limits.settings.proxy_protocol_from.contain(from.ip());
        if is_client && !may_connect(from, limits) {
            return None;
        }
        Some(Self { tcp, from })
    }

    /// Reads the address of the client from a PROXY header, if one is due, and makes the connection secure, if the
    /// listener speaks TLS. Ends when the node stops.
    ///
    /// # Errors
    /// The connection cannot be used.
    pub(in crate::net) async fn enter(
        self,
        limits: &ListenerLimits,
        stopping: &CancellationToken,
    ) -> Result<Admitted, Rejected> {
        // A stopping node waits neither for a header nor for a handshake.
        stopping.run_until_cancelled(self.steps(limits)).await.unwrap_or(Err(Rejected::Close))
    }

    /// The connection as it is, for a refusal.
    pub(in crate::net) fn unchecked(self) -> Admitted {
        // Such a connection gets a refusal and nothing else.
        let peer = Peer { address: self.from, certificate: None, tls: false, local: false };
        Admitted { socket: self.tcp.into(), read: BytesMut::new(), peer, greeting: Bytes::new() }
    }

    async fn steps(self, limits: &ListenerLimits) -> Result<Admitted, Rejected> {
        let Self { mut tcp, from } = self;
        let mut read = BytesMut::new();
        let client = proxy::client(&mut tcp, from, &limits.settings.proxy_protocol_from, &mut read).await;
        let address = client.map_err(|error| {
            limits.count(TurnedAway::Proxy);
            tracing::debug!(%from, %error, "a connection was refused");
            Rejected::Close
        })?;
        if address != from && !may_connect(address, limits) {
            return Err(Rejected::Close);
        }
        let local = limits.is_local(address);
        let greeting = match &limits.settings.greeting {
            Some(greeting) => {
                let peer = Peer { address, certificate: None, tls: false, local };
                let greeted = greeting.greet((&mut tcp, &read), &peer, limits.tls().is_some()).await;
                greeted.map_err(|_| Rejected::Close)?
            }
            None => Bytes::new(),
        };
        let Some(tls) = limits.tls() else {
            let peer = Peer { address, certificate: None, tls: false, local };
            return Ok(Admitted { socket: tcp.into(), read, peer, greeting });
        };
        let failed = match handshake::accept(tls, tcp, read, limits.metrics()).await {
            Ok(stream) => {
                let socket = Socket::from(stream);
                let peer = Peer { address, certificate: socket.peer_certificate(), tls: true, local };
                return Ok(Admitted { socket, read: BytesMut::new(), peer, greeting });
            }
            Err(Failed::Left) => return Err(Rejected::Close),
            Err(failed) => failed,
        };
        limits.count(TurnedAway::Tls);
        match failed {
            Failed::Plaintext(tcp, read) => {
                tracing::debug!(client = %address, "a client speaks no TLS");
                let peer = Peer { address, certificate: None, tls: false, local };
                Err(Rejected::Plaintext(tcp.into(), read, peer))
            }
            other => {
                tracing::debug!(client = %address, reason = %other, "a TLS handshake failed");
                Err(Rejected::Close)
            }
        }
    }
}

fn may_connect(address: SocketAddr, limits: &ListenerLimits) -> bool {
    let admitted = limits.connects().admit(address.ip(), clock::now());
    if !admitted {
        limits.count(TurnedAway::Address);
    }
    admitted
}
