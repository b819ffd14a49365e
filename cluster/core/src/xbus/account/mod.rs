//! Accounts and their actors: who may speak Xbus.
//!
//! ```text
//! row        what is kept of an account and of an actor
//! register   a program asks for an account; an operator accepts it
//! ```
//!
//! Imports `xbus::id` and `xbus::limits` alone. Certificates are signed and read elsewhere: here they are texts.
//!
//! Invariant: an account has one public key. Another key takes its place only after an operator said so, or when the
//! account itself asks over a connection with its present certificate.

pub mod register;
pub mod row;
