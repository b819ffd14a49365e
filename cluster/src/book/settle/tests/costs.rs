//! What settling and retention cost: they follow what changed, not what exists.

use std::sync::Mutex;
use std::time::Instant;

use rollbook_core::command::{Command, NamespaceCreate};
use rollbook_core::namespace::Retention;

use super::rig::{Rig, temporary};
use crate::book::retain;
use crate::book::settle::*;

/// Counts how often a point is passed while something runs, and the longest time from one to the next or to the end.
fn watched<T>(name: &'static str, run: impl FnOnce() -> T) -> (T, usize, Duration) {
    let seen = Arc::new(Mutex::new((0, Duration::ZERO, Instant::now())));
    let pass = |seen: &Mutex<(usize, Duration, Instant)>| {
        let mut seen = seen.lock().unwrap();
        let (now, passed) = (Instant::now(), seen.2);
        *seen = (seen.0 + 1, seen.1.max(now.duration_since(passed)), now);
    };
    let notes = Arc::clone(&seen);
    let hook = move |point: &'static str| {
        if point == name {
            pass(&notes);
        }
        false
    };
    let done = crash::with(hook, run);
    pass(&seen);
    let seen = seen.lock().unwrap();
    (done, seen.0 - 1, seen.1)
}

#[test]
fn what_settling_and_retention_cost_follows_what_changed() {
    const NAMESPACES: usize = 10_000;
    const LIMITED: usize = 1000;
    let keep = temporary();
    let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
    let retention = Retention { age_ms_max: 1000, ..Retention::default() };
    let create = |n: usize| Command::NamespaceCreate(NamespaceCreate { name: format!("n{n}"), retention });
    let frames: Vec<_> = (0..LIMITED).map(|n| create(n).frame().unwrap()).collect();
    rig.apply(&frames, 1000);
    for from in (0..NAMESPACES).step_by(100) {
        let frames: Vec<_> = (from..from + 100).map(|n| rig.frame(&format!("n{n}"), 1, 100)).collect();
        rig.apply(&frames, 1000);
    }
    let begun = Instant::now();
    let (flushed, looked, _) =
        watched("settle: a namespace", || everything(&rig.state, &rig.log).unwrap().flush(&rig.state).unwrap());
    println!("settling {looked} namespaces with one event each, and a flush: {:?}", begun.elapsed());
    assert_eq!((looked, flushed.limit()), (NAMESPACES, rig.next));
    // Nothing has changed: nothing is looked at. One has: one is.
    assert_eq!(watched("settle: a namespace", || everything(&rig.state, &rig.log).unwrap().limit()).1, 0);
    for (from, events) in [(0, 1), (1, 5)] {
        for n in (from..NAMESPACES).step_by(100) {
            let frames: Vec<_> =
                (n..NAMESPACES.min(n + 100)).map(|n| rig.frame(&format!("n{n}"), events, 100)).collect();
            rig.apply(&frames, 1000);
        }
        let begun = Instant::now();
        let limit = *rig.state.applied().borrow();
        let settle = || settle(&rig.state, &rig.log, limit, Duration::ZERO).unwrap().limit();
        let (_, strides, longest) = watched("settle: a stride", settle);
        println!("again, {events} each: {:?} in {strides} strides, the longest {longest:?}", begun.elapsed());
        assert_eq!(strides, (NAMESPACES - from).div_ceil(STRIDE_NAMESPACES));
    }
    rig.publish("n5000", 1, 100);
    let begun = Instant::now();
    let (flushed, looked, _) =
        watched("settle: a namespace", || everything(&rig.state, &rig.log).unwrap().flush(&rig.state).unwrap());
    println!("settling one of them, with its flush: {:?}", begun.elapsed());
    assert_eq!(looked, 1);
    assert!(!is_forgettable(&rig.state));
    drop(flushed);

    // Retention: each limited namespace is looked at once, and then not before something is due.
    let due = |rig: &Rig, now: u64| {
        let (mut commands, mut looks, mut calls, mut longest) = (Vec::new(), 0, 0, Duration::ZERO);
        loop {
            let begun = Instant::now();
            let (found, looked, _) = watched("retain: a look", || retain::due(&rig.state, now).unwrap());
            longest = longest.max(begun.elapsed());
            (looks, calls) = (looks + looked, calls + 1);
            let none = found.is_empty();
            commands.extend(found);
            if looked == 0 || !none {
                println!("retention: {looks} looks in {calls} calls, the longest took {longest:?}");
                return (commands, looks);
            }
        }
    };
    assert_eq!(due(&rig, 1500), (Vec::new(), LIMITED));
    assert_eq!(due(&rig, 1600), (Vec::new(), 0));
    rig.publish("n7", 1, 100);
    rig.publish("n7000", 1, 100);
    assert_eq!(due(&rig, 1700), (Vec::new(), 0), "a new event is not too old");
    let mut trims = 0;
    while trims < LIMITED {
        let (commands, looks) = due(&rig, 3000);
        assert_eq!(commands.len(), looks);
        assert!(looks > 0, "{trims} of {LIMITED} were trimmed");
        trims += looks;
        let frames: Vec<_> = commands.into_iter().map(|command| command.frame().unwrap()).collect();
        rig.apply(&frames, 3000);
    }
    assert_eq!(due(&rig, 4000), (Vec::new(), 0));
    assert!(is_forgettable(&rig.state));
    let flushed = everything(&rig.state, &rig.log).unwrap().flush(&rig.state).unwrap();
    let begun = Instant::now();
    let ((), batches, longest) = watched("forget: before the batch", || forget(&rig.state, &flushed).unwrap());
    println!("forgetting {LIMITED} namespaces in {batches} batches: {:?}, the longest {longest:?}", begun.elapsed());
    assert_eq!(batches, LIMITED.div_ceil(FORGET_NAMESPACES));
    assert_eq!(watched("forget: before the batch", || forget(&rig.state, &flushed).unwrap()).1, 0);
    let ledger = rig.state.ledger();
    let machine = rig.state.machine();
    let kept = machine.heads().filter(|head| ledger.stored_bytes(head.id) > 0).count();
    assert_eq!(kept, NAMESPACES - LIMITED);
}

#[test]
fn retention_passes_over_blocks_and_rows_alike() {
    let retained = |retention: Retention, now: u64, settle: bool| {
        let keep = temporary();
        let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
        let create = NamespaceCreate { name: "a".to_owned(), retention };
        rig.command(Command::NamespaceCreate(create));
        for millis in [2000, 3000, 4000] {
            let frame = rig.frame("a", 4, 100);
            rig.apply(&[frame], millis);
            if settle {
                rig.step().unwrap();
            }
        }
        let first = |commands: Vec<Command>| match commands.as_slice() {
            [] => 1,
            [Command::Trim(trim)] => trim.first,
            other => panic!("{other:?}"),
        };
        let (once, twice) = (retain::due(&rig.state, now).unwrap(), retain::due(&rig.state, now).unwrap());
        assert_eq!(once, twice, "a proposal can be lost");
        first(once)
    };
    let none = Retention::default();
    let record = {
        let mut frame = Vec::new();
        let payload = [0; 104];
        Event { subject: "a.x", payload: Some(&payload), ..Event::default() }.encode(&mut frame).unwrap();
        u64::try_from(frame.len()).unwrap()
    };
    assert_eq!(retained(Retention { age_ms_max: 1000, ..none }, 3500, false), 5);
    assert_eq!(retained(Retention { age_ms_max: 1000, ..none }, 4500, false), 9);
    assert_eq!(
        retained(Retention { age_ms_max: 1000, ..none }, 4500, true),
        1,
        "one block, whose newest is not too old"
    );
    assert_eq!(retained(Retention { age_ms_max: 1000, ..none }, 5001, true), 13);
    for settle in [false, true] {
        assert_eq!(retained(Retention { events_max: 6, ..none }, 0, settle), 7);
        assert_eq!(retained(Retention { events_max: 12, ..none }, 0, settle), 1);
    }
    assert_eq!(retained(Retention { bytes_max: 8 * record, ..none }, 0, false), 5);
    assert_eq!(retained(Retention { bytes_max: 8 * record, ..none }, 0, true), 1, "whole blocks only");
}
