//! Credentials: how a client proves who it is. Each file is one form of proof, and knows neither a door nor the
//! replicated state: hashes, keys and the time are handed in.
//!
//! ```text
//! bearer     what an Authorization header holds; basic: user and password in it
//! token      rb1_<id>_<secret>, for programs         ticket   one use, 30 s, for EventSource
//! password   argon2id, for people                    delay    who failed often has to wait
//! jwt        tokens of foreign issuers               certificate   names of a client certificate
//! account_ca   signs certificates of accounts of Xbus
//! seal       secrets at rest                         secret   a value that no output shows
//! ```
//!
//! Invariant: every input is bounded in bytes before anything is decoded, and secrets are compared in constant time.

pub mod account_ca;
pub mod base62;
pub mod basic;
pub mod bearer;
pub mod certificate;
pub mod delay;
pub mod jwt;
pub mod password;
pub mod seal;
pub mod secret;
pub mod ticket;
pub mod token;
