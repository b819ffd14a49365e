//! What becomes old goes, and what is needed stays.

use super::*;
use crate::command::TrimMany;
use crate::xbus::change::{Expire, LogChange};
use crate::xbus::envelope::row::EnvelopeStatus;
use crate::xbus::limits::STALL_MS;
use crate::xbus::log::LogLine;
use crate::xbus::process::row::{OutputState, ProcessStatus};

/// The kinds of all rows that are not read at the start.
const KINDS: [u8; 11] = [1, 2, 0x20, 0x21, 0x22, 0x23, 0x30, 0x31, 0x40, 0x41, 0x50];

impl Story {
    fn rows_of_all_kinds(&self) -> usize {
        KINDS.into_iter().map(|kind| self.count(kind)).sum()
    }

    fn expire(&mut self, millis: u64) -> XbusDone {
        self.done(Change::EnvelopesExpire(Expire { millis }))
    }

    fn purge_envelopes(&mut self, before: u64) -> u64 {
        self.done(Change::EnvelopesPurge(Expire { millis: before })).count
    }
}

fn half(event: u8) -> Fragment {
    fragment(vec![part(event, "order", 1, &[b"a"], 2)], false)
}

fn trim(first: u64) -> Vec<u8> {
    Command::Trim(Trim { name: "xbus".into(), first, bytes_first: 0 }).frame().unwrap()
}

#[test]
fn an_envelope_whose_rest_does_not_come_is_stalled_and_later_given_up() {
    let mut story = Story::new();
    story.sends(100, &emitter(&[200]), half(1));
    assert_eq!(story.expire(100_000).count, 0, "a fragment came just now");
    story.wait(STALL_MS);
    assert_eq!(story.expire(100_000).envelopes[0].status(), EnvelopeStatus::Stalled);
    assert_eq!(story.expire(100_000).count, 0);
    let done = story.sends(100, &emitter(&[200]), fragment(vec![part(2, "order", 1, &[b"b"], 1)], false));
    assert_eq!(done.envelopes[0].status(), EnvelopeStatus::Receiving, "a stalled one goes on");
    story.wait(100_000);
    story.expire(100_000);
    let done = story.expire(100_000);
    assert_eq!((done.envelopes[0].status(), done.steps.len()), (EnvelopeStatus::Error, 0));
    assert_eq!(story.replica.machine.xbus().open_envelopes().count(), 0);
    let done = story.sends(100, &emitter(&[200]), half(1));
    assert_eq!(reception(&done), (Reception::Error, "the rest of the envelope never came"));
}

#[test]
fn an_envelope_of_a_worker_that_is_given_up_frees_its_output() {
    let mut story = Story::new();
    story.begins(100, 200);
    story.goes(200, send("w", WORKER));
    story.sends(101, &worker(WORKER, 200), half(1));
    story.wait(STALL_MS);
    story.expire(STALL_MS);
    let done = story.expire(STALL_MS);
    assert_eq!((done.envelopes[0].status(), done.steps.len()), (EnvelopeStatus::Error, 1));
    let process = story.replica.machine.xbus().open_process(uid(200)).unwrap();
    assert_eq!(process.nodes[1].jobs[0].outputs[0].state(), OutputState::Open);
}

#[test]
fn many_stalled_envelopes_are_given_up_step_by_step() {
    let mut story = Story::new();
    let mut changes = Vec::new();
    for number in 0..600_u32 {
        let event = format!("e{number}");
        let stored = publish("xbus", &[event_of("xbus.e", "", &event)], FLAG_INTERNAL);
        let Change::Fragment(mut received) = fragment_of(100, &emitter(&[200]), half(1), event) else {
            panic!("another change")
        };
        received.envelope[..4].copy_from_slice(&number.to_be_bytes());
        changes.extend([stored, Command::xbus(None, Change::Fragment(received)).frame().unwrap()]);
    }
    story.millis += 10;
    assert!(story.replica.apply_at(story.millis, &changes).iter().all(Result::is_ok));
    story.wait(STALL_MS);
    let steps = |story: &mut Story| {
        let mut counts = Vec::new();
        loop {
            let done = story.expire(2 * STALL_MS);
            counts.push(done.count);
            if !done.more {
                return counts;
            }
        }
    };
    assert_eq!(steps(&mut story), [256, 256, 88]);
    story.wait(STALL_MS);
    assert_eq!(steps(&mut story), [256, 256, 88]);
    assert_eq!((story.count(0x21), story.count(0x22), story.count(0x20)), (0, 0, 600));
    assert_eq!(story.purge_envelopes(u64::MAX), 256);
    assert_eq!(story.purge_envelopes(u64::MAX), 256);
    assert_eq!(story.purge_envelopes(u64::MAX), 88);
    assert_eq!(story.rows_of_all_kinds(), 0);
}

#[test]
fn envelopes_stay_as_long_as_a_process_goes_on_that_is_as_old() {
    let mut story = Story::new();
    story.begins(99, 199);
    story.goes(199, Happens::Cancel(Unit {}));
    story.begins(100, 200);
    story.goes(200, send("w", WORKER));
    story.sends(101, &worker(WORKER, 200), whole("bill"));
    assert_eq!(story.purge_envelopes(u64::MAX), 1, "the one before");
    assert_eq!(story.count(0x20), 2);
    story.goes(200, send("c", CONSUMER));
    assert_eq!(story.goes(200, end("c", CONSUMER, true)).status(), ProcessStatus::Done);
    assert_eq!(story.purge_envelopes(story.millis - 1_000), 0, "not old enough");
    assert_eq!(story.purge_envelopes(u64::MAX), 2);
    assert_eq!((story.count(0x20), story.count(0x21), story.count(0x22), story.count(0x23)), (0, 0, 0, 0));
}

#[test]
fn nothing_is_left_of_what_is_purged() {
    let mut story = Story::new();
    story.begins(100, 200);
    let line = LogLine { millis: 1, level: 1, text: "m".into() };
    let log = LogChange { actor: id(WORKER), process: id(200), messages: vec![line], ..LogChange::default() };
    story.done(Change::Log(log));
    assert_eq!(story.done(Change::ProcessesPurge(ids(&[200, 222]))).count, 0, "one goes on, and one is not known");
    story.goes(200, Happens::Cancel(Unit {}));
    assert_eq!(story.done(Change::ProcessesPurge(ids(&[200, 222]))).count, 1);
    assert_eq!((story.count(0x30), story.count(0x31), story.count(0x40), story.count(0x50)), (0, 0, 0, 0));
    assert_eq!(story.done(Change::LogsPurge(Expire { millis: story.millis - 1000 })).count, 0);
    assert_eq!(story.done(Change::LogsPurge(Expire { millis: u64::MAX })).count, 1, "its trace by time");
    story.purge_envelopes(u64::MAX);
    assert_eq!(story.rows_of_all_kinds(), 0);
}

#[test]
fn log_entries_go_by_their_age() {
    let mut story = Story::new();
    let log = LogChange { actor: id(WORKER), envelope: id(100), ..LogChange::default() };
    story.done(Change::Log(log.clone()));
    let middle = story.millis + 5;
    story.done(Change::Log(log));
    assert_eq!(story.done(Change::LogsPurge(Expire { millis: middle })).count, 1);
    assert_eq!((story.count(0x40), story.count(0x41)), (1, 1));
}

#[test]
fn the_book_is_not_trimmed_beyond_what_is_needed() {
    let mut story = Story::new();
    story.store();
    story.begins(100, 200);
    story.store();
    let pinned = story.replica.machine.xbus().pinned();
    assert_eq!(pinned, Some(2));
    let refused = story.replica.apply_at(story.millis, &[trim(3)]).pop().unwrap();
    assert!(matches!(refused, Err(Refusal::Xbus(_))), "{refused:?}");
    let first = |story: &Story| story.replica.machine.head("xbus").unwrap().first;
    assert_eq!(first(&story), 1);
    let many = Command::TrimMany(TrimMany { trims: vec![Trim { name: "xbus".into(), first: 3, bytes_first: 0 }] });
    drop(story.replica.apply_at(story.millis, &[many.frame().unwrap()]));
    assert_eq!(first(&story), 1);
    assert!(story.replica.apply_at(story.millis, &[trim(2)])[0].is_ok());
    assert_eq!(first(&story), 2);
    story.goes(200, Happens::Cancel(Unit {}));
    assert!(story.replica.apply_at(story.millis, &[trim(9)])[0].is_ok(), "nobody needs the events any more");
    assert_eq!(first(&story), 4);
}

#[test]
fn the_migration_of_ids_of_the_first_level_leaves_the_rows_of_envelopes_alone() {
    let mut story = Story { replica: Replica::default(), millis: 1_000_000, stored: 0 };
    drop(story.replica.apply_at(story.millis, &[publish("app", &[event_of("app.x", "", "old")], FLAG_CREATE)]));
    drop(story.replica.apply_at(story.millis, &[level::raise(FeatureLevel::LATEST.get())]));
    story.account();
    story.sends(100, &emitter(&[200]), half(1));
    let before = story.rows_of_all_kinds();
    while story.replica.machine.tidy_due().is_some_and(|due| due <= story.millis) {
        story.millis += 10;
        drop(story.replica.apply_at(story.millis, &[dedupe::tidy_up()]));
    }
    assert_eq!(story.rows_of_all_kinds(), before);
    let key = rows::key(story.replica.machine.head("app").unwrap().id, &[b"old"]);
    assert_eq!(story.replica.memory.rows[&(Family::Ids, key)].len(), 9, "the id itself is migrated");
}

#[test]
fn a_namespace_that_had_the_name_before_stays_and_is_reserved_from_the_level_on() {
    let mut replica = Replica::default();
    drop(replica.apply_one(level::raise(5)));
    assert!(replica.apply_one(plain("xbus")).is_ok());
    drop(replica.apply_one(level::raise(6)));
    assert_eq!(replica.apply_one(plain("xbus")), Err(Refusal::NamespaceReserved("xbus".into())));
    let delete = NamespaceDelete { name: "xbus".into() };
    let deleted = replica.apply_one(Command::NamespaceDelete(delete).frame().unwrap());
    assert_eq!(deleted, Err(Refusal::NamespaceReserved("xbus".into())));
    assert_eq!(replica.machine.head("xbus").unwrap().next, 2, "its events are kept");
    let new = latest_replica();
    assert_eq!(new.machine.head("xbus").unwrap().retention.age_ms_max, 7 * 24 * 3_600_000);
}
