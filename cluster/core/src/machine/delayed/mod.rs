//! Events that wait for their time.
//!
//! `accept` makes the events of a publish wait, `release` appends those that are due, `cancel` removes one, `drop` all
//! those of a namespace; `keys` has the keys of the rows. The row of a namespace counts its waiting events and says where
//! the first of them is, so the leader knows without a search when something is due.
//!
//! Invariants: a waiting event is in exactly one row until the entry that appends, cancels or deletes it. Its dedupe key
//! and its chosen id are checked once, when it is accepted, and belong to it from then on: a release refuses nothing.
//! No event is appended before its time by the time of the log.

mod accept;
mod cancel;
mod drop;
pub mod keys;
mod release;
pub mod state;
