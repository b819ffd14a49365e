//! Which builds go, and that their rows go with them and with nothing else.

use super::*;
use crate::command::{ClockSet, NamespaceDelete};

fn tidy(story: &mut Story) {
    let tidied = story.replica.apply_at(story.millis, &[dedupe::tidy_up()]).pop().unwrap();
    assert_eq!(tidied, Ok(Done::Nothing));
    story.check_chunks();
    assert_eq!(story.replica.machine, story.replica.reloaded());
}

#[test]
fn the_two_newest_finished_builds_of_a_definition_are_kept() {
    let mut story = Story::with_web();
    story.done(set("mail", b"{}"));
    story.done(begin(90, "mail"));
    story.done(chunk(90, 0, b"m"));
    story.done(finish(90, &[b"m"]));
    let long: Vec<&[u8]> = vec![b"x"; 20];
    // Their ids are not in the order of their age, and some have so many chunks that these go as a range.
    for (build, chunks) in [(5, &long[..]), (3, &[&b"abc"[..]]), (4, &long), (1, &[b"de"]), (2, &[b"f", b"g"])] {
        story.builds(build, chunks);
    }
    let there: Vec<u8> = (1..=90).filter(|build| story.has_build(*build)).collect();
    assert_eq!(there, [1, 2, 90]);
    assert_eq!(story.definition("web").build_id(), Some(uid(2)));
    let of: Vec<Id> = story.replica.machine.docks().builds_of("web").map(|row| row.id()).collect();
    assert_eq!(of, [uid(1), uid(2)], "oldest first");
    assert_eq!(story.replica.machine.docks().build_bytes(), 5);
}

#[test]
fn an_open_build_counts_only_when_it_is_finished() {
    let mut story = Story::with_web();
    story.done(begin(9, "web"));
    story.done(chunk(9, 0, b"a"));
    story.builds(1, &[b"a"]);
    story.builds(2, &[b"b"]);
    assert!(story.has_build(1) && story.has_build(2) && story.has_build(9));
    story.done(finish(9, &[b"a"]));
    assert!(!story.has_build(1) && story.has_build(2) && story.has_build(9));
    assert_eq!(story.definition("web").build_id(), Some(uid(9)), "whoever finishes last");
}

#[test]
fn builds_go_with_their_definition_and_what_comes_for_them_later_is_refused() {
    let mut story = Story::with_web();
    story.builds(1, &[b"a"]);
    story.builds(2, &vec![&b"b"[..]; 30]);
    story.done(begin(3, "web"));
    story.done(chunk(3, 0, b"c"));
    story.done(remove("web"));
    assert_eq!((story.chunks(), story.replica.machine.docks().build_bytes()), (vec![], 0));
    assert_eq!(story.replica.machine.docks().open_builds_count(), 0);
    story.done(set("web", b"{}"));
    assert!(matches!(story.refused(chunk(3, 1, b"d")), Refusal::DockNotFound(_)));
    assert!(matches!(story.refused(finish(3, &[b"c"])), Refusal::DockNotFound(_)), "its definition is another one");
    assert_eq!(story.definition("web").build_id(), None);
}

#[test]
fn an_open_build_is_abandoned_and_a_finished_one_is_not() {
    let mut story = Story::with_web();
    assert!(matches!(story.refused(abandon(1)), Refusal::DockNotFound(_)));
    story.done(begin(1, "web"));
    story.done(chunk(1, 0, b"abc"));
    assert_eq!(story.done(abandon(1)), DockDone { revision: 0, chunks: 1, bytes: 3 });
    assert!(story.chunks().is_empty() && story.replica.machine.docks().build(&uid(1)).is_none());
    story.builds(1, &[b"a"]);
    assert_eq!(story.refused(abandon(1)), Refusal::Dock("the build is finished".into()));
}

#[test]
fn few_builds_are_open_at_a_time() {
    let mut story = Story::with_web();
    for build in (1..).take(BUILDS_OPEN_MAX) {
        story.done(begin(build, "web"));
        story.done(chunk(build, 0, b"a"));
    }
    assert!(matches!(story.refused(begin(100, "web")), Refusal::Overloaded(_)));
    story.done(finish(3, &[b"a"]));
    story.done(begin(100, "web"));
    assert!(matches!(story.refused(begin(101, "web")), Refusal::Overloaded(_)));
    story.millis += BUILD_IDLE_MS;
    story.done(begin(101, "web"));
    assert_eq!(story.replica.machine.docks().open_builds_count(), 1, "the idle ones make room");
}

#[test]
fn an_idle_build_is_abandoned_when_another_begins() {
    let mut story = Story::with_web();
    story.done(begin(1, "web"));
    story.done(chunk(1, 0, b"a"));
    story.done(begin(2, "web"));
    story.done(chunk(2, 0, b"b"));
    story.millis += BUILD_IDLE_MS - 30;
    story.done(chunk(1, 1, b"a"));
    story.done(begin(3, "web"));
    story.done(chunk(3, 0, b"c"));
    assert!(story.has_build(1) && story.has_build(2), "idle for less than the time");
    story.done(begin(4, "web"));
    story.done(chunk(4, 0, b"d"));
    assert!(story.has_build(1) && !story.has_build(2) && story.has_build(3), "a chunk is a sign of life");
}

#[test]
fn an_idle_build_is_abandoned_by_tidy_and_a_finished_one_never() {
    let mut story = Story::with_web();
    story.builds(1, &[b"a"]);
    story.done(begin(2, "web"));
    story.done(chunk(2, 0, b"b"));
    let due = story.millis + BUILD_IDLE_MS;
    assert_eq!(story.replica.machine.docks().next_abandoned(), Some(due));
    // Tidy does what is left of the migration before.
    tidy(&mut story);
    story.millis += DEDUPE_WAIT_MS;
    tidy(&mut story);
    assert_eq!(story.replica.machine.tidy_due(), Some(due), "the leader knows when to propose it");
    story.millis = due - 1;
    tidy(&mut story);
    assert!(story.has_build(2));
    story.millis = due;
    tidy(&mut story);
    assert!(!story.has_build(2) && story.has_build(1));
    assert_eq!(story.replica.machine.tidy_due(), None);
    story.millis += 10 * BUILD_IDLE_MS;
    tidy(&mut story);
    assert!(story.has_build(1));
}

/// The time after which the dedupe keys of the first level have expired.
const DEDUPE_WAIT_MS: u64 = limits::DEDUPE_WINDOW_MS + 1000;

#[test]
fn a_clock_that_is_set_back_keeps_no_idle_build_for_longer() {
    let mut story = Story::with_web();
    story.millis += 100_000_000;
    story.done(begin(1, "web"));
    story.done(chunk(1, 0, b"a"));
    let back = 50_000_000;
    let set = Command::ClockSet(ClockSet { millis: story.millis - back }).frame().unwrap();
    drop(story.replica.apply_at(story.millis, &[set]));
    story.millis -= back;
    assert_eq!(story.replica.machine, story.replica.reloaded());
    assert_eq!(story.replica.machine.docks().next_abandoned(), Some(story.millis + BUILD_IDLE_MS));
    story.millis += BUILD_IDLE_MS;
    tidy(&mut story);
    assert!(!story.has_build(1));
}

#[test]
fn the_migration_of_ids_of_the_first_level_leaves_the_chunks_of_builds_alone() {
    let mut story = Story { replica: Replica::default(), millis: 1_000_000 };
    drop(story.replica.apply_at(story.millis, &[publish("app", &[event_of("app.x", "", "old")], FLAG_CREATE)]));
    drop(story.replica.apply_at(story.millis, &[level::raise(FeatureLevel::LATEST.get())]));
    story.done(set("web", b"{}"));
    // Rows of the first level have 8 bytes.
    story.builds(1, &[b"8 bytes.", b"x"]);
    story.builds(0, &[b"8 bytes."]);
    story.done(begin(0xff, "web"));
    story.done(chunk(0xff, 0, b"8 bytes."));
    let before: Vec<_> = story.chunks().into_iter().map(|(id, ordinal, bytes)| (id, ordinal, bytes.to_vec())).collect();
    assert_eq!(before.len(), 4);
    story.millis += DEDUPE_WAIT_MS;
    for _ in 0..10 {
        story.millis += 10;
        tidy(&mut story);
    }
    let after: Vec<_> = story.chunks().into_iter().map(|(id, ordinal, bytes)| (id, ordinal, bytes.to_vec())).collect();
    assert_eq!(after, before);
    let key = rows::key(story.replica.machine.head("app").unwrap().id, &[b"old"]);
    assert_eq!(story.replica.memory.rows[&(Family::Ids, key)].len(), 9, "the id itself is migrated");
}

#[test]
fn namespaces_that_are_deleted_and_trimmed_leave_builds_alone() {
    let mut story = Story::with_web();
    story.builds(1, &[b"a", b"b"]);
    let of_docks = |story: &Story| {
        let is_of = |key: &[u8]| key.starts_with(b"docks/") || key.starts_with(&(u32::MAX - 2).to_be_bytes());
        story.replica.memory.rows.keys().filter(|(_, key)| is_of(key)).cloned().collect::<Vec<_>>()
    };
    let before = of_docks(&story);
    assert_eq!(before.len(), 4);
    let delete = Command::NamespaceDelete(NamespaceDelete { name: "app".into() }).frame().unwrap();
    let id = publish("app", &[event_of("app.x", "k", "chosen")], FLAG_CREATE);
    for frame in [id, dedupe::trim("app", 9), dedupe::tidy_up(), plain("app"), delete, dedupe::tidy_up()] {
        story.millis += 10;
        assert!(story.replica.apply_at(story.millis, &[frame])[0].is_ok());
    }
    assert_eq!(of_docks(&story), before);
    assert!(story.has_build(1));
}
