//! The door for clients of NATS.

mod book;
mod calls;
pub(crate) mod client;
mod clients;
mod cluster;
mod differential;
mod live;
mod odd;
pub(crate) mod responder;
mod services;
pub(crate) mod tls;
mod xbus;
