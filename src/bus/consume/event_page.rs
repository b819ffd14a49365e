//! Pages of stored events, for those who look something up instead of following it.
//!
//! A page is bounded in events, in bytes, and in how far it looks: one that is short may have another one behind it.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::Arc;

use rollbook_cluster::book::events::Visit;
use rollbook_cluster::error::ReadError;
use rollbook_core::event::Event;
use rollbook_core::namespace::Head;
use rollbook_core::security::right::Verb;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::time::Timestamp;

use crate::bus::error::Fault;
use crate::bus::handle::Bus;
use crate::bus::read::event_json;
use crate::bus::security::identity::Identity;

/// A page ends with the event that reaches this size, in bytes of JSON.
const PAGE_BYTES_MAX: usize = 4 << 20;
/// How many positions of the log one page looks at.
const DEPTH: u64 = 100_000;
/// How many positions the first step back looks at; each further step looks at twice as many.
const STEP_BACK_MIN: u64 = 256;
/// Most positions of one step back: so many events are read again when the page is full in the middle of the step.
const STEP_BACK_MAX: u64 = 16_384;
/// How much later than it was stored an event may say that it was created, in milliseconds: clocks of nodes differ.
const CLOCKS_DIFFER_MS: u64 = 3_600_000;

/// In which order the events of a page come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// The oldest first.
    Ascending,
    /// The newest first.
    Descending,
}

/// Which events somebody may look at.
#[derive(Debug, Clone)]
pub struct Visible {
    /// The subjects that are asked for.
    pattern: Pattern,
    /// Whoever may subscribe to a part of them only; each event is checked.
    partly: Option<Arc<Identity>>,
}

impl Visible {
    /// Checks that a client may subscribe to the subjects of a pattern, or to some of them.
    ///
    /// # Errors
    /// The client may subscribe to none of them: see [`Identity::check`].
    pub fn to(identity: &Arc<Identity>, pattern: Pattern) -> Result<Self, Fault> {
        if identity.may_subscribe(&pattern) {
            return Ok(Self { pattern, partly: None });
        }
        if !identity.grant().rights().allows_some_subscription(pattern.as_str()) {
            identity.check_subscription(&pattern)?;
        }
        Ok(Self { pattern, partly: Some(Arc::clone(identity)) })
    }

    /// The namespace of the subjects.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.pattern.namespace()
    }

    /// Whether the client sees an event of this subject.
    fn has(&self, subject: &str) -> bool {
        self.pattern.matches(subject)
            && self.partly.as_ref().is_none_or(|identity| identity.may(Verb::Subscribe, subject))
    }
}

/// Which page.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// The events that may be on it.
    pub visible: Visible,
    /// Their order.
    pub order: Order,
    /// Index of the first event to look at; without one, the end of the log at which the order begins.
    pub from: Option<u64>,
    /// Most events, at least 1.
    pub limit: usize,
    /// Only events that were created at this time or later.
    pub since: Option<Timestamp>,
    /// Only events that were created before this time.
    pub until: Option<Timestamp>,
}

impl PageRequest {
    /// Whether an event belongs on the page.
    fn has(&self, event: &Event<'_>) -> bool {
        self.since.is_none_or(|since| event.created_at >= since)
            && self.until.is_none_or(|until| event.created_at < until)
            && self.visible.has(event.subject)
    }
}

/// A page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EventPage {
    /// The JSON of each event, in the order that was asked for.
    pub events: Vec<Vec<u8>>,
    /// The index at which the next page begins; `None` when there is none.
    pub next: Option<u64>,
}

impl EventPage {
    /// Whether a page with so many bytes takes no further event.
    fn is_full(&self, limit: usize, bytes: usize) -> bool {
        self.events.len() >= limit || bytes >= PAGE_BYTES_MAX
    }
}

/// Reads a page; empty when the namespace does not exist.
///
/// # Errors
/// The book cannot be read.
pub async fn page(bus: &Bus, wanted: PageRequest) -> Result<EventPage, ReadError> {
    let book = bus.node().state().book();
    let read = move || {
        let namespace = wanted.visible.namespace().to_owned();
        let Some(mut head) = book.head(&namespace) else { return Ok(EventPage::default()) };
        if let Some(since) = wanted.since {
            let stored = millis(since).saturating_sub(CLOCKS_DIFFER_MS);
            head.first = book.at_time(&namespace, stored)?.max(head.first);
        }
        let read = |from, pattern: Option<&Pattern>, visit: &mut Visit<'_>| book.read(&namespace, from, pattern, visit);
        match wanted.order {
            Order::Ascending => ascending(&wanted, &head, read),
            Order::Descending => descending(&wanted, &head, read),
        }
    };
    bus.read(read).await
}

/// The JSON of one event, by its id or else by its index; `None` when there is none that the client may see.
///
/// # Errors
/// The book cannot be read.
pub async fn one(bus: &Bus, visible: Visible, which: String) -> Result<Option<Vec<u8>>, ReadError> {
    let book = bus.node().state().book();
    let read = move || {
        let namespace = visible.namespace().to_owned();
        let by_id = book.find_id(&namespace, &which)?;
        let Some(sequence) = by_id.or_else(|| which.parse().ok()) else { return Ok(None) };
        let found =
            book.get(&namespace, sequence, |event| visible.has(event.subject).then(|| json(sequence, event)))?;
        Ok(found.flatten())
    };
    bus.read(read).await
}

/// Milliseconds since 1970; 0 for a time before.
fn millis(time: Timestamp) -> u64 {
    let seconds = u64::try_from(time.seconds).unwrap_or_default();
    seconds.saturating_mul(1000).saturating_add(u64::from(time.nanos / 1_000_000))
}

fn json(sequence: u64, event: &Event<'_>) -> Vec<u8> {
    let mut json = Vec::new();
    event_json::write(i64::try_from(sequence).unwrap_or(i64::MAX), event, &mut json);
    json
}

/// Reads forward until the page is full.
fn ascending(
    wanted: &PageRequest,
    head: &Head,
    read: impl Fn(u64, Option<&Pattern>, &mut Visit<'_>) -> Result<u64, ReadError>,
) -> Result<EventPage, ReadError> {
    let (mut page, mut bytes) = (EventPage::default(), 0_usize);
    let mut at = wanted.from.unwrap_or_default().max(head.first);
    let deepest = at.saturating_add(DEPTH);
    while at < head.next && at < deepest && !page.is_full(wanted.limit, bytes) {
        let before = at;
        at = read(at, Some(&wanted.visible.pattern), &mut |sequence, event, _| {
            if wanted.has(event) {
                let json = json(sequence, event);
                bytes = bytes.saturating_add(json.len());
                page.events.push(json);
            }
            let ends = page.is_full(wanted.limit, bytes);
            if ends { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if at <= before {
            // What is not visible any more is not worth a second try.
            return Ok(page);
        }
    }
    page.next = (at < head.next).then_some(at);
    Ok(page)
}

/// Reads steps of the log, the newest first, until the page is full. The events of a step are read in their order: the
/// book has no other.
fn descending(
    wanted: &PageRequest,
    head: &Head,
    read: impl Fn(u64, Option<&Pattern>, &mut Visit<'_>) -> Result<u64, ReadError>,
) -> Result<EventPage, ReadError> {
    let (mut page, mut bytes) = (EventPage::default(), 0_usize);
    let mut end = wanted.from.map_or(head.next, |from| from.saturating_add(1)).min(head.next);
    let deepest = end.saturating_sub(DEPTH).max(head.first);
    let mut width = STEP_BACK_MIN;
    while end > deepest && !page.is_full(wanted.limit, bytes) {
        let start = end.saturating_sub(width).max(deepest);
        let mut step = Step::new(wanted.limit.saturating_sub(page.events.len()), bytes);
        let mut at = start;
        while at < end {
            let before = at;
            // Without the pattern: the reader would look for the next match far behind the end of the step.
            at = read(at, None, &mut |sequence, event, _| {
                if sequence >= end {
                    return ControlFlow::Break(());
                }
                if wanted.has(event) {
                    step.add(sequence, json(sequence, event));
                }
                ControlFlow::Continue(())
            })?;
            if at <= before {
                break;
            }
        }
        bytes = step.bytes;
        page.events.extend(step.found.into_iter().rev().map(|(_, json)| json));
        if let Some(left_out) = step.left_out {
            page.next = Some(left_out);
            return Ok(page);
        }
        end = start;
        width = width.saturating_mul(2).min(STEP_BACK_MAX);
    }
    page.next = end.checked_sub(1).filter(|newest| *newest >= head.first);
    Ok(page)
}

/// The newest events of a step back that have room on the page.
struct Step {
    /// Most events.
    room: usize,
    /// Bytes of the page, with those of this step.
    bytes: usize,
    /// Index and JSON of each event, the oldest first.
    found: VecDeque<(u64, Vec<u8>)>,
    /// The newest event that had no room.
    left_out: Option<u64>,
    /// Whether the page has events of steps before.
    continues: bool,
}

impl Step {
    const fn new(room: usize, bytes: usize) -> Self {
        Self { room, bytes, found: VecDeque::new(), left_out: None, continues: bytes > 0 }
    }

    /// Adds an event that is newer than all before it. The oldest ones make room.
    fn add(&mut self, sequence: u64, json: Vec<u8>) {
        self.bytes = self.bytes.saturating_add(json.len());
        self.found.push_back((sequence, json));
        while self.found.len() > self.room || self.bytes > PAGE_BYTES_MAX && (self.found.len() > 1 || self.continues) {
            let Some((sequence, json)) = self.found.pop_front() else { return };
            self.bytes = self.bytes.saturating_sub(json.len());
            self.left_out = Some(sequence);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log whose first event has this index. Events are their subjects, and the bytes of their payloads.
    struct Log(u64, Vec<(String, usize)>);

    impl Log {
        fn head(&self) -> Head {
            Head { first: self.0, next: self.0 + u64::try_from(self.1.len()).unwrap(), ..Head::default() }
        }

        /// Reads as the book does, but no more than a hundred events at a time.
        fn read(&self, from: u64, pattern: Option<&Pattern>, visit: &mut Visit<'_>) -> Result<u64, ReadError> {
            let mut at = from.max(self.0);
            for (subject, bytes) in self.1.iter().skip(usize::try_from(at - self.0).unwrap()).take(100) {
                let payload = format!("\"{}\"", "x".repeat(*bytes));
                let created_at = Timestamp::from_millis(at * 1000);
                let event = Event { subject, payload: Some(payload.as_bytes()), created_at, ..Event::default() };
                let shown = pattern.is_none_or(|pattern| pattern.matches(subject));
                let flow = if shown { visit(at, &event, b"") } else { ControlFlow::Continue(()) };
                at += 1;
                if flow.is_break() {
                    break;
                }
            }
            Ok(at)
        }

        fn page(&self, wanted: &PageRequest) -> EventPage {
            let (head, read) =
                (self.head(), |from, pattern: Option<&Pattern>, visit: &mut Visit<'_>| self.read(from, pattern, visit));
            match wanted.order {
                Order::Ascending => ascending(wanted, &head, read).unwrap(),
                Order::Descending => descending(wanted, &head, read).unwrap(),
            }
        }

        /// The indexes of each page, one page after the other.
        fn pages(&self, wanted: &PageRequest) -> Vec<Vec<u64>> {
            let (mut pages, mut wanted) = (Vec::new(), wanted.clone());
            loop {
                let page = self.page(&wanted);
                pages.push(page.events.iter().map(|json| index(json)).collect());
                assert!(pages.len() < 10_000, "the pages do not end");
                match page.next {
                    Some(next) => wanted.from = Some(next),
                    None => return pages,
                }
            }
        }
    }

    fn index(json: &[u8]) -> u64 {
        serde_json::from_slice::<serde_json::Value>(json).unwrap()["index"].as_u64().unwrap()
    }

    fn log(first: u64, count: usize) -> Log {
        Log(first, (0..count).map(|n| (if n % 3 == 0 { "app.third" } else { "app.other" }.to_owned(), 1)).collect())
    }

    fn wanted(pattern: &str, order: Order, limit: usize) -> PageRequest {
        let visible = Visible { pattern: Pattern::parse(pattern).unwrap(), partly: None };
        PageRequest { visible, order, from: None, limit, since: None, until: None }
    }

    #[test]
    fn pages_in_both_orders_have_each_event_of_the_pattern_once() {
        for (first, count) in [(1, 0), (1, 1), (7, 1000), (1, 1001)] {
            let log = log(first, count);
            for pattern in ["app.>", "app.third", "app.none"] {
                for limit in [1, 7, 999, 1000] {
                    let up = log.pages(&wanted(pattern, Order::Ascending, limit));
                    let mut down = log.pages(&wanted(pattern, Order::Descending, limit)).concat();
                    assert!(up.iter().all(|page| page.len() <= limit));
                    let up = up.concat();
                    assert!(up.is_sorted() && down.is_sorted_by(|one, two| one > two));
                    down.reverse();
                    assert_eq!(up, down, "{pattern} {limit} of {count}");
                    let matching = |(subject, _): &&(String, usize)| Pattern::parse(pattern).unwrap().matches(subject);
                    assert_eq!(up.len(), log.1.iter().filter(matching).count());
                }
            }
        }
    }

    #[test]
    fn an_index_begins_the_page_in_the_direction_of_its_order() {
        let log = log(5, 20);
        let page = |order, from| {
            let request = PageRequest { from: Some(from), ..wanted("app.>", order, 3) };
            log.page(&request).events.iter().map(|json| index(json)).collect::<Vec<_>>()
        };
        assert_eq!(page(Order::Ascending, 10), [10, 11, 12]);
        assert_eq!(page(Order::Descending, 10), [10, 9, 8]);
        assert_eq!(page(Order::Ascending, 0), [5, 6, 7], "what is gone is passed over");
        assert_eq!(page(Order::Descending, u64::MAX), [24, 23, 22]);
        assert_eq!((page(Order::Ascending, u64::MAX), page(Order::Descending, 4)), (vec![], vec![]));
    }

    #[test]
    fn a_page_is_bounded_in_bytes_and_an_event_that_is_larger_comes_alone() {
        let mib = 1 << 20;
        let sizes = [1, 3 * mib, 3 * mib, 9 * mib, 1, 1];
        let log = Log(1, sizes.iter().map(|bytes| ("app.x".to_owned(), *bytes)).collect());
        let pages = |order| log.pages(&wanted("app.>", order, 100));
        assert_eq!(pages(Order::Ascending), [vec![1, 2, 3], vec![4], vec![5, 6]]);
        assert_eq!(pages(Order::Descending), [vec![6, 5], vec![4], vec![3], vec![2, 1]]);
    }

    #[test]
    fn a_page_looks_only_so_far_and_says_where_to_go_on() {
        let mut log = log(1, usize::try_from(DEPTH).unwrap() + 50_000);
        log.1[0].0 = "app.first".to_owned();
        if let Some(last) = log.1.last_mut() {
            last.0 = "app.last".to_owned();
        }
        for (pattern, order) in [("app.last", Order::Ascending), ("app.first", Order::Descending)] {
            let pages = log.pages(&wanted(pattern, order, 10));
            assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [0, 1], "{pattern}");
        }
    }

    #[test]
    fn times_are_those_at_which_events_were_created() {
        let log = log(1, 100);
        let at = |second: u64| Some(Timestamp::from_millis(second * 1000));
        for order in [Order::Ascending, Order::Descending] {
            let request = PageRequest { since: at(10), until: at(13), ..wanted("app.>", order, 100) };
            let mut found = log.pages(&request).concat();
            found.sort_unstable();
            assert_eq!(found, [10, 11, 12]);
        }
    }
}
