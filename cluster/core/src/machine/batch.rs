//! Forwarded batches: a batch that arrives twice is applied once, and gets the same replies both times.
//!
//! A node that loses the connection to the leader cannot know whether its batch was stored, so it sends the batch
//! again, perhaps to another leader. Nodes number their batches; the rules store the replies of the newest batches of
//! each node.

use alloc::format;

use super::Machine;
use super::effects::Appends;
use super::recent_batches::{BatchState, RecentBatches, row_key};
use crate::command::Reply;
use crate::entry::{Batch, Frame};
use crate::error::Refusal;
use crate::limits::BATCHES_PER_PRODUCER;
use crate::persistent::update;
use crate::reply;
use crate::rows::{Family, Rows, RowsError, Writes};

impl Machine {
    /// Adds a batch to the remembered batches: each row has one batch in its key.
    pub(super) fn load_batch(&mut self, key: &[u8]) -> Result<(), RowsError> {
        let number = |at: usize| key.get(at..at.saturating_add(8)).and_then(|bytes| bytes.first_chunk());
        let (Some(node), Some(incarnation), Some(batch)) = (number(0), number(8), number(16)) else {
            return Err(RowsError::corrupt("batches"));
        };
        update(&mut self.recent_batches, u64::from_be_bytes(*node), |recent| {
            recent.incarnation = u64::from_be_bytes(*incarnation);
            recent.numbers.insert_mut(u64::from_be_bytes(*batch));
        });
        Ok(())
    }

    /// Decides whether the frames behind the mark of a batch are applied or skipped. `start` is the number of replies
    /// that the entry has so far.
    pub(super) fn begin_batch(
        &mut self,
        batch: Batch,
        start: usize,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Result<BatchState, RowsError> {
        let refuse = |refusal: Refusal| {
            let frames = usize::try_from(batch.frames).unwrap_or_default();
            BatchState::Repeated(alloc::vec![Err(refusal); frames].into_iter())
        };
        let Some(recent) =
            self.recent_batches.get(&batch.owner.node).filter(|of| of.incarnation >= batch.owner.incarnation)
        else {
            return Ok(BatchState::New { batch, start, left: batch.frames });
        };
        if batch.owner.incarnation < recent.incarnation {
            let detail = format!("that life of node {} has ended", batch.owner.node);
            return Ok(refuse(Refusal::OutcomeUnknown(detail)));
        }
        if recent.numbers.contains(&batch.number) {
            let row = writes.get(rows, Family::Batches, &row_key(&batch, batch.number))?;
            let replies = row.as_deref().and_then(reply::decode).ok_or_else(|| RowsError::corrupt("batches"))?;
            return Ok(BatchState::Repeated(replies.into_iter()));
        }
        let newest = recent.numbers.last().copied().unwrap_or(0);
        if batch.number.saturating_add(BATCHES_PER_PRODUCER) <= newest {
            return Ok(refuse(Refusal::OutcomeUnknown("the batch came too late".into())));
        }
        Ok(BatchState::New { batch, start, left: batch.frames })
    }

    /// Stores the replies of a batch after its last frame, and drops the oldest batch beyond the limit.
    pub(super) fn finish_batch(&mut self, batch: &Batch, replies: &[Reply], writes: &mut Writes) {
        update(&mut self.recent_batches, batch.owner.node, |recent| {
            if recent.incarnation < batch.owner.incarnation {
                let node = batch.owner.node;
                let (from, to) = (node.to_be_bytes().to_vec(), node.saturating_add(1).to_be_bytes().to_vec());
                writes.delete_range(Family::Batches, from, to);
                *recent = RecentBatches { incarnation: batch.owner.incarnation, ..RecentBatches::default() };
            }
            writes.put(Family::Batches, row_key(batch, batch.number), reply::encode(replies));
            recent.numbers.insert_mut(batch.number);
            while u64::try_from(recent.numbers.size()).unwrap_or(0) > BATCHES_PER_PRODUCER {
                let Some(oldest) = recent.numbers.first().copied() else { break };
                recent.numbers.remove_mut(&oldest);
                writes.delete(Family::Batches, row_key(batch, oldest));
            }
        });
    }

    /// Marks a skipped publish as refused in the index row: readers of the entry must not count its events.
    pub(super) fn skip_repeated(&self, frame: &Frame<'_>, ordinal: u32, appends: &mut Appends) {
        if let Frame::Publish(publish) = frame
            && let Some(head) = self.heads.get(publish.namespace)
            && let Some(append) = appends.get_mut(&head.id)
        {
            append.row.refused.push(ordinal);
        }
    }
}
