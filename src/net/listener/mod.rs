//! Listeners for clients: what a door opens a socket with, whatever it speaks.
//!
//! A connection passes these steps, here and nowhere else: accepted by a thread, counted against the bound of its
//! listener ([`limits`]), the address of the client read from a PROXY header when a load balancer sends one ([`proxy`]).
//! TLS, and who the client is, belong between the last step and the protocol. Invariant: what a client may take (time,
//! bytes, connections) is bounded before the protocol sees a byte.

pub mod limits;
pub mod listeners;
pub mod networks;
pub mod proxy;
pub mod settings;
pub mod tcp;
