//! Xbus between the doors and the rules: envelopes go into the book, processes go on, jobs come to their actors.
//!
//! ```text
//! client     reads and changes of the state
//! reads      envelopes, processes and logs, in memory and on the disk;  filter says which processes
//! envelopes/ envelopes in the book
//! flow       what programs do all the time, and who hears of what became of it
//! actor_calls  what programs of actors do: envelopes, ends of jobs, logs
//! jobs/      jobs come to their actors, and go back when they are lost
//! presence   actors on the roll
//! replay     jobs that have many processes go along again
//! schema     items of envelopes held against the schemas of their types
//! yaml       the text of a pipeline becomes a document of the rules
//! accept     an operator accepts an account, whose certificate is signed here or was elsewhere;  api_key   keys of accounts for gateways
//! ```
//!
//! Invariant: a job is brought by the node whose proposal the rules took, and counts as being worked on only as long as
//! that node has a guard for it. Whatever is lost, a connection, a node, an answer, the job is given back.

pub mod accept;
pub mod actor_calls;
pub mod api_key;
pub mod client;
pub mod envelopes;
pub mod filter;
pub mod flow;
pub mod jobs;
pub mod presence;
pub mod reads;
pub mod replay;
pub mod schema;
pub mod yaml;
