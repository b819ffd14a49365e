//! What is measured, a file for each case.

pub(super) mod fanout;
pub(super) mod floor;
pub(super) mod fsync;
pub(super) mod idle;
pub(super) mod load;
pub(super) mod publish;
pub(super) mod replay;
pub(super) mod start;
