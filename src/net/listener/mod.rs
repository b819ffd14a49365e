//! Listeners for clients: what a door opens a socket with, whatever it speaks.
//!
//! A connection passes these steps, here and nowhere else ([`admission`]): accepted by a thread, its address checked
//! against the bound of connects ([`connects`]), counted against the bound of its listener ([`limits`]), the address of
//! the client read from a PROXY header when a load balancer sends one ([`proxy`]) and checked in its turn, the TLS
//! handshake ([`super::tls`]). Who the client is belongs to the protocol, which gets the [`super::peer::Peer`].
//! Invariant: what a client may take (time, bytes, connections) is bounded before the protocol sees a byte.

pub mod admission;
pub mod connects;
pub mod greeting;
pub mod limits;
pub mod listeners;
pub mod networks;
pub mod proxy;
pub mod settings;
pub mod tcp;
