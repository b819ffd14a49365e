//! Envelopes in the book.
//!
//! ```text
//! json/      the JSON of the specification page;  measure  what the rules need to know of an envelope in it
//! stored     fragments as the book has them;      storage  reads them
//! whole      envelopes in one piece;              recent   those of a moment ago
//! ```
//!
//! Invariant: what was accepted reads back as it was sent, but for what the sender left to the server.

pub mod json;
pub mod measure;
pub mod recent;
pub mod storage;
pub mod stored;
pub mod whole;
