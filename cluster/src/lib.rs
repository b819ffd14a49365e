//! Replicates [`rollbook_core::machine::Machine`] with openraft on RocksDB, and nothing else.
//!
//! ```text
//! propose -> batch -> openraft -> log (tail cache, WAL thread, one fsync per group) -> state (apply)
//!                                  |                                                    |
//!                                  +--> settle: older events into compressed blocks <---+
//! ```
//!
//! All openraft and rocksdb types stay inside this crate. Modules in reading order.

mod types;
mod codec;
mod store;
mod mark;
mod walscan;
mod tail;
mod wal;
mod log;
mod ledger;
mod state;
mod snapshot;
mod machine;
mod raft;
mod network;
mod batch;
mod settle;
mod settler;
mod retain;

pub mod disk;
pub mod error;
pub mod events;
pub mod node;

#[cfg(test)]
mod suite;
