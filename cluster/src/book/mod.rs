//! The book: events wherever they are stored, on their way from the log into blocks, out of sight, and to other nodes.
//!
//! May import `store`, `log`, `ledger` and `state`. Invariant: settle, flush, forget, purge, in this order, each with
//! the proof of the step before.

pub mod events;
pub(crate) mod retain;
pub(crate) mod settle;
pub(crate) mod snapshot;
