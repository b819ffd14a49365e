//! What every room above the cluster may use: lifetimes of actors, time, values of settings, JSON of all languages,
//! metrics, kinds of faults, names of processes, the client of HTTPS.
//!
//! Nothing here knows an event, a socket or a protocol. Imports nothing but the crates below and libraries.

pub mod actors;
pub mod alarm;
pub mod archive;
pub mod bytes;
pub mod checks;
pub mod clock;
pub mod comma_list;
pub mod duration;
pub mod fault;
pub mod https;
pub mod json;
pub mod json_error;
pub mod metrics;
pub mod process_name;
pub mod slot;
pub mod supervisor;
