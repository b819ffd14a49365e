//! Who may do what, as the rules keep it: `state` in memory, `changes` by commands, `audit` of who had what done.

pub(super) mod audit;
mod changes;
pub mod state;
