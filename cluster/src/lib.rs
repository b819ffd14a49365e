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
mod block;
mod carry;
mod changes;
mod clock;
mod codec;
mod contact;
mod crash;
mod due;
mod forget;
mod founding;
mod gather;
mod ledger;
mod level;
mod liveness;
mod log;
mod machine;
mod mark;
mod members;
mod membership;
mod network;
mod office;
mod page;
mod peer;
mod presence;
mod quorum;
mod raft;
mod records;
mod recovery;
mod retain;
mod schedule;
mod settle;
mod settler;
mod shortage;
mod snapshot;
mod state;
mod store;
mod stores;
mod tail;
mod tidy;
mod types;
mod wal;
mod walscan;

pub mod disk;
pub mod error;
pub mod events;
pub mod files;
pub mod lab_faults;
pub mod live;
pub mod lock;
pub mod node;
pub mod running;
pub mod status;
pub mod timing;
pub mod tls;
pub mod wait;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod suite;
#[cfg(test)]
mod torn;
