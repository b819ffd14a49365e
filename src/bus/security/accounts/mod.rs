//! Accounts of Xbus as principals.
//!
//! ```text
//! rights        what an account may do, by its kind and its actors    registrants   who has no account yet, and asks for one
//! credential    the certificate of an account                         key           its API key
//! ```
//!
//! Invariant: an account that is not enabled has no right.

pub mod credential;
mod key;
mod registrants;
pub mod rights;
