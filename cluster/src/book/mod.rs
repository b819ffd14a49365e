//! The book: reads of stored events, in the log or in blocks; settling, retention, and snapshots for other nodes.
//!
//! May import `store`, `log`, `ledger` and `state`. Invariant: settle, flush, forget, purge, in this order; each step
//! needs a value that only the step before makes.

pub mod events;
pub(crate) mod retain;
pub(crate) mod settle;
pub(crate) mod snapshot;
mod time;
