//! What the bus asks a door for when it writes to a stream: bytes, never I/O.

use rollbook_core::event::Event;

/// How a door writes a stream. Stateless, so that frames can be shared by all its clients.
pub trait Wire: Sync {
    /// Which of the frames of an [`super::item::Item`] is this door's: less than [`super::item::SLOTS`].
    fn slot(&self) -> usize;
    /// Appends an event at `index`.
    fn event(&self, index: i64, event: &Event<'_>, out: &mut Vec<u8>);
    /// Appends what keeps an idle connection open.
    fn keep_alive(&self, out: &mut Vec<u8>);
    /// Appends that events are missing which the client would have got, and which index is the first that is kept.
    /// For doors whose clients come back with the id of what they had last.
    fn gap(&self, _first: u64, _out: &mut Vec<u8>) {}
    /// Appends an error, after which the stream ends.
    fn failure(&self, text: &str, out: &mut Vec<u8>);
    /// Appends the hint to come back after so many milliseconds, after which the stream ends.
    fn farewell(&self, retry_millis: u64, out: &mut Vec<u8>);
}
