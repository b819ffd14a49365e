//! The commands about identity: who this user is at a cluster, and where that is kept.
//!
//! Imports `access` and `shared`.

pub(in crate::app::cli) mod context;
pub(in crate::app::cli) mod login;
