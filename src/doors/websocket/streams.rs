//! The streams of the book that a connection has open.

use std::collections::HashMap;

use actix::SpawnHandle;

/// The streams of a connection.
#[derive(Debug, Default)]
pub(super) struct Streams {
    pub(super) open: HashMap<String, Stream>,
    /// Publishes and acknowledgements that have no end yet.
    pub(super) unanswered: usize,
}

#[derive(Debug)]
pub(super) struct Stream {
    /// Empty while it is being opened.
    pub(super) consumer: String,
    /// What moves it along.
    pub(super) handle: SpawnHandle,
    /// Acknowledgements on their way: a stream is not ended before them.
    pub(super) acks: usize,
    /// Its client wants no more of it.
    pub(super) leaving: bool,
}
