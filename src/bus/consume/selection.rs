//! Which events of its subjects a source gives out.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::Arc;

use rollbook_core::event::Event;
use rollbook_core::subjects::pattern::Pattern;

use crate::bus::delivery::filter::HeaderFilter;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;

/// Most subjects whose newest events a stream begins with.
const SUBJECTS_MAX: usize = 100_000;
/// Most bytes of their names.
const SUBJECT_BYTES_MAX: usize = 16 << 20;

/// The newest event of each subject, as of a position.
#[derive(Debug, Clone, Default)]
pub struct Newest {
    /// The positions of these events.
    events: Arc<BTreeSet<u64>>,
    /// Events from here on are newer.
    until: u64,
}

/// Which events a source gives out.
#[derive(Debug, Clone, Default)]
pub(super) struct Selection {
    /// Those with these headers.
    pub(super) headers: HeaderFilter,
    /// Of older ones only these.
    pub(super) newest: Option<Newest>,
}

impl Selection {
    /// Whether every event is given out.
    pub(super) fn is_all(&self) -> bool {
        self.headers.is_empty() && self.newest.is_none()
    }

    /// Whether an event is given out.
    pub(super) fn takes(&self, sequence: u64, event: &Event<'_>) -> bool {
        let newest = |newest: &Newest| sequence >= newest.until || newest.events.contains(&sequence);
        self.newest.as_ref().is_none_or(newest) && self.headers.takes(event)
    }
}

impl Newest {
    /// Finds the newest event of each subject of a pattern that has certain headers. Reads all that is kept.
    ///
    /// # Errors
    /// There are more than 100,000 subjects, or the book cannot be read.
    pub async fn find(bus: &Bus, pattern: &Pattern, headers: &HeaderFilter) -> Result<Self, Fault> {
        let head = bus.node().state().namespace(pattern.namespace());
        let (first, until) = head.map_or((1, 1), |head| (head.first, head.next));
        let (mut found, mut from) = (Found::default(), first);
        while from < until {
            (found, from) = Self::look(bus, pattern, headers, (found, from)).await?;
        }
        let events = found.events.into_values().filter(|sequence| *sequence < until).collect();
        Ok(Self { events: Arc::new(events), until })
    }

    /// Reads a part of the book.
    async fn look(
        bus: &Bus,
        pattern: &Pattern,
        headers: &HeaderFilter,
        (mut found, from): (Found, u64),
    ) -> Result<(Found, u64), Fault> {
        let (book, pattern, headers) = (bus.node().state().book(), pattern.clone(), headers.clone());
        let read = move || {
            let next = book.read(pattern.namespace(), from, Some(&pattern), &mut |sequence, event, _| {
                if headers.takes(event) {
                    found.add(event.subject, sequence);
                }
                if found.is_full() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            next.map(|next| (found, next))
        };
        let (found, next) = bus.read(read).await.map_err(|error| {
            tracing::error!(%error, "a stream cannot be opened");
            Fault::internal("failed to initialize event stream")
        })?;
        if found.is_full() {
            let text =
                format!("start: last_per_subject is for at most {SUBJECTS_MAX} subjects and 16 MiB of their names");
            return Err(Fault::bad(text));
        }
        // A read that gets no further has met the end of what this node has applied.
        Ok(if next > from { (found, next) } else { (found, u64::MAX) })
    }
}

/// The newest event of each subject so far.
#[derive(Debug, Default)]
struct Found {
    events: HashMap<String, u64>,
    bytes: usize,
}

impl Found {
    fn add(&mut self, subject: &str, sequence: u64) {
        match self.events.get_mut(subject) {
            Some(newest) => *newest = sequence,
            None => {
                self.bytes = self.bytes.saturating_add(subject.len());
                self.events.insert(subject.to_owned(), sequence);
            }
        }
    }

    fn is_full(&self) -> bool {
        self.events.len() > SUBJECTS_MAX || self.bytes > SUBJECT_BYTES_MAX
    }
}
