//! Replicates [`rollbook_core::machine::Machine`] with openraft on RocksDB, and nothing else.
//!
//! ```text
//! propose -> batch -> openraft -> log (tail cache, WAL thread, one fsync per group) -> state (apply)
//!                                  |                                                    |
//!                                  +--> settle: older events into compressed blocks <---+
//! ```
//!
//! All openraft and rocksdb types stay inside this crate. Modules in reading order.

mod batch;
mod codec;
mod ledger;
mod log;
mod machine;
mod mark;
mod network;
mod raft;
mod records;
mod retain;
mod settle;
mod settler;
mod snapshot;
mod state;
mod store;
mod tail;
mod types;
mod wal;
mod walscan;

pub mod disk;
pub mod error;
pub mod events;
pub mod node;

#[cfg(test)]
mod suite;
