//! Settled events: blocks of consecutive events of a namespace, compressed, and the store that keeps them.
//!
//! May import `store` and `log`. Invariant: blocks of a namespace are contiguous, and a block holds what its row says.

pub(crate) mod block;
pub(crate) mod forget;
#[expect(clippy::module_inception, reason = "the room is named after the store")]
pub(crate) mod ledger;
pub(crate) mod records;
