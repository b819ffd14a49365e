//! The wire of hms-protocol, as both of its ends read and write it. Pure: no socket, no clock, no task.
//!
//! ```text
//! opening       raw frames or HTTP, by the first byte
//! frame         the cable frame: kind, id, body        decoder       bytes of any cut to frames
//! op            the 17 operations                      message       what a message or a request carries
//! payload       services, pids and exit codes          handshake     who has connected, and what the terminal says
//! answer        what a request is answered             request_ids   which requests wait for an answer
//! json          JSON within limits                     texts         what stock peers and their users expect word by word
//! ```
//!
//! May import nothing of rollbook: siblings alone. Invariant: whatever a peer sends, no function panics, the decoder
//! holds no more than its limit, and nothing that is encoded here stops a stock peer.
//!
//! Facts of the protocol are those of hms-protocol 1.2.3, cable 1.3.0 and hms 0.4.4.

pub mod answer;
pub mod decoder;
pub mod frame;
pub mod handshake;
mod json;
pub mod message;
pub mod op;
pub mod opening;
pub mod payload;
pub mod request_ids;
#[cfg(test)]
mod tests;
pub mod texts;
