//! The commands about identity: who this user is at a cluster and where that is kept, and who may do what there.
//!
//! Imports `access` and `shared`. `rows` and `rights` are what the commands share.

pub(in crate::app::cli) mod audit;
pub(in crate::app::cli) mod certificates;
pub(in crate::app::cli) mod context;
pub(in crate::app::cli) mod credentials;
pub(in crate::app::cli) mod explain;
pub(in crate::app::cli) mod issuers;
pub(in crate::app::cli) mod login;
pub(in crate::app::cli) mod nkeys;
pub(in crate::app::cli) mod passwords;
pub(in crate::app::cli) mod principals;
mod rights;
pub(in crate::app::cli) mod roles;
pub(in crate::app::cli) mod rows;
pub(in crate::app::cli) mod tokens;
