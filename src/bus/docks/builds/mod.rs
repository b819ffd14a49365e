//! Archives that clients deploy: they are checked, built and replicated.
//!
//! ```text
//! folders where archives are kept on their way, and how much they may take
//! run     the command of a definition that builds an archive
//! store   archives into the replicated state
//! read    and out of it
//! deploy  all of that for one upload
//! ```
//!
//! Invariants: an archive is looked at before it is stored, whoever sent it; whatever a build has started ends with it; and
//! a folder goes with its owner.

pub mod deploy;
pub mod folders;
pub mod read;
mod run;
mod store;
