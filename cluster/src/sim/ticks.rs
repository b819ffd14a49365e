//! Ticks of a schedule: every client proposes the tick that its node waits for, as nodes do of which each takes itself for
//! the leader.

use std::time::Duration;

use bytes::Bytes;
use rollbook_core::command::Command;
use rollbook_core::entry::{FLAG_CREATE, FLAG_TICK, begin_publish, finish_publish, put_tick};
use rollbook_core::event::Event;
use rollbook_core::schedule::change::{Change, ScheduleSet, Tick};
use rollbook_core::schedule::definition::ScheduleDefinition;

use crate::node::Node;

/// The namespace of ticks alone: their names count from 1.
pub(super) const NAMESPACE: &str = "t";
const SCHEDULE: &str = "ticks";
/// Nobody waits longer for what became of a tick.
const PATIENCE: Duration = Duration::from_millis(200);

/// Proposes the next tick through a node, or the schedule while there is none.
pub(super) async fn propose(node: &Node) {
    let row = node.state().with_machine(|machine| machine.schedules().get(SCHEDULE).cloned());
    let Some(row) = row else {
        let subject = format!("{NAMESPACE}.x");
        let definition = ScheduleDefinition { subject, every_ms: 1000, ..ScheduleDefinition::default() };
        let set = Change::Set(ScheduleSet { name: SCHEDULE.to_owned(), definition, next: 1 });
        // Below the level that knows schedules it is refused.
        let proposed = node.proposals().command(Command::schedule(Some(0), set));
        drop(tokio::time::timeout(PATIENCE, proposed).await);
        return;
    };
    let (schedule, revision, from) = (row.name.clone(), row.revision, row.next);
    let tick = Tick { schedule, revision, from, tick: from, next: from + 1, missed: 0 };
    if let Ok(reply) = node.proposals().propose(frame(&tick)) {
        drop(tokio::time::timeout(PATIENCE, reply).await);
    }
}

fn frame(tick: &Tick) -> Bytes {
    let mut frame = Vec::new();
    begin_publish(&mut frame, NAMESPACE).unwrap();
    put_tick(&mut frame, &tick.to_bytes()).unwrap();
    let subject = format!("{NAMESPACE}.{}", tick.tick);
    Event { subject: &subject, payload: Some(b"1"), ..Event::default() }.encode(&mut frame).unwrap();
    finish_publish(&mut frame, 0, FLAG_CREATE | FLAG_TICK, 1).unwrap();
    frame.into()
}

/// What is wrong with the ticks of a book: each must be there once, in its turn.
pub(super) fn judge(events: &[String]) -> Option<String> {
    let wrong = events.iter().zip(1_u64..).find(|(name, tick)| **name != tick.to_string());
    wrong.map(|(name, tick)| format!("tick {name} is where tick {tick} should be"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_that_is_missing_or_twice_there_is_found() {
        let verdict = |names: &[&str]| judge(&names.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!((verdict(&[]), verdict(&["1", "2", "3"])), (None, None));
        for broken in [&["1", "1"][..], &["1", "3"], &["2", "1"], &["2"]] {
            assert!(verdict(broken).is_some(), "{broken:?}");
        }
    }
}
