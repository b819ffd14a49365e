//! Which forwarded batches are remembered.

use alloc::vec::{self, Vec};

use crate::command::Reply;
use crate::entry::Batch;
use crate::persistent::Set;

/// The newest batches of a node.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) incarnation: u64,
    pub(super) numbers: Set<u64>,
}

/// A batch whose frames are being applied.
pub(super) enum Open {
    /// For the first time: `left` frames are to come, the replies begin at `start`.
    Fresh { batch: Batch, start: usize, left: u32 },
    /// Again: these are the answers.
    Repeated(vec::IntoIter<Reply>),
}

/// Key of the row of a batch of the same node and life.
pub(super) fn row_key(batch: &Batch, number: u64) -> Vec<u8> {
    let mut key = batch.owner.node.to_be_bytes().to_vec();
    key.extend_from_slice(&batch.owner.incarnation.to_be_bytes());
    key.extend_from_slice(&number.to_be_bytes());
    key
}
