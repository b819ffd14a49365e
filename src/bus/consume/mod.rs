//! Durable consumers and groups: the actors that read the book for their members, and what they make durable.
//!
//! Invariant: a floor moves, and an event is given up, only while the cluster says that this start serves the consumer.

pub mod consumer;
pub mod cursor;
pub mod dead_letter;
pub mod registry;
pub mod source;
