//! Xbus between the doors and the rules: envelopes go into the book, processes go on, jobs come to their actors.
//!
//! ```text
//! client     reads and changes of the state
//! reads      envelopes, processes and logs, in memory and on the disk;  filter says which processes
//! json/      the JSON of the specification page;  measure  what the rules need to know of an envelope in it
//! storage    the fragments of envelopes in the book, as stored writes and reads them;  whole  envelopes in one piece
//! flow       what programs do all the time, and who hears of what became of it
//! actor_calls  what programs of actors do: envelopes, ends of jobs, logs
//! engine     brings jobs to the actors of this node:  pick says which, workers has the actors
//! sweep      gives back what this node no longer works on, and give_back one job at once
//! seen       which actors were seen at this node
//! upkeep     what the leader does for all processes
//! presence   actors on the roll
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
pub mod engine;
pub mod filter;
pub mod flow;
pub mod give_back;
pub mod json;
pub mod measure;
mod pick;
pub mod presence;
pub mod reads;
pub mod seen;
pub mod storage;
pub mod stored;
mod sweep;
mod upkeep;
pub mod whole;
pub mod workers;
pub mod yaml;
