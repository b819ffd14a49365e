//! Retention: the leader proposes what every node takes out of sight.

use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use rollbook_core::command::{Command, Trim};
use rollbook_core::namespace::Head;

use super::settle::index_rows;
use crate::crash;
use crate::error::ReadError;
use crate::lock::lock;
use crate::state::schedule::Next;
use crate::state::state::{Databases, State};

/// Most blocks, and most index rows, that one look at a namespace passes by; the rest is for the next one.
const STEPS_MAX: usize = 1024;
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
    let mut schedule = lock(&state.schedule);
    changed.into_values().for_each(|head| schedule.changed(head));
    let (begun, mut commands, mut again) = (Instant::now(), Vec::new(), Vec::new());
    while let Some(head) = schedule.take(now) {
        crash::point("retain: a look")?;
        match look(&databases, &head, now) {
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

/// The oldest event that stays when those that are too old, or too many bytes or events, go.
fn look(databases: &Databases, head: &Head, now: u64) -> Result<Look, ReadError> {
    let mut point = Point::new(head, now);
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
    first: u64,
    bytes_first: u64,
    look: Look,
}

impl Point {
    const fn new(head: &Head, now: u64) -> Self {
        let keep = head.retention;
        Self {
            age_ms_max: keep.age_ms_max,
            bytes_max: keep.bytes_max,
            by_count: if keep.events_max == 0 { 0 } else { head.next.saturating_sub(keep.events_max) },
            old: if keep.age_ms_max == 0 { 0 } else { now.saturating_sub(keep.age_ms_max) },
            excess: if keep.bytes_max == 0 { 0 } else { head.bytes_end.saturating_sub(keep.bytes_max) },
            first: head.first,
            bytes_first: head.bytes_first,
            look: Look { trim: None, next: Next::CHANGED },
        }
    }

    /// Whether all of these events go.
    fn passes(&mut self, start: u64, events: u64, millis: u64, bytes_first: u64, bytes: u64) -> bool {
        let end = start.saturating_add(events);
        let bytes_end = bytes_first.saturating_add(bytes);
        if end <= self.by_count || millis < self.old || bytes_end <= self.excess {
            self.go(end, bytes_end);
            return true;
        }
        if self.by_count > start {
            // Inside a block: its records are taken to be of equal size.
            let share = bytes.saturating_mul(self.by_count.saturating_sub(start)).checked_div(events).unwrap_or(0);
            self.go(self.by_count, bytes_first.saturating_add(share));
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
