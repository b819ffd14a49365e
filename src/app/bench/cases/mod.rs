//! The cases of the benchmark, one file each.
//!
//! Imports the clients and the context. `load` drives the publish load of several cases.

pub(super) mod consume;
pub(super) mod fanout;
pub(super) mod floor;
pub(super) mod fsync;
pub(super) mod handshake;
pub(super) mod idle;
pub(super) mod load;
pub(super) mod publish;
pub(super) mod replay;
pub(super) mod start;
pub(super) mod xbus;
