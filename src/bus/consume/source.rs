//! A cursor over the events of a pattern. Events come from the book while the cursor is behind, and from the feed once
//! the cursor has caught up.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rollbook_cluster::error::ReadError;
use rollbook_core::subjects::pattern::Pattern;

use super::selection::{Newest, Selection};
use crate::bus::delivery::filter::HeaderFilter;
use crate::bus::handle::Bus;
use crate::bus::read::encoder::EventEncoder;
use crate::bus::read::feed::Attached;
use crate::bus::read::feed_buffer::{FeedBuffer, INBOX_EVENTS_MAX, Taken};
use crate::bus::read::stored_event::StoredEvent;

/// A page ends behind the event that reaches this size.
const PAGE_BYTES_MAX: usize = 128 << 10;
/// Most events of one page from the book. The bound keeps reads short, so that a client that left is noticed.
const PAGE_ITEMS_MAX: usize = 512;

/// The cursor of one subscription or consumer.
#[derive(Debug)]
pub struct Source {
    /// The book and the feed.
    bus: Bus,
    /// The subjects that the reader wants.
    pattern: Pattern,
    /// Which events of the subjects.
    filter: Selection,
    /// Where the feed puts events for this reader.
    buffer: Arc<FeedBuffer>,
    /// How far the cursor is, shared with callers that ask while a read is running.
    progress: Rc<SourceProgress>,
}

/// How far a source is. Callers read the progress while [`Source::next`] waits.
#[derive(Debug)]
pub struct SourceProgress {
    /// Position of the next event to consider.
    next: Cell<u64>,
    /// Shows whether events of the feed wait that the source has not given out.
    buffer: Arc<FeedBuffer>,
    /// The place in the feed; `None` while events come from the book.
    attached: RefCell<Option<Attached>>,
}

impl SourceProgress {
    /// Every event before this position was considered, and those that match the pattern were given out.
    #[must_use]
    pub fn considered(&self) -> u64 {
        match &*self.attached.borrow() {
            Some(attached) => {
                // Read the head first: events before the head are in the buffer or were taken.
                let head = attached.head();
                if self.buffer.is_empty() { head.max(self.next.get()) } else { self.next.get() }
            }
            None => self.next.get(),
        }
    }
}

/// One step of a source.
#[derive(Debug)]
pub enum Page {
    /// Encoded frames, read from the book.
    Bytes(Bytes),
    /// Events, new ones from the feed or older ones from the book.
    Items(Vec<Arc<StoredEvent>>),
}

impl Source {
    /// A cursor that begins at position `next`.
    #[must_use]
    pub fn new(bus: &Bus, pattern: Pattern, next: u64) -> Self {
        let buffer = Arc::new(FeedBuffer::new(INBOX_EVENTS_MAX));
        let progress =
            SourceProgress { next: Cell::new(next), buffer: Arc::clone(&buffer), attached: RefCell::default() };
        Self { bus: bus.clone(), pattern, filter: Selection::default(), buffer, progress: Rc::new(progress) }
    }

    /// The same cursor, over events with certain headers.
    #[must_use]
    pub fn filtered(mut self, headers: HeaderFilter) -> Self {
        self.filter.headers = headers;
        self
    }

    /// The same cursor, over only these events of those before a position.
    #[must_use]
    pub fn of_old_only(mut self, newest: Newest) -> Self {
        self.filter.newest = Some(newest);
        self
    }

    /// How far the cursor is, also while [`Source::next`] waits.
    #[must_use]
    pub fn progress(&self) -> Rc<SourceProgress> {
        Rc::clone(&self.progress)
    }

    /// The next page; pends until there is one. With an encoder, pages from the book come encoded.
    ///
    /// # Errors
    /// The book cannot be read.
    pub async fn next(&mut self, encoder: Option<&'static dyn EventEncoder>) -> Result<Page, ReadError> {
        loop {
            if !self.is_attached() {
                let attached = self.bus.feed().attach(&self.pattern, self.progress.next.get(), &self.buffer);
                self.progress.attached.replace(attached);
            }
            if self.is_attached() {
                match self.buffer.take().await {
                    Taken::Items(mut items) => {
                        // The feed may be a moment behind what was applied when this source began.
                        items.retain(|item| item.sequence() >= self.progress.next.get());
                        let Some(last) = items.last().map(|item| item.sequence()) else { continue };
                        self.progress.next.set(last.saturating_add(1));
                        if !self.filter.is_all() {
                            items.retain(|item| self.filter.takes(item.sequence(), &item.event()));
                        }
                        if !items.is_empty() {
                            return Ok(Page::Items(items));
                        }
                    }
                    Taken::Overflowed => drop(self.progress.attached.take()),
                }
                continue;
            }
            // Out of line: thousands of level sources wait here without it.
            if let Some(page) = Box::pin(self.read(encoder)).await? {
                return Ok(page);
            }
        }
    }

    /// Whether events come from the feed.
    fn is_attached(&self) -> bool {
        self.progress.attached.borrow().is_some()
    }

    /// Reads a page from the book; `None` when no event matched in the part that was searched.
    async fn read(&mut self, encoder: Option<&'static dyn EventEncoder>) -> Result<Option<Page>, ReadError> {
        let (book, pattern, from) = (self.bus.node().state().book(), self.pattern.clone(), self.progress.next.get());
        let filter = self.filter.clone();
        let read = move || -> Result<(Option<Page>, u64), ReadError> {
            let namespace = pattern.namespace();
            match encoder {
                Some(encoder) => {
                    let mut out = Vec::with_capacity(PAGE_BYTES_MAX.saturating_add(8 << 10));
                    let next = book.read(namespace, from, Some(&pattern), &mut |sequence, event, _| {
                        if !filter.takes(sequence, event) {
                            return ControlFlow::Continue(());
                        }
                        encoder.event(i64::try_from(sequence).unwrap_or(i64::MAX), event, None, &mut out);
                        if out.len() < PAGE_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                    })?;
                    Ok(((!out.is_empty()).then(|| Page::Bytes(out.into())), next))
                }
                None => {
                    let (mut items, mut bytes) = (Vec::new(), 0_usize);
                    let next = book.read(namespace, from, Some(&pattern), &mut |sequence, event, record| {
                        if !filter.takes(sequence, event) {
                            return ControlFlow::Continue(());
                        }
                        bytes = bytes.saturating_add(record.len());
                        items.push(Arc::new(StoredEvent::stored(sequence, Bytes::copy_from_slice(record))));
                        let full = items.len() >= PAGE_ITEMS_MAX || bytes >= PAGE_BYTES_MAX;
                        if full { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
                    })?;
                    Ok(((!items.is_empty()).then_some(Page::Items(items)), next))
                }
            }
        };
        let (page, next) = self.bus.read(read).await?;
        self.progress.next.set(next.max(from));
        Ok(page)
    }
}
