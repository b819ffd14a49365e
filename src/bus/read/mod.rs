//! Reads of the book: stored events, their encoded frames, and the feed of new events.
//!
//! Invariant: an event is read once and encoded once per format, however many clients want it.

pub mod encoder;
pub mod event_json;
pub mod feed;
pub mod feed_buffer;
pub mod pieces;
pub mod redelivery;
pub mod stored_event;
