//! Envelopes: fragments come in, and their events are counted and summed until all of them are complete.
//!
//! ```text
//! part       what the rules need to know of one event in one fragment: its measure
//! row        what is kept of an envelope and of each of its events: no items
//! assembly   a fragment changes an envelope: receiving, stalled, complete, error
//! crc        the CRC of two texts one behind the other
//! position   what the first fragments of an envelope cover, for whoever reads it in steps
//! ```
//!
//! Imports `xbus::id` and `xbus::limits` alone.
//!
//! Invariant: what is kept of an envelope does not grow with its bytes. An event costs its totals, a running CRC-32C
//! and eight bytes for each fragment that it came in, by which a fragment that comes again is recognised.
//!
//! Invariant: an envelope that is complete never changes again.

pub mod assembly;
mod crc;
mod event;
pub mod part;
pub mod position;
pub mod row;
#[cfg(test)]
mod tests;
