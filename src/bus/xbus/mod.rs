//! Xbus between the doors and the rules: reads and changes of its state, and pipelines as people write them.
//!
//! ```text
//! certificates  what requests and certificates of accounts say
//! client        looks at the state in memory, and changes of it
//! filter        which processes somebody asks for
//! reads         envelopes, processes and logs, in memory and on the disk
//! yaml          the text of a pipeline becomes a document of the rules
//! ```
//!
//! Imports `security` for hashes and names of certificates, and `handle`.
//!
//! Invariant: a text of any content is read within bounded memory and time, and is a document or an error with its line.

pub mod certificates;
pub mod client;
pub mod filter;
pub mod reads;
pub mod yaml;
