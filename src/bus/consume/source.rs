//! A cursor over the events of a pattern: from the book while behind, from the feed when level.

use std::cell::{Cell, RefCell};
use std::ops::ControlFlow;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use rollbook_cluster::error::ReadError;
use rollbook_core::subjects::pattern::Pattern;

use crate::bus::handle::Bus;
use crate::bus::read::encoder::EventEncoder;
use crate::bus::read::feed::Attached;
use crate::bus::read::feed_buffer::{FeedBuffer, INBOX_EVENTS_MAX, Taken};
use crate::bus::read::stored_event::StoredEvent;

/// A page is cut at this size, behind the event that reaches it.
const PAGE_BYTES_MAX: usize = 128 << 10;
/// Most events that a look at the book considers before it comes back, so that a client who
/// left is noticed while a rare pattern is searched.
const PAGE_ITEMS_MAX: usize = 64;

/// Where a subscription is.
#[derive(Debug)]
pub struct Source {
    bus: Bus,
    pattern: Pattern,
    buffer: Arc<FeedBuffer>,
    place: Rc<SourceProgress>,
}

/// How far a source is, to be asked while it waits.
#[derive(Debug)]
pub struct SourceProgress {
    /// Position of the next event to consider.
    next: Cell<u64>,
    buffer: Arc<FeedBuffer>,
    attached: RefCell<Option<Attached>>,
}

impl SourceProgress {
    /// Every event before this position was considered, and what was wanted of it was given out.
    #[must_use]
    pub fn considered(&self) -> u64 {
        match &*self.attached.borrow() {
            Some(attached) => {
                // In this order: what came before the head is in the inbox or was taken.
                let head = attached.head();
                if self.buffer.is_empty() { head.max(self.next.get()) } else { self.next.get() }
            }
            None => self.next.get(),
        }
    }
}

/// What comes next.
#[derive(Debug)]
pub enum Page {
    /// Encoded frames, read from the book.
    Bytes(Bytes),
    /// Events, newest from the feed or older ones from the book.
    Items(Vec<Arc<StoredEvent>>),
}

impl Source {
    /// A cursor that begins at position `next`.
    #[must_use]
    pub fn new(bus: &Bus, pattern: Pattern, next: u64) -> Self {
        let buffer = Arc::new(FeedBuffer::new(INBOX_EVENTS_MAX));
        let place = SourceProgress { next: Cell::new(next), buffer: Arc::clone(&buffer), attached: RefCell::default() };
        Self { bus: bus.clone(), pattern, buffer, place: Rc::new(place) }
    }

    /// How far it is, also while [`Source::next`] waits.
    #[must_use]
    pub fn place(&self) -> Rc<SourceProgress> {
        Rc::clone(&self.place)
    }

    /// What comes next; pends until there is something. With a wire, older events come encoded.
    ///
    /// # Errors
    /// The book cannot be read.
    pub async fn next(&mut self, wire: Option<&'static dyn EventEncoder>) -> Result<Page, ReadError> {
        loop {
            if !self.is_attached() {
                let attached = self.bus.feed().attach(&self.pattern, self.place.next.get(), &self.buffer);
                self.place.attached.replace(attached);
            }
            if self.is_attached() {
                match self.buffer.take().await {
                    Taken::Items(mut items) => {
                        // The feed may be a moment behind what was applied when this source began.
                        items.retain(|item| item.sequence() >= self.place.next.get());
                        if let Some(last) = items.last() {
                            self.place.next.set(last.sequence().saturating_add(1));
                            return Ok(Page::Items(items));
                        }
                    }
                    Taken::Overflowed => drop(self.place.attached.take()),
                }
                continue;
            }
            // Out of line: thousands of level sources wait here without it.
            if let Some(page) = Box::pin(self.read(wire)).await? {
                return Ok(page);
            }
        }
    }

    fn is_attached(&self) -> bool {
        self.place.attached.borrow().is_some()
    }

    async fn read(&mut self, wire: Option<&'static dyn EventEncoder>) -> Result<Option<Page>, ReadError> {
        let (book, pattern, from) = (self.bus.node().state().book(), self.pattern.clone(), self.place.next.get());
        let read = move || -> Result<(Option<Page>, u64), ReadError> {
            let namespace = pattern.namespace();
            match wire {
                Some(wire) => {
                    let mut out = Vec::with_capacity(PAGE_BYTES_MAX.saturating_add(8 << 10));
                    let next = book.read(namespace, from, Some(&pattern), &mut |sequence, event, _| {
                        wire.event(i64::try_from(sequence).unwrap_or(i64::MAX), event, &mut out);
                        if out.len() < PAGE_BYTES_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
                    })?;
                    Ok(((!out.is_empty()).then(|| Page::Bytes(out.into())), next))
                }
                None => {
                    let (mut items, mut bytes) = (Vec::new(), 0_usize);
                    let next = book.read(namespace, from, Some(&pattern), &mut |sequence, _, record| {
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
        self.place.next.set(next.max(from));
        Ok(page)
    }
}
