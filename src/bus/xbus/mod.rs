//! Xbus between the doors and the rules: pipelines as people write them.
//!
//! ```text
//! accept   an operator accepts an account, whose certificate is signed
//! api_key  keys of accounts for gateways
//! client   reads and changes of the state
//! yaml     the text of a pipeline becomes a document of the rules
//! ```
//!
//! Imports `rollbook_core::xbus` alone.
//!
//! Invariant: a text of any content is read within bounded memory and time, and is a document or an error with its line.

pub mod accept;
pub mod api_key;
pub mod client;
pub mod yaml;
