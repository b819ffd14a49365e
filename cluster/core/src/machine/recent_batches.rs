//! The forwarded batches whose replies are remembered.

use alloc::vec::{self, Vec};

use crate::command::Reply;
use crate::entry::Batch;
use crate::persistent::Set;

/// The newest batches of a node. Their replies are in rows.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct RecentBatches {
    /// The newest life of the node that forwarded a batch. Batches of earlier lives are refused, since their replies
    /// are deleted.
    pub(super) incarnation: u64,
    /// The numbers of the newest batches of that life, at most [`crate::limits::BATCHES_PER_PRODUCER`].
    pub(super) numbers: Set<u64>,
}

/// The batch to which the next frames of the entry belong.
pub(super) enum BatchState {
    /// The batch arrives for the first time: `left` frames are not applied yet, and its replies begin at `start` of the
    /// replies of the entry.
    New { batch: Batch, start: usize, left: u32 },
    /// The batch was applied before, or is refused: its frames are skipped and get these replies.
    Repeated(vec::IntoIter<Reply>),
}

/// Key of the row of the batch `number` of the node and life of `batch`.
pub(super) fn row_key(batch: &Batch, number: u64) -> Vec<u8> {
    let mut key = batch.owner.node.to_be_bytes().to_vec();
    key.extend_from_slice(&batch.owner.incarnation.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}
