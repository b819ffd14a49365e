//! Settled events: compressed blocks of consecutive events of a namespace, and the store of all blocks.
//!
//! May import `store` and `log`. Invariant: the blocks of a namespace are contiguous, and a block holds the events that
//! its row names.

pub(crate) mod block;
pub(crate) mod forget;
#[expect(clippy::module_inception, reason = "the room is named after the store")]
pub(crate) mod ledger;
pub(crate) mod records;
