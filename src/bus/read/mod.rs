//! The way out of the book: stored events, the frames that doors make of them, and the feed of new ones.
//!
//! Invariant: an event is read once and encoded once per form, however many want it.

pub mod encoder;
pub mod event_json;
pub mod feed;
pub mod feed_buffer;
pub mod pieces;
pub mod stored_event;
