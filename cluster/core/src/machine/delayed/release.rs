//! Appends the waiting events whose time has come.

use alloc::string::String;
use alloc::vec::Vec;

use super::keys;
use crate::command::{Done, Reply};
use crate::event::Event;
use crate::limits::{RELEASE_BYTES_MAX, RELEASE_EVENTS_MAX};
use crate::machine::effects::{self, Effects};
use crate::machine::events::{ids, keys as dedupe};
use crate::machine::{Machine, save_head, tidy};
use crate::namespace::Head;
use crate::rows::{self, Rows, RowsError};
use crate::timed::delayed::DelayedId;

/// Most rows that are read at a time. Their records may be large.
const PAGE_ROWS: usize = 32;

/// How many events and bytes one command may still append.
struct Budget {
    events: usize,
    bytes: usize,
}

impl Budget {
    /// Whether the command appends another event.
    const fn is_left(&self) -> bool {
        self.events > 0 && self.bytes > 0
    }

    /// Takes an event of so many bytes from the budget. The last event may be larger than what is left.
    const fn spend(&mut self, bytes: usize) {
        self.events = self.events.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}

impl Machine {
    /// Appends the next events that are due by the time of the log, those of one namespace after those of another.
    pub(in crate::machine) fn release_delayed(
        &mut self,
        rows: &impl Rows,
        effects: &mut Effects<'_>,
    ) -> Result<Reply, RowsError> {
        let mut budget = Budget { events: RELEASE_EVENTS_MAX, bytes: RELEASE_BYTES_MAX };
        while let Some(name) = self.next_due() {
            if !budget.is_left() {
                return Ok(Ok(Done::More));
            }
            self.release_of(&name, &mut budget, rows, effects)?;
        }
        Ok(Ok(Done::Nothing))
    }

    /// The namespace whose first waiting event is due for the longest time.
    fn next_due(&self) -> Option<String> {
        let (_, name) = self.delayed.due.first().filter(|(at, _)| *at <= self.millis)?;
        Some(name.clone())
    }

    /// Appends the events of one namespace that are due, within the budget.
    fn release_of(
        &mut self,
        name: &str,
        budget: &mut Budget,
        rows: &impl Rows,
        effects: &mut Effects<'_>,
    ) -> Result<(), RowsError> {
        let millis = self.millis;
        let head = self.heads.get_mut(name).ok_or_else(|| RowsError::corrupt("heads"))?;
        let (before, tidy_due) = (head.clone(), tidy::due(head));
        let of = head.delayed.unwrap_or_default();
        let id = |due, number| DelayedId { namespace: before.id, due, number };
        let mut from = keys::key(id(of.first_due, of.first_number));
        let to = keys::key(id(millis.saturating_add(1), 0));
        while budget.is_left() {
            let limit = PAGE_ROWS.min(budget.events);
            let page = effects.writes.scan(rows, keys::FAMILY, &from, &to, limit)?;
            let is_last = page.len() < limit;
            for (key, record) in page {
                if !budget.is_left() {
                    break;
                }
                budget.spend(record.len());
                from = rows::successor(&key);
                release(head, millis, (key, record), rows, effects)?;
            }
            if is_last {
                break;
            }
        }
        find_first(head, &from, rows, effects)?;
        save_head(head, effects.writes);
        self.delayed.changed(&before, head);
        self.reschedule_tidy(name, tidy_due);
        Ok(())
    }
}

/// Appends one event to its namespace, deletes its row, and enters its sequence number where its key and id are.
fn release(
    head: &mut Head,
    millis: u64,
    (key, record): (Vec<u8>, Vec<u8>),
    rows: &impl Rows,
    effects: &mut Effects<'_>,
) -> Result<(), RowsError> {
    let corrupt = || RowsError::corrupt("delayed");
    let id = keys::parse(&key).ok_or_else(corrupt)?;
    let (event, _) = Event::decode(&record).ok_or_else(corrupt)?;
    let sequence = head.next;
    if !event.id.is_empty() {
        ids::appended(head, &event, sequence, effects.writes);
    }
    if !event.key.is_empty() {
        dedupe::appended(head, &event, id, sequence, rows, effects.writes)?;
    }
    effects.writes.delete(keys::FAMILY, key);
    let bytes = record.len();
    effects::append_made(head, millis, record, effects);
    count_out(head, bytes);
    Ok(())
}

/// An event with a record of so many bytes waits no longer.
pub(super) fn count_out(head: &mut Head, bytes: usize) {
    let of = head.delayed.get_or_insert_default();
    of.events = of.events.saturating_sub(1);
    of.bytes = of.bytes.saturating_sub(u64::try_from(bytes).unwrap_or(u64::MAX));
}

/// Enters which event is the first that still waits for the namespace: no row before the key `from` is one.
pub(super) fn find_first(
    head: &mut Head,
    from: &[u8],
    rows: &impl Rows,
    effects: &Effects<'_>,
) -> Result<(), RowsError> {
    let namespace = head.id;
    let of = head.delayed.get_or_insert_default();
    (of.first_due, of.first_number) = (0, 0);
    if of.events > 0 {
        let found = effects.writes.scan(rows, keys::FAMILY, from, &keys::bounds(namespace).1, 1)?;
        let id = found.first().and_then(|(key, _)| keys::parse(key)).ok_or_else(|| RowsError::corrupt("delayed"))?;
        (of.first_due, of.first_number) = (id.due, id.number);
    }
    Ok(())
}
