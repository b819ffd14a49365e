//! Finds dead letters in the book, with what has become of them.

use std::ops::ControlFlow;

use rollbook_cluster::book::events::Book;
use rollbook_cluster::error::ReadError;
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::subjects::subject::Namespace;
use serde_json::value::RawValue;

use super::disposition::{self, Disposition};
use super::filter::LetterFilter;
use super::letter::Letter;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;

/// Most letters that one search looks at, and most bytes of them.
const LOOKED_AT_MAX: usize = 10_000;
const BYTES_MAX: usize = 64 << 20;
/// Most reads of one search, each of which is bounded itself.
const READS_MAX: usize = 16;

/// A part of the letters that fit.
#[derive(Debug)]
pub struct LetterPage {
    /// The letters, oldest first, with their dispositions.
    pub letters: Vec<(Letter, Option<Disposition>)>,
    /// The position to go on from; `None` when the end was reached. A search is bounded, so there may be a next page
    /// although this one is not full.
    pub next: Option<u64>,
}

/// A letter with its event.
#[derive(Debug)]
pub struct WholeLetter {
    /// The letter.
    pub letter: Letter,
    /// What has become of it.
    pub disposition: Option<Disposition>,
    /// The event as JSON.
    pub event: Box<RawValue>,
}

/// The positions of a search: `from ..= until`.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    /// The first position.
    pub from: u64,
    /// The last position.
    pub until: u64,
}

/// Position of the newest event of the namespace `_dead_`; 0 when there is none.
#[must_use]
pub fn newest(bus: &Bus) -> u64 {
    bus.node().state().namespace(Namespace::DEAD).map_or(0, |head| head.last())
}

/// Waits until this node knows all that was there before, also what other nodes did to letters.
///
/// # Errors
/// The node cannot know now.
pub async fn fresh(bus: &Bus) -> Result<(), Fault> {
    bus.node().consensus().read_barrier(Consistency::Linearizable).await?;
    Ok(())
}

/// At most `limit` letters of a span that fit, oldest first.
///
/// # Errors
/// The store failed.
pub async fn page(bus: &Bus, filter: &LetterFilter, span: Span, limit: usize) -> Result<LetterPage, Fault> {
    let (book, filter) = (bus.node().state().book(), filter.clone());
    Ok(bus.read(move || Search::new(&book, &filter, limit).run(span)).await?)
}

/// The letter of this id, or at this position.
///
/// # Errors
/// The store failed.
pub async fn find(bus: &Bus, named: &str) -> Result<Option<WholeLetter>, Fault> {
    let (book, named) = (bus.node().state().book(), named.to_owned());
    let find = move || {
        let index = match named.parse() {
            Ok(index) => Some(index),
            Err(_) => book.find_id(Namespace::DEAD, &named)?,
        };
        let Some(index) = index else { return Ok(None) };
        let read = book.get(Namespace::DEAD, index, |event| Letter::read_whole(index, event))?.flatten();
        let Some((letter, event)) = read else { return Ok(None) };
        let disposition = disposition_at(&book, index)?;
        Ok(Some(WholeLetter { letter, disposition, event }))
    };
    Ok(bus.read(find).await?)
}

/// The disposition of the letter at a position, if this node knows one.
///
/// # Errors
/// The store failed.
pub async fn disposition_of(bus: &Bus, index: u64) -> Result<Option<Disposition>, Fault> {
    let book = bus.node().state().book();
    Ok(bus.read(move || disposition_at(&book, index)).await?)
}

fn disposition_at(book: &Book, index: u64) -> Result<Option<Disposition>, ReadError> {
    let Some(at) = book.find_id(Namespace::DEAD, &disposition::id_of(index))? else { return Ok(None) };
    Ok(book.get(Namespace::DEAD, at, Disposition::read)?.flatten())
}

/// One bounded search.
struct Search<'s> {
    book: &'s Book,
    filter: &'s LetterFilter,
    /// Most letters that are wanted.
    limit: usize,
    found: Vec<(Letter, Option<Disposition>)>,
    /// Letters and bytes that may still be looked at.
    letters_left: usize,
    bytes_left: usize,
}

impl<'s> Search<'s> {
    const fn new(book: &'s Book, filter: &'s LetterFilter, limit: usize) -> Self {
        Self { book, filter, limit, found: Vec::new(), letters_left: LOOKED_AT_MAX, bytes_left: BYTES_MAX }
    }

    fn has_ended(&self) -> bool {
        self.found.len() >= self.limit || self.letters_left == 0 || self.bytes_left == 0
    }

    fn run(mut self, span: Span) -> Result<LetterPage, ReadError> {
        let until = span.until.min(self.book.head(Namespace::DEAD).map_or(0, |head| head.last()));
        let (mut at, mut reads) = (span.from.max(1), 0);
        while at <= until && reads < READS_MAX && !self.has_ended() {
            reads += 1;
            at = self.step(Span { from: at, until })?;
        }
        Ok(LetterPage { letters: self.found, next: (at <= until).then_some(at) })
    }

    /// Reads on from `span.from`. Returns the position behind what was looked at.
    fn step(&mut self, span: Span) -> Result<u64, ReadError> {
        let room = self.limit.saturating_sub(self.found.len());
        let (mut letters, mut bytes) = (self.letters_left, self.bytes_left);
        let mut fitting = Vec::new();
        let next =
            self.book.read(Namespace::DEAD, span.from, Some(self.filter.pattern()), &mut |index, event, record| {
                if index > span.until {
                    return ControlFlow::Break(());
                }
                (letters, bytes) = (letters.saturating_sub(1), bytes.saturating_sub(record.len()));
                fitting.extend(Letter::read(index, event).filter(|letter| self.filter.fits(letter)));
                if fitting.len() >= room || letters == 0 || bytes == 0 {
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
        (self.letters_left, self.bytes_left) = (letters, bytes);
        for letter in fitting {
            let disposition = disposition_at(self.book, letter.index)?;
            if self.filter.wants(disposition.as_ref()) {
                self.found.push((letter, disposition));
            }
        }
        Ok(next)
    }
}
