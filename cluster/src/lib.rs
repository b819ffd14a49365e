//! Replicates [`rollbook_core::machine::Machine`] with openraft on RocksDB, and nothing else.
//!
//! ```text
//! propose -> batch -> openraft -> log (tail cache, WAL thread, one fsync per group) -> state (apply)
//!                                  |                                                    |
//!                                  +--> settle: older events into compressed blocks <---+
//! ```
//!
//! All openraft and rocksdb types stay inside this crate. The rooms from the bottom up; each may import those before
//! it: `store`, `log`, `ledger`, `state`, `book`, `peer`, `replicate`, `propose`, `member`, `node`, `running`.

mod codec;
mod crash;
mod ledger;
mod log;
mod member;
mod peer;
mod propose;
mod replicate;
mod state;
mod stores;
mod types;

pub mod book;
pub mod error;
pub mod lab_faults;
pub mod live;
pub mod lock;
pub mod node;
pub mod running;
pub mod status;
pub mod store;
pub mod timing;
pub mod tls;
pub mod wait;

#[cfg(test)]
mod sim;
#[cfg(test)]
mod suite;
