//! Live messages between nodes: never stored, and delivered at most once.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use rollbook_core::error::Refusal;

/// The handler of messages from other nodes, which the floor above provides.
pub trait Live: Send + Sync + 'static {
    /// Takes a message that wants no answer. Must not block.
    fn hear(&self, from: u64, message: Bytes);

    /// Answers a message.
    fn answer(&self, from: u64, message: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>>;
}
