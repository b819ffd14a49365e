//! Reads the book: events of a namespace from a position on, wherever they are stored.

use std::ops::ControlFlow;
use std::sync::Arc;

use prost::Message as _;
use rocksdb::{Direction, IteratorMode, ReadOptions};
use rollbook_core::event::{Event, EventId};
use rollbook_core::namespace::Head;
use rollbook_core::rows::{Family, IndexRow, index_key, index_sequence, key};
use rollbook_core::subjects::pattern::Pattern;

pub use crate::error::ReadError;
use crate::ledger::ledger::SeekResult;
use crate::ledger::records;
use crate::log::store::LogStore;
use crate::state::state::{Databases, State};
use crate::store::layout::family;

/// Most blocks and entries that one read looks into: a client that left meanwhile is noticed between reads.
const STEPS_MAX: usize = 512;
/// Most blocks that one read passes by because their filter excludes the pattern: 16 MiB of filters, that is 1 GiB of
/// records.
const FILTERS_MAX: usize = 8192;

/// The arguments of a visitor of [`Book::read`]: a sequence number, the event with that number, and its whole record.
pub type Visit<'v> = dyn FnMut(u64, &Event<'_>, &[u8]) -> ControlFlow<()> + 'v;

/// Read access to all events of a node. A clone reads the same stores.
#[derive(Clone)]
pub struct Book {
    state: Arc<State>,
    log: LogStore,
}

impl std::fmt::Debug for Book {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Book").finish_non_exhaustive()
    }
}

impl Book {
    pub(crate) const fn new(state: Arc<State>, log: LogStore) -> Self {
        Self { state, log }
    }

    /// The namespace of this name; `None` when no such namespace exists.
    #[must_use]
    pub fn head(&self, name: &str) -> Option<Head> {
        self.state.machine().head(name).cloned()
    }

    /// Shows the events of `namespace` from `from` on to `visit`, in order, without gaps, until it
    /// breaks, the newest event was shown, or a bounded part of the book was searched. With a pattern,
    /// only events of the pattern are shown.
    ///
    /// Returns the sequence number to go on from. May read from the disk: not for async threads.
    ///
    /// # Errors
    /// The store failed or is damaged; nothing is skipped silently.
    pub fn read(
        &self,
        namespace: &str,
        from: u64,
        pattern: Option<&Pattern>,
        visit: &mut Visit<'_>,
    ) -> Result<u64, ReadError> {
        let Some(head) = self.head(namespace) else { return Ok(from) };
        let mut next = from.max(head.first);
        let mut steps = 0;
        let mut filters = FILTERS_MAX;
        while next < head.next && steps < STEPS_MAX && filters > 0 {
            steps += 1;
            let step = match self.reader().step(&head, next, pattern, visit, &mut filters) {
                Ok(Step::Missing) => self.missing(&head, next)?,
                Ok(step) => step,
                // Events that are trimmed while they are read may be gone from the log and from the ledger.
                Err(_) if self.is_out_of_sight(&head, next) => return Ok(next),
                Err(error) => return Err(error),
            };
            match step {
                Step::More(sequence) => next = sequence,
                Step::Broken(sequence) => return Ok(sequence),
                Step::Missing => return Ok(next),
            }
        }
        Ok(next)
    }

    /// The event at a position. May read from the disk.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn get<T>(
        &self,
        namespace: &str,
        sequence: u64,
        show: impl FnOnce(&Event<'_>) -> T,
    ) -> Result<Option<T>, ReadError> {
        let (mut show, mut shown) = (Some(show), None);
        self.read(namespace, sequence, None, &mut |at, event, _| {
            if at == sequence {
                shown = show.take().map(|show| show(event));
            }
            ControlFlow::Break(())
        })?;
        Ok(shown)
    }

    /// The position of the event with this id. May read from the disk.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn find_id(&self, namespace: &str, id: &str) -> Result<Option<u64>, ReadError> {
        let Some(head) = self.head(namespace) else { return Ok(None) };
        let chosen = self.state.row(Family::Ids, &key(head.id, &[id.as_bytes()]))?;
        if let Some(sequence) = chosen.and_then(|value| value.first_chunk().map(|bytes| u64::from_be_bytes(*bytes)))
            && (head.first..head.next).contains(&sequence)
        {
            return Ok(Some(sequence));
        }
        let Some(own) = EventId::parse(id).filter(|own| (head.first..head.next).contains(&own.sequence)) else {
            return Ok(None);
        };
        let found = self.reader().event_id(&head, own.sequence)?;
        Ok(found.filter(|found| found == id).map(|_| own.sequence))
    }

    /// Sequence number behind the last settled event of a namespace.
    #[must_use]
    pub fn settled(&self, head: &Head) -> u64 {
        self.state.ledger().settled(head.id)
    }

    /// Bytes of the settled blocks of a namespace.
    #[must_use]
    pub fn settled_bytes(&self, head: &Head) -> u64 {
        self.state.ledger().stored_bytes(head.id)
    }

    pub(super) fn databases(&self) -> Arc<Databases> {
        self.state.databases()
    }

    /// The events at `from` were neither in the log nor in the ledger when we looked.
    fn missing(&self, head: &Head, from: u64) -> Result<Step, ReadError> {
        if self.is_out_of_sight(head, from) {
            return Ok(Step::Broken(from));
        }
        if self.settled(head) > from {
            return Ok(Step::More(from));
        }
        Err(ReadError(format!("event {from} of namespace {} is missing", head.name)))
    }

    /// Whether the event at `sequence` is not visible any more, after its rows were looked for in vain.
    fn is_out_of_sight(&self, head: &Head, sequence: u64) -> bool {
        let machine = self.state.machine_behind_rows();
        machine.head(&head.name).is_none_or(|now| now.id != head.id || now.first > sequence)
    }

    fn reader(&self) -> Reader<'_> {
        Reader { state: &self.state, log: &self.log }
    }
}

/// Reads by a given [`Head`], without a look at the machine.
#[derive(Clone, Copy)]
pub(crate) struct Reader<'a> {
    pub(crate) state: &'a State,
    pub(crate) log: &'a LogStore,
}

impl Reader<'_> {
    /// Shows the events of one block or one entry.
    fn step(
        &self,
        head: &Head,
        from: u64,
        pattern: Option<&Pattern>,
        visit: &mut Visit<'_>,
        filters: &mut usize,
    ) -> Result<Step, ReadError> {
        let databases = self.state.databases();
        if from >= databases.ledger.settled(head.id) {
            return self.step_log(&databases, head, from, pattern, visit);
        }
        match databases.ledger.seek(head.id, from, pattern, filters)? {
            SeekResult::Block(found) => show(&found.records, found.first, found.events, from, pattern, visit),
            SeekResult::Passed(next) => Ok(Step::More(next)),
        }
    }

    /// The id of one event.
    pub(crate) fn event_id(&self, head: &Head, sequence: u64) -> Result<Option<String>, ReadError> {
        let mut id = None;
        let mut visit = |at: u64, event: &Event<'_>, _: &[u8]| {
            if at == sequence {
                let mut text = Vec::with_capacity(24);
                event.write_id(at, &mut text);
                id = String::from_utf8(text).ok();
            }
            ControlFlow::Break(())
        };
        // Between the looks at ledger and log the event may have been settled; then the second finds it.
        for mut filters in [1, 1] {
            if !matches!(self.step(head, sequence, None, &mut visit, &mut filters)?, Step::Missing) {
                return Ok(id);
            }
        }
        Err(ReadError(format!("event {sequence} of namespace {} is missing", head.name)))
    }

    fn step_log(
        &self,
        databases: &Databases,
        head: &Head,
        from: u64,
        pattern: Option<&Pattern>,
        visit: &mut Visit<'_>,
    ) -> Result<Step, ReadError> {
        let Some((first, row)) = index_row(databases, head.id, from)? else { return Ok(Step::Missing) };
        let mut sequence = first;
        let mut broken = None;
        let found = records::visit(&databases.state, self.log, head, first, &row, &mut |events, records| {
            Ok(match show(records, sequence, events, from, pattern, visit)? {
                Step::More(next) => {
                    sequence = next;
                    ControlFlow::Continue(())
                }
                other @ (Step::Broken(_) | Step::Missing) => {
                    broken = Some(other);
                    ControlFlow::Break(())
                }
            })
        })?;
        if let Some(step) = broken {
            return Ok(step);
        }
        if !found {
            return Ok(Step::Missing);
        }
        Ok(Step::More(sequence.max(from)))
    }
}

/// The index row that holds `sequence`, and the sequence number of its first event.
fn index_row(databases: &Databases, namespace: u32, sequence: u64) -> Result<Option<(u64, IndexRow)>, ReadError> {
    let mut options = ReadOptions::default();
    // Iterating over what was removed is slow.
    options.set_iterate_lower_bound(index_key(namespace, databases.dropped(namespace)));
    let start = index_key(namespace, sequence);
    let family = family(&databases.state, Family::Index.name())?;
    let mut rows = databases.state.iterator_cf_opt(family, options, IteratorMode::From(&start, Direction::Reverse));
    let Some(row) = rows.next() else { return Ok(None) };
    let (key, value) = row?;
    let Some(first) = index_sequence(namespace, &key) else { return Ok(None) };
    let row = IndexRow::decode(value.as_ref()).map_err(|e| ReadError(format!("index row: {e}")))?;
    Ok((first.saturating_add(row.events) > sequence).then_some((first, row)))
}

/// How far a read came.
enum Step {
    /// Go on from here.
    More(u64),
    /// The visitor had enough; go on from here another time.
    Broken(u64),
    /// The event is not where the reader looked: settled or trimmed meanwhile.
    Missing,
}

/// Shows the events in `records`, the first of which is `first`, from `from` on.
fn show(
    records: &[u8],
    first: u64,
    events: u64,
    from: u64,
    pattern: Option<&Pattern>,
    visit: &mut Visit<'_>,
) -> Result<Step, ReadError> {
    let mut rest = records;
    let mut sequence = first;
    let end = first.saturating_add(events);
    while sequence < end {
        let damaged = || ReadError(format!("damaged record of event {sequence}"));
        if sequence < from {
            rest = Event::skip(rest).and_then(|used| rest.get(used..)).ok_or_else(damaged)?;
            sequence = sequence.saturating_add(1);
            continue;
        }
        let (event, used) = Event::decode(rest).ok_or_else(damaged)?;
        let (record, after) = rest.split_at_checked(used).ok_or_else(damaged)?;
        rest = after;
        let shown = pattern.is_none_or(|pattern| pattern.matches(event.subject));
        let flow = if shown { visit(sequence, &event, record) } else { ControlFlow::Continue(()) };
        sequence = sequence.saturating_add(1);
        if flow.is_break() {
            return Ok(Step::Broken(sequence));
        }
    }
    if !rest.is_empty() {
        return Err(ReadError(format!("there are more records than the events {first} to {}", end.saturating_sub(1))));
    }
    Ok(Step::More(sequence))
}
