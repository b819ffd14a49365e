//! Clients of Xbus at the door for clients of NATS.

mod accounts;
mod client;
mod control;
mod rights;
