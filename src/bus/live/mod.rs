//! Live messages, which are delivered to the clients that listen now and are never stored: inboxes of the event log
//! (`reply_subjects`), and subjects of any name with wildcards and queue groups (`subjects`), over all nodes.
//!
//! Invariant: a live message waits nowhere without a bound in bytes, and whoever does not read it misses it.

pub mod exchange;
pub mod filter;
mod generations;
pub mod message;
pub mod peers;
pub mod reply_subjects;
pub mod route;
pub mod subjects;
pub mod table;
#[cfg(test)]
mod tests;
pub mod wire;
