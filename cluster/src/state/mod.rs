//! The applied state: the machine of the rules, its rows, the time of the log, and which namespaces have changed.
//!
//! May import `store`, `log` and `ledger`. Invariant: effects and applied index are written in one batch.

pub(crate) mod changes;
pub(crate) mod clock;
pub(crate) mod schedule;
#[expect(clippy::module_inception, reason = "the room is named after the store")]
pub(crate) mod state;
