//! Forwarded batches: one that comes twice is stored once, and answered as it was the first time.
//!
//! A node that lost the connection to the leader cannot know whether its batch was
//! stored, and sends it again, perhaps to another leader. It numbers its batches; the
//! rules remember the newest ones of each node with their replies.

use alloc::format;

use super::Machine;
use super::effects::Index;
use super::recent::{Open, Recent, row_key};
use crate::command::Reply;
use crate::entry::{Batch, Frame};
use crate::error::Refusal;
use crate::limits::BATCHES_PER_PRODUCER;
use crate::persistent::update;
use crate::reply;
use crate::rows::{Family, Rows, RowsError, Writes};

impl Machine {
    /// Reads back which batches are remembered.
    pub(super) fn load_batch(&mut self, key: &[u8]) -> Result<(), RowsError> {
        let number = |at: usize| key.get(at..at.saturating_add(8)).and_then(|bytes| bytes.first_chunk());
        let (Some(node), Some(incarnation), Some(batch)) = (number(0), number(8), number(16)) else {
            return Err(RowsError::corrupt("batches"));
        };
        update(&mut self.recent, u64::from_be_bytes(*node), |recent| {
            recent.incarnation = u64::from_be_bytes(*incarnation);
            recent.numbers.insert_mut(u64::from_be_bytes(*batch));
        });
        Ok(())
    }

    /// Looks at the mark before the frames of a batch; `start` is how many replies there are already.
    pub(super) fn open_batch(
        &mut self,
        batch: Batch,
        start: usize,
        rows: &impl Rows,
        writes: &mut Writes,
    ) -> Result<Open, RowsError> {
        let refuse = |refusal: Refusal| {
            let frames = usize::try_from(batch.frames).unwrap_or_default();
            Open::Repeated(alloc::vec![Err(refusal); frames].into_iter())
        };
        let Some(recent) = self.recent.get(&batch.owner.node).filter(|of| of.incarnation >= batch.owner.incarnation)
        else {
            return Ok(Open::Fresh { batch, start, left: batch.frames });
        };
        if batch.owner.incarnation < recent.incarnation {
            let detail = format!("that life of node {} has ended", batch.owner.node);
            return Ok(refuse(Refusal::OutcomeUnknown(detail)));
        }
        if recent.numbers.contains(&batch.number) {
            let row = writes.get(rows, Family::Batches, &row_key(&batch, batch.number))?;
            let replies = row.as_deref().and_then(reply::decode).ok_or_else(|| RowsError::corrupt("batches"))?;
            return Ok(Open::Repeated(replies.into_iter()));
        }
        let newest = recent.numbers.last().copied().unwrap_or(0);
        if batch.number.saturating_add(BATCHES_PER_PRODUCER) <= newest {
            return Ok(refuse(Refusal::OutcomeUnknown("the batch came too late".into())));
        }
        Ok(Open::Fresh { batch, start, left: batch.frames })
    }

    /// Remembers the replies of a batch whose last frame was applied.
    pub(super) fn close_batch(&mut self, batch: &Batch, replies: &[Reply], writes: &mut Writes) {
        update(&mut self.recent, batch.owner.node, |recent| {
            if recent.incarnation < batch.owner.incarnation {
                let node = batch.owner.node;
                let (from, to) = (node.to_be_bytes().to_vec(), node.saturating_add(1).to_be_bytes().to_vec());
                writes.delete_range(Family::Batches, from, to);
                *recent = Recent { incarnation: batch.owner.incarnation, ..Recent::default() };
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

    /// Leaves a frame out that was applied before: readers of the entry must not count its events again.
    pub(super) fn skip(&self, frame: &Frame<'_>, ordinal: u32, touched: &mut Index) {
        if let Frame::Publish(publish) = frame
            && let Some(head) = self.heads.get(publish.namespace)
            && let Some(touched) = touched.get_mut(&head.id)
        {
            touched.row.refused.push(ordinal);
        }
    }
}
