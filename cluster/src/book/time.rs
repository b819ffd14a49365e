//! Where a time is in a namespace: positions grow with the time of the log, so a search by halves finds it.

use std::ops::ControlFlow;

use rollbook_core::namespace::Head;
use rollbook_core::time::Timestamp;

use super::events::Book;
use super::settle::index_rows;
use crate::error::ReadError;
use crate::state::state::Databases;

impl Book {
    /// The position of the first event that was stored at this time or later, in milliseconds since 1970 as the leader
    /// counted them; the next position when there is none. The time of a settled event is known by its block: of the
    /// first block that reaches the time, the events at its beginning are passed by whose `created_at` is before. May
    /// read from the disk.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn at_time(&self, namespace: &str, millis: u64) -> Result<u64, ReadError> {
        let Some(head) = self.head(namespace) else { return Ok(1) };
        loop {
            let databases = self.databases();
            let settled = databases.ledger.settled(head.id);
            let found = self.look(&databases, &head, settled, millis)?;
            // Rows of events that are settled meanwhile are not found in the state any more.
            if databases.ledger.settled(head.id) == settled {
                return Ok(found);
            }
        }
    }

    fn look(&self, databases: &Databases, head: &Head, settled: u64, millis: u64) -> Result<u64, ReadError> {
        let settled = settled.clamp(head.first, head.next);
        let found = block_at(databases, head, settled, millis)?;
        if found < settled {
            return self.behind(&head.name, found, Timestamp::from_millis(millis));
        }
        for row in index_rows(&databases.state, head.id, databases.dropped(head.id), settled)? {
            let (first, row) = row?;
            if row.millis >= millis {
                return Ok(first.max(settled));
            }
        }
        Ok(head.next)
    }

    /// The first event from a position on that was created at a time or later. Only events of one block are passed by.
    fn behind(&self, namespace: &str, from: u64, time: Timestamp) -> Result<u64, ReadError> {
        let mut found = None;
        let next = self.read(namespace, from, None, &mut |sequence, event, _| {
            if event.created_at < time {
                return ControlFlow::Continue(());
            }
            found = Some(sequence);
            ControlFlow::Break(())
        })?;
        Ok(found.unwrap_or(next))
    }
}

/// The position of the first block whose newest event is of this time or later; `settled` when there is none.
fn block_at(databases: &Databases, head: &Head, settled: u64, millis: u64) -> Result<u64, ReadError> {
    let (mut low, mut high) = (head.first, settled);
    while low < high {
        let middle = low.midpoint(high);
        let mut block = None;
        databases.ledger.walk(head.id, middle, |first, outline| {
            block = Some((first, first.saturating_add(outline.events), outline.millis));
            ControlFlow::Break(())
        })?;
        match block {
            Some((_, end, newest)) if newest < millis => low = end.max(middle.saturating_add(1)),
            Some((first, ..)) => high = first.clamp(low, middle),
            None => high = middle,
        }
    }
    Ok(low.min(settled))
}
