//! The door `hms`: the hub for stock and for hand-written clients and docks.

pub(crate) mod builds;
pub(crate) mod client;
mod cluster;
mod docks;
mod hostile;
mod hub;
mod load;
mod output;
mod recorded;
mod stock;
mod websocket;
