//! The door for clients of NATS.

mod book;
mod client;
mod clients;
mod cluster;
mod live;
mod odd;
