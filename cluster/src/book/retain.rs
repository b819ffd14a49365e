//! Retention: the leader proposes what every node takes out of sight.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rollbook_core::command::{Command, Trim};
use rollbook_core::namespace::Head;
use rollbook_core::subjects::subject::Namespace;

use super::settle::index_rows;
use crate::crash;
use crate::error::ReadError;
use crate::lock::lock;
use crate::state::schedule::Next;
use crate::state::state::{Databases, State};

/// Most blocks, and most index rows, that one look at a namespace passes by; the rest is for the next one.
const STEPS_MAX: usize = 1024;
/// How long retention waits with what it would take away if nobody needed it, in milliseconds.
const NEEDED_WAIT_MS: u64 = 60_000;
/// After this time no further look begins; what is due stays due.
const LOOKS_TIME: Duration = Duration::from_millis(10);

/// The result of a retention check of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Look {
    /// The oldest event that stays, and its position on the byte axis.
    trim: Option<(u64, u64)>,
    next: Next,
}

/// The trims that are due at `now`, milliseconds since 1970. Looks only at namespaces that may have one.
pub(crate) fn due(state: &State, now: u64) -> Result<Vec<Command>, ReadError> {
    let changed = lock(&state.changes).take_limited();
    let databases = state.databases();
    // The rules refuse a trim beyond this event.
    let needed = state.machine().xbus().pinned().unwrap_or(u64::MAX);
    let mut schedule = lock(&state.schedule);
    changed.into_values().for_each(|head| schedule.changed(head));
    let (begun, mut commands, mut again) = (Instant::now(), Vec::new(), Vec::new());
    while let Some(head) = schedule.take(now) {
        crash::point("retain: a look")?;
        let keep_from = if head.name == Namespace::XBUS { needed } else { u64::MAX };
        match look(&databases, &head, now, keep_from) {
            Ok(Look { trim: None, next }) => schedule.looked(head, next),
            Ok(Look { trim: Some((first, bytes_first)), .. }) => {
                commands.push(Command::Trim(Trim { name: head.name.clone(), first, bytes_first }));
                // Looked at again until the head has moved: a proposal can be lost.
                again.push(head);
            }
            Err(error) => {
                tracing::error!(%error, namespace = head.name, "retention could not look at a namespace");
                again.push(head);
            }
        }
        if begun.elapsed() >= LOOKS_TIME {
            break;
        }
    }
    again.into_iter().for_each(|head| schedule.looked(head, Next::NOW));
    // A namespace that is damaged does not hold up the others.
    Ok(commands)
}

/// The oldest event that stays when those that are too old, or too many bytes or events, go. Those from `keep_from` on
/// stay whatever their age.
fn look(databases: &Databases, head: &Head, now: u64, keep_from: u64) -> Result<Look, ReadError> {
    let mut point = Point::new(head, now, keep_from);
    let (ledger, mut steps) = (&databases.ledger, 0_usize);
    let mut going = true;
    let mut count = |going| {
        steps = steps.saturating_add(1);
        if going && steps < STEPS_MAX { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    };
    ledger.walk(head.id, head.first, |first, meta| {
        going = point.passes(first, meta.events, meta.millis, meta.bytes_first, meta.raw_bytes);
        let flow = count(going);
        going = flow.is_continue();
        flow
    })?;
    let settled = ledger.settled(head.id).max(head.first);
    if going && settled < head.next {
        for row in index_rows(&databases.state, head.id, databases.dropped(head.id), settled)? {
            let (first, row) = row?;
            if count(point.passes(first, row.events, row.millis, row.bytes_first, row.bytes)).is_break() {
                break;
            }
        }
    }
    Ok(point.look)
}

/// Moves over blocks and rows, oldest first, while they go.
struct Point {
    age_ms_max: u64,
    bytes_max: u64,
    by_count: u64,
    old: u64,
    excess: u64,
    now: u64,
    keep_from: u64,
    first: u64,
    bytes_first: u64,
    look: Look,
}

impl Point {
    const fn new(head: &Head, now: u64, keep_from: u64) -> Self {
        let keep = head.retention;
        Self {
            age_ms_max: keep.age_ms_max,
            bytes_max: keep.bytes_max,
            by_count: if keep.events_max == 0 { 0 } else { head.next.saturating_sub(keep.events_max) },
            old: if keep.age_ms_max == 0 { 0 } else { now.saturating_sub(keep.age_ms_max) },
            excess: if keep.bytes_max == 0 { 0 } else { head.bytes_end.saturating_sub(keep.bytes_max) },
            now,
            keep_from,
            first: head.first,
            bytes_first: head.bytes_first,
            look: Look { trim: None, next: Next::CHANGED },
        }
    }

    /// Whether all of these events go.
    fn passes(&mut self, start: u64, events: u64, millis: u64, bytes_first: u64, bytes: u64) -> bool {
        let end = start.saturating_add(events);
        let bytes_end = bytes_first.saturating_add(bytes);
        // Inside a block: its records are taken to be of equal size.
        let inside = |at: u64| {
            let share = bytes.saturating_mul(at.saturating_sub(start)).checked_div(events).unwrap_or(0);
            (at, bytes_first.saturating_add(share))
        };
        let goes = end <= self.by_count || millis < self.old || bytes_end <= self.excess;
        if goes && end <= self.keep_from {
            self.go(end, bytes_end);
            return true;
        }
        let until = if goes { self.keep_from } else { self.by_count.min(self.keep_from) };
        if until > start {
            let (first, bytes_first) = inside(until);
            self.go(first, bytes_first);
        }
        if goes || self.by_count > self.keep_from {
            // Nothing tells when the events are not needed any more.
            self.look.next = Next { at: self.now.saturating_add(NEEDED_WAIT_MS), bytes_end: u64::MAX };
            return false;
        }
        let when = |limit: u64, from: u64| if limit == 0 { u64::MAX } else { from.saturating_add(limit) };
        self.look.next = Next {
            // Old is what is older than the limit, not what is as old.
            at: when(self.age_ms_max, millis.saturating_add(1)),
            bytes_end: when(self.bytes_max, bytes_end),
        };
        false
    }

    fn go(&mut self, first: u64, bytes_first: u64) {
        if first > self.first {
            (self.first, self.bytes_first) = (first, bytes_first.max(self.bytes_first));
            self.look.trim = Some((self.first, self.bytes_first));
        }
    }
}
