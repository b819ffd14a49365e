//! What every room above the cluster may use: lives of actors, time, durations, JSON of all languages, metrics, kinds of faults.
//!
//! Nothing here knows an event, a socket or a protocol. Imports nothing but the crates below and libraries.

pub mod actors;
pub mod clock;
pub mod duration;
pub mod fault;
pub mod json;
pub mod metrics;
pub mod supervisor;
