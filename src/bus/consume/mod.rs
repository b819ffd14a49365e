//! Durable consumers and groups: the actors that read the book for their members, and the progress that they save in
//! the replicated state. Beside them what reads the book for everybody: cursors and pages.
//!
//! Invariant: an ack floor moves, and an event becomes a dead letter, only while the replicated state says that this
//! start serves the consumer.

pub mod consumer;
pub mod cursor;
pub mod dead_letter;
pub mod event_page;
pub mod letters;
pub mod registry;
pub mod selection;
pub mod source;
