//! Xbus: accounts with their actors, pipelines, envelopes and the processes that take envelopes through pipelines.
//!
//! ```text
//! account/   who may speak: accounts, their certificates, their actors
//! pipeline/  the graphs: nodes of actors, and edges along which envelopes go
//! envelope/  fragments of events become one envelope, of which only counts and checksums are kept
//! process/   one envelope on its way through one pipeline: a job for each actor that works on it
//! schema     what items of a type of events have to look like
//! change     every change of these, as the log carries it
//! done       what a change did: the reply of the rules
//! ```
//!
//! This room holds rules alone: of the rest of the crate it imports only [`crate::node::Owner`], and it knows no store. Items of
//! envelopes never come here. The caller stores them in the book and brings what the rules need of them, their measure
//! ([`envelope::part::Part`]): counts, bytes and checksums.
//!
//! Invariant: ids and times arrive inside the changes, and every list has a bound ([`limits`]), so that all replicas
//! do the same within a bounded time.

pub mod account;
pub mod change;
pub mod done;
pub mod envelope;
pub mod id;
pub mod limits;
pub mod log;
pub mod pipeline;
pub mod process;
pub mod schema;
