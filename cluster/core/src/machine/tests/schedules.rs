//! Schedules: what each change does, that a tick is published once, and that a change that is refused changes nothing.
//! `random` makes random changes and ticks on replicas that commit at different times.

mod random;

use super::level::latest_replica;
use super::*;
use crate::entry::{self, FLAG_TICK, put_tick};
use crate::schedule::change::{Change, ScheduleSet, Tick};
use crate::schedule::definition::{Missed, ScheduleDefinition};
use crate::schedule::limits::{FAILURE_BYTES_MAX, SCHEDULES_MAX};
use crate::schedule::row::ScheduleRow;

/// A schedule of every second that publishes to `app.tick`.
fn secondly() -> ScheduleDefinition {
    ScheduleDefinition { subject: "app.tick".into(), every_ms: 1000, ..ScheduleDefinition::default() }
}

fn set(name: &str, definition: ScheduleDefinition, next: u64) -> Change {
    Change::Set(ScheduleSet { name: name.into(), definition, next })
}

fn command(if_revision: Option<u64>, change: Change) -> Vec<u8> {
    Command::schedule(if_revision, change).frame().unwrap()
}

/// The frame of a tick: one event with the tick as its key.
fn tick_frame(tick: &Tick, subject: &str, flags: u8) -> Vec<u8> {
    let namespace = subject.split('.').next().unwrap();
    let mut out = Vec::new();
    begin_publish(&mut out, namespace).unwrap();
    put_tick(&mut out, &tick.to_bytes()).unwrap();
    let key = format!("{}@{}", tick.schedule, tick.tick);
    event_of(subject, &key, "").encode(&mut out).unwrap();
    finish_publish(&mut out, 0, flags | FLAG_TICK | FLAG_KEYED, 1).unwrap();
    out
}

/// The tick that a schedule waits for, and the one a second later.
fn next_tick(row: &ScheduleRow) -> Tick {
    let (schedule, revision, from) = (row.name.clone(), row.revision, row.next);
    Tick { schedule, revision, from, tick: from, next: from + 1000, missed: 0 }
}

/// A cluster at the newest level, with the schedule `s` whose first tick is at 10 s, at 9 s.
struct Story {
    replica: Replica,
    millis: u64,
}

impl Story {
    fn new() -> Self {
        let mut story = Self { replica: latest_replica(), millis: 9_000 };
        assert_eq!(story.change(None, set("s", secondly(), 10_000)), Ok(Done::Nothing));
        story
    }

    /// Applies one frame, and checks that the rows say the same as the memory.
    fn frame(&mut self, frame: Vec<u8>) -> Reply {
        let reply = self.replica.apply_at(self.millis, &[frame]).pop().unwrap();
        assert_eq!(self.replica.machine, self.replica.reloaded());
        reply
    }

    /// Makes a change, and checks that a refused one did nothing.
    fn change(&mut self, if_revision: Option<u64>, change: Change) -> Reply {
        self.replica.apply_at(self.millis, &[]);
        let before = (self.replica.machine.clone(), self.replica.memory.rows.clone());
        let reply = self.frame(command(if_revision, change));
        if reply.is_err() {
            assert_eq!((&self.replica.machine, &self.replica.memory.rows), (&before.0, &before.1), "{reply:?}");
        }
        reply
    }

    fn row(&self) -> ScheduleRow {
        ScheduleRow::clone(self.replica.machine.schedules().get("s").unwrap())
    }

    fn tick(&mut self, tick: &Tick) -> Reply {
        self.frame(tick_frame(tick, "app.tick", FLAG_CREATE))
    }

    fn events(&self) -> usize {
        self.replica.machine.head("app").map_or(0, |head| usize::try_from(head.events()).unwrap())
    }
}

#[test]
fn a_tick_is_published_once_however_often_it_is_proposed() {
    let mut story = Story::new();
    story.millis = 10_000;
    let tick = next_tick(&story.row());
    assert_eq!(story.tick(&tick), published(1, 1));
    assert!(matches!(story.tick(&tick), Err(Refusal::RevisionMismatch(_))));
    let row = story.row();
    assert_eq!((row.last, row.next, row.fired, row.missed, row.failed), (10_000, 11_000, 1, 0, 0));
    // Two leaders propose the same tick, and the second one gets it into the same entry.
    story.millis = 11_000;
    let frame = tick_frame(&next_tick(&row), "app.tick", FLAG_CREATE);
    let other = publish("app", &[event_of("app.x", "", "")], 0);
    let replies = story.replica.apply_at(story.millis, &[frame.clone(), frame, other]);
    assert_eq!((&replies[0], &replies[2]), (&published(2, 1), &published(3, 1)));
    assert!(matches!(replies[1], Err(Refusal::RevisionMismatch(_))));
    let app = story.replica.machine.head("app").unwrap().id;
    assert_eq!(story.replica.memory.events(app).len(), 3, "the refused frame of the entry is not an event");
}

#[test]
fn a_tick_of_an_earlier_revision_of_a_paused_or_a_deleted_schedule_is_refused() {
    let mut story = Story::new();
    story.millis = 10_000;
    let tick = next_tick(&story.row());
    let other = ScheduleDefinition { payload: Some(b"1".to_vec()), ..secondly() };
    assert_eq!(story.change(None, set("s", other.clone(), 77_000)), Ok(Done::Nothing));
    assert_eq!(story.row().next, 10_000, "the same ticks: none is left out");
    assert!(matches!(story.tick(&tick), Err(Refusal::RevisionMismatch(_))), "its payload would be the old one");
    assert_eq!(story.change(None, set("s", ScheduleDefinition { paused: true, ..other }, 77_000)), Ok(Done::Nothing));
    let tick = next_tick(&story.row());
    assert!(matches!(story.tick(&tick), Err(Refusal::RevisionMismatch(_))));
    assert_eq!(story.replica.machine.schedules().next_due(), None);
    assert_eq!(story.change(None, Change::Delete("s".into())), Ok(Done::Nothing));
    assert_eq!(story.tick(&tick), Err(Refusal::ScheduleNotFound("s".into())));
    // A schedule of the same name is another one.
    assert_eq!(story.change(Some(0), set("s", secondly(), 10_000)), Ok(Done::Nothing));
    assert!(matches!(story.tick(&tick), Err(Refusal::RevisionMismatch(_))));
    assert_eq!(story.events(), 0);
}

#[test]
fn a_tick_does_not_come_before_its_time() {
    let mut story = Story::new();
    let tick = next_tick(&story.row());
    assert!(matches!(story.tick(&tick), Err(Refusal::RevisionMismatch(_))));
    for odd in [Tick { next: 10_000, ..tick.clone() }, Tick { tick: 9_999, ..tick.clone() }] {
        story.millis = 10_000;
        assert!(matches!(story.tick(&odd), Err(Refusal::Malformed(_))), "{odd:?}");
    }
    assert_eq!(story.tick(&tick), published(1, 1));
}

#[test]
fn missed_ticks_have_one_event_or_none_and_are_counted() {
    let mut story = Story::new();
    story.millis = 100_500;
    let once = Tick { tick: 100_000, next: 101_000, missed: 90, ..next_tick(&story.row()) };
    assert_eq!(story.tick(&once), published(1, 1));
    assert_eq!((story.row().last, story.row().next, story.row().missed), (100_000, 101_000, 90));
    story.millis = 200_500;
    let skip = Tick { tick: 200_000, next: 201_000, missed: 100, ..next_tick(&story.row()) };
    assert_eq!(story.change(None, Change::Skip(skip.clone())), Ok(Done::Nothing));
    assert!(matches!(story.change(None, Change::Skip(skip)), Err(Refusal::RevisionMismatch(_))));
    assert_eq!((story.row().last, story.row().next, story.row().missed, story.events()), (100_000, 201_000, 190, 1));
}

#[test]
fn a_schedule_whose_event_is_refused_goes_on_and_says_why() {
    let mut story = Story::new();
    story.millis = 10_000;
    let refused = story.frame(tick_frame(&next_tick(&story.row()), "app.tick", 0));
    assert_eq!(refused, Err(Refusal::NamespaceNotFound("app".into())));
    let row = story.row();
    assert_eq!((row.last, row.next, row.fired, row.failed), (10_000, 11_000, 0, 1));
    assert_eq!(row.failure, "namespace not found: app");
    story.millis = 11_000;
    assert_eq!(story.tick(&next_tick(&row)), published(1, 1));
    // A key that was used before: the failure is bounded, and the entry has no event for it.
    story.millis = 12_000;
    let tick = next_tick(&story.row());
    let key = format!("s@{}", tick.tick);
    story.replica.apply_at(story.millis, &[publish("app", &[event_of("app.tick", &key, "")], 0)]);
    assert!(matches!(story.tick(&tick), Err(Refusal::KeyProcessed(_))));
    assert_eq!((story.row().failed, story.events()), (2, 2));
    assert!(story.row().failure.len() <= FAILURE_BYTES_MAX);
}

#[test]
fn a_condition_that_cannot_be_read_is_refused_like_any_frame() {
    let mut story = Story::new();
    story.millis = 10_000;
    let mut out = Vec::new();
    begin_publish(&mut out, "app").unwrap();
    put_tick(&mut out, &[0xff; 9]).unwrap();
    event_of("app.tick", "", "").encode(&mut out).unwrap();
    finish_publish(&mut out, 0, FLAG_CREATE | FLAG_TICK, 1).unwrap();
    assert!(matches!(story.frame(out), Err(Refusal::Malformed(_))));
    assert_eq!(story.events(), 0);
}

#[test]
fn a_change_expects_a_revision_and_revisions_never_come_again() {
    let mut story = Story::new();
    let first = story.row().revision;
    assert!(matches!(story.change(Some(0), set("s", secondly(), 1)), Err(Refusal::RevisionMismatch(_))));
    assert_eq!(story.change(Some(first), set("s", secondly(), 1)), Ok(Done::Nothing));
    assert!(matches!(story.change(Some(first), set("s", secondly(), 1)), Err(Refusal::RevisionMismatch(_))));
    assert!(matches!(story.change(Some(first), Change::Delete("s".into())), Err(Refusal::RevisionMismatch(_))));
    let second = story.row().revision;
    assert_eq!(story.change(Some(second), Change::Delete("s".into())), Ok(Done::Nothing));
    assert_eq!(story.change(None, Change::Delete("s".into())), Err(Refusal::ScheduleNotFound("s".into())));
    assert_eq!(story.change(None, set("s", secondly(), 1)), Ok(Done::Nothing));
    assert!(story.row().revision > second && second > first);
}

#[test]
fn new_ticks_begin_anew_and_a_resume_is_remembered() {
    let mut story = Story::new();
    let hourly = ScheduleDefinition { every_ms: 3_600_000, ..secondly() };
    assert_eq!(story.change(None, set("s", hourly.clone(), 3_600_000)), Ok(Done::Nothing));
    assert_eq!((story.row().next, story.row().resumed, story.row().created), (3_600_000, 0, 9_000));
    let paused = ScheduleDefinition { paused: true, ..hourly.clone() };
    assert_eq!(story.change(None, set("s", paused, 1)), Ok(Done::Nothing));
    story.millis = 20_000;
    assert_eq!(story.change(None, set("s", hourly, 1)), Ok(Done::Nothing));
    assert_eq!((story.row().next, story.row().resumed, story.row().changed), (3_600_000, 20_000, 20_000));
}

#[test]
fn what_cannot_be_a_schedule_is_refused() {
    let mut story = Story::new();
    for name in ["", "a b", "a/b", &"x".repeat(65)] {
        assert!(matches!(story.change(None, set(name, secondly(), 1)), Err(Refusal::Malformed(_))), "{name}");
    }
    let reserved = ScheduleDefinition { subject: "roll.x".into(), ..secondly() };
    let refused = story.change(None, set("r", reserved, 1));
    assert_eq!(refused, Err(Refusal::NamespaceReserved("roll".into())));
    let odd = ScheduleDefinition { cron: "* * * * *".into(), ..secondly() };
    assert!(matches!(story.change(None, set("o", odd, 1)), Err(Refusal::Malformed(_))));
    let empty = Command::Schedule(alloc::boxed::Box::default()).frame().unwrap();
    assert!(matches!(story.frame(empty), Err(Refusal::Malformed(_))));
}

#[test]
fn schedules_are_bounded_in_number() {
    let mut replica = latest_replica();
    let frames: Vec<Vec<u8>> =
        (0..=SCHEDULES_MAX).map(|n| command(None, set(&format!("s{n}"), secondly(), 1))).collect();
    let replies = replica.apply(&frames);
    assert!(replies[..SCHEDULES_MAX].iter().all(Result::is_ok));
    assert!(matches!(replies[SCHEDULES_MAX], Err(Refusal::Overloaded(_))));
    assert_eq!(
        replica.apply_one(command(None, set("s1", secondly(), 2))),
        Ok(Done::Nothing),
        "a change of one adds none"
    );
}

#[test]
fn schedules_that_are_due_come_in_the_order_of_their_time() {
    let mut replica = latest_replica();
    let later = ScheduleDefinition { missed: Missed::Skip.into(), ..secondly() };
    for (name, next) in [("c", 3000), ("a", 5000), ("b", 1000)] {
        assert!(replica.apply_one(command(None, set(name, later.clone(), next))).is_ok());
    }
    let schedules = replica.machine.schedules();
    let due = |now| schedules.due(now).map(|row| row.name.as_str()).collect::<Vec<_>>();
    assert_eq!((due(999), due(3000), due(9000)), (vec![], vec!["b", "c"], vec!["b", "c", "a"]));
    assert_eq!((schedules.next_due(), schedules.count()), (Some(1000), 3));
    assert_eq!(schedules.iter().map(|row| row.name.as_str()).collect::<Vec<_>>(), ["a", "b", "c"]);
}

#[test]
fn a_tick_needs_the_level_that_knows_ticks() {
    use crate::command::admission::{check_level, needs_level};
    let tick = next_tick(&ScheduleRow { name: "s".into(), next: 5, ..ScheduleRow::default() });
    for frame in [tick_frame(&tick, "app.tick", FLAG_CREATE), command(None, set("s", secondly(), 1))] {
        assert!(needs_level(&frame));
        assert_eq!(check_level(&frame, 1, FeatureLevel::TIMED), Ok(()));
        assert!(matches!(check_level(&frame, 1, FeatureLevel::DOCKS), Err(Refusal::Unavailable(_))));
    }
}
