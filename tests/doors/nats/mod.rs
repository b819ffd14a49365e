//! The door for clients of NATS.

mod book;
mod calls;
pub(crate) mod client;
mod clients;
mod cluster;
mod live;
mod odd;
mod tls;
mod xbus;
