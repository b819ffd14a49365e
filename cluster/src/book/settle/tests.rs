//! Settling that dies, fails or loses files anywhere: every event is there once and in order, or the start is refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use rollbook_core::command::{Command, NamespaceDelete};
use rollbook_core::entry::{FLAG_CREATE, finish_publish};

use super::*;
use crate::error::NodeError;
use rig::{Rig, check_image, image, temporary};

mod costs;
mod pinned;
mod readers;
mod rig;
mod times;

/// A random part of a history.
fn play(rig: &mut Rig) {
    for _ in 0..1 + rig.random(4) {
        match rig.random(8) {
            0 => rig.publish("b", 1, 40_000),
            1 => {
                let frames = [rig.frame("a", 2, 50), rig.frame("b", 3, 10), rig.frame("a", 1, 50)];
                rig.apply(&frames, 1000);
            }
            2 | 3 => rig.publish("a", 9, 100),
            // More than one stride, and large enough for files of its own.
            4 => rig.publish("c", 150, 9_000),
            _ => {
                let events = u32::try_from(1 + rig.random(40)).unwrap();
                rig.publish("c", events, 9_000);
            }
        }
    }
    let name = ["a", "b", "c"][usize::try_from(rig.random(3)).unwrap()];
    if rig.published.contains_key(name) && rig.random(2) == 0 {
        let head = rig.head(name);
        let first = head.first + rig.random(head.events() + 1);
        rig.trim(name, first);
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("ROLLBOOK_SETTLE_SEED").ok().and_then(|text| text.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=3).collect(),
    }
}

#[test]
fn whatever_step_a_process_dies_at_every_event_is_there_once_and_in_order() {
    for seed in seeds() {
        let keep = temporary();
        let mut rig = Rig::open(&keep.path().join("node"), seed).unwrap();
        let seen = Arc::new(Mutex::new(BTreeMap::<&'static str, u64>::new()));
        for round in 0..5 {
            play(&mut rig);
            let (root, copy) = (rig.root.clone(), keep.path().join("image"));
            let (published, counts) = (rig.published.clone(), Arc::clone(&seen));
            let hook = move |point: &'static str| {
                *counts.lock().unwrap().entry(point).or_default() += 1;
                if point == "settle: a namespace" {
                    return false;
                }
                image(&root, &copy);
                let what = format!("ROLLBOOK_SETTLE_SEED={seed}, round {round}, killed at '{point}'");
                // On a thread of its own, which has no hook.
                std::thread::scope(|scope| {
                    scope.spawn(|| check_image(&copy, &published, seed, &what)).join().unwrap();
                });
                false
            };
            crash::with(hook, || rig.step()).unwrap();
            rig.check(&format!("ROLLBOOK_SETTLE_SEED={seed}, round {round}"));
        }
        println!("seed {seed}: {:?}", seen.lock().unwrap());
    }
}

#[test]
fn whatever_step_fails_on_a_full_disk_it_goes_on_when_there_is_room() {
    for seed in seeds() {
        let keep = temporary();
        let mut rig = Rig::open(&keep.path().join("node"), seed).unwrap();
        for round in 0..30 {
            play(&mut rig);
            let fails = 1 + rig.random(14);
            let mut points = 0;
            let hook = move |_: &'static str| {
                points += 1;
                points >= fails
            };
            let what = format!("ROLLBOOK_SETTLE_SEED={seed}, round {round}, fails from point {fails} on");
            crash::with(hook, || rig.step()).ok();
            rig.check(&what);
            if rig.random(3) == 0 {
                rig.step().unwrap_or_else(|error| panic!("{what}: {error}"));
                rig.check(&what);
            }
        }
        let copy = keep.path().join("image");
        rig.image(&copy);
        check_image(&copy, &rig.published, seed, &format!("ROLLBOOK_SETTLE_SEED={seed}, at the end"));
    }
}

/// Write-ahead files of the ledger, oldest first.
fn ledger_logs(root: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(root.join("ledger-0")).unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "log")).collect();
    logs.sort();
    logs
}

#[test]
fn a_ledger_that_lost_its_tail_is_refused() {
    let keep = temporary();
    let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
    rig.publish("a", 3, 100);
    rig.publish("b", 5, 20_000);
    rig.step().unwrap();
    let settled = rig.state.ledger().extent(rig.head("a").id);
    rig.publish("a", 3, 100);
    rig.step().unwrap();
    let copy = keep.path().join("image");
    rig.image(&copy);
    let log = ledger_logs(&copy).pop().unwrap();
    // The file is longer than what was written to it.
    let bytes = fs::read(&log).unwrap();
    let length = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let length = u64::try_from(length).unwrap() + 1;
    let mut refused = 0;
    let cuts = [None, Some(0), Some(length / 8), Some(length / 2), Some(length - 100), Some(length - 1), Some(length)];
    for (number, cut) in cuts.into_iter().enumerate() {
        // One that was refused may still close its files.
        let image = keep.path().join(format!("image-{number}"));
        rig.image(&image);
        let log = image.join(log.strip_prefix(&copy).unwrap());
        match cut {
            None => fs::remove_file(&log).unwrap(),
            Some(cut) => fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(cut).unwrap(),
        }
        match Rig::open(&image, 1) {
            Err(NodeError::LedgerBehind { directory, namespace, found, promised, .. }) => {
                refused += 1;
                assert_eq!(directory, image.join("ledger-0"));
                let last = if namespace == "a" { 6 } else { 5 };
                assert!(promised == last && found < promised, "{cut:?}: {namespace} {found} {promised}");
            }
            Err(error) => panic!("{cut:?}: {error}"),
            Ok(mut rig) => {
                assert_eq!(cut, Some(length), "a shorter ledger was taken");
                rig.published = BTreeMap::from([("a".to_owned(), Vec::new())]);
                assert_eq!(rig.read("a").unwrap().len(), 6);
            }
        }
    }
    assert_eq!(refused, 6);
    assert!(settled.end == 4, "the second step went on with a block of the first");
}

#[test]
fn a_ledger_that_has_all_that_is_visible_is_taken() {
    let keep = temporary();
    let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
    for namespace in ["a", "b", "c"] {
        rig.publish(namespace, 5, 100);
    }
    rig.step().unwrap();
    // One is trimmed to the end, one is deleted: nothing of them stays in the ledger.
    rig.trim("a", 6);
    rig.command(Command::NamespaceDelete(NamespaceDelete { name: "b".to_owned() }));
    rig.published.remove("b");
    rig.step().unwrap();
    assert_eq!((rig.state.ledger().stored_bytes(1), rig.state.ledger().stored_bytes(2)), (0, 0));
    let copy = keep.path().join("image");
    rig.image(&copy);
    let mut rig = Rig::open(&copy, 1).unwrap();
    assert_eq!((rig.read("a").unwrap().len(), rig.read("c").unwrap().len()), (0, 5));
    for namespace in ["a", "b", "c"] {
        rig.publish(namespace, 5, 100);
    }
    rig.step().unwrap();
    assert_eq!((rig.read("a").unwrap()[0].0, rig.read("b").unwrap()[0].0), (6, 6), "numbers go on");
    assert_eq!((rig.read("a").unwrap().len(), rig.read("b").unwrap().len(), rig.read("c").unwrap().len()), (5, 5, 10));
}

#[test]
fn a_directory_of_the_release_before_is_taken_and_watched_from_then_on() {
    let keep = temporary();
    let (old, new) = (keep.path().join("old"), keep.path().join("new"));
    let mut rig = Rig::open(&old, 1).unwrap();
    rig.publish("a", 4, 100);
    let rows = rig.state.rows(Family::Index).unwrap();
    rig.step().unwrap();
    // That release remembered nothing, and could leave index rows of what was settled.
    let (a, db) = (rig.head("a").id, rig.state.db());
    let promise = [b"settled\0".as_slice(), &a.to_be_bytes()].concat();
    let system = family(&db, crate::store::layout::CF_SYSTEM).unwrap();
    assert!(db.get_cf(system, &promise).unwrap().is_some());
    db.delete_cf_opt(system, &promise, &unlogged()).unwrap();
    for (key, value) in rows {
        db.put_cf_opt(family(&db, Family::Index.name()).unwrap(), key, value, &unlogged()).unwrap();
    }
    rig.state.flush().unwrap();
    rig.image(&new);
    let published = rig.published.clone();
    check_image(&new, &published, 1, "the release before");
    let mut rig = Rig::open(&new, 1).unwrap();
    assert_eq!(rig.read("a").unwrap().len(), 6);
    assert_eq!(rig.state.rows(Family::Index).unwrap(), []);
    assert_eq!(rig.state.databases().dropped(a), 7);
    rig.publish("a", 1, 100);
    rig.step().unwrap();
    assert_eq!(rig.read("a").unwrap().len(), 7);
}

#[test]
fn a_missing_index_row_is_an_error_and_the_other_namespaces_go_on() {
    for missing in [1, 4, 7] {
        let keep = temporary();
        let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
        for namespace in ["a", "b"] {
            for _ in 0..3 {
                rig.publish(namespace, 3, 100);
            }
        }
        let (a, b) = (rig.head("a").id, rig.head("b").id);
        let db = rig.state.db();
        db.delete_cf_opt(family(&db, Family::Index.name()).unwrap(), index_key(a, missing), &unlogged()).unwrap();
        let error = everything(&rig.state, &rig.log).map(|_| ()).unwrap_err().0;
        let place = format!("namespace a (number {a}), event {missing}:");
        assert!(error.contains(&place) && error.contains("state-0"), "{error}");
        assert_eq!((rig.state.ledger().settled(a), rig.state.ledger().settled(b)), (0, 10), "{missing}");
        let limit = *rig.state.applied().borrow();
        let settled = settle_most(&rig.state, &rig.log, limit, Duration::ZERO).unwrap();
        assert_eq!(settled.limit(), 0, "the log is kept");
        assert!(rig.read("a").is_err());
    }
}

#[test]
fn an_entry_with_other_events_than_it_says_is_an_error() {
    let keep = temporary();
    let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
    let mut frame = rig.frame("a", 3, 100);
    finish_publish(&mut frame, 0, FLAG_CREATE, 2).unwrap();
    rig.apply(&[frame], 1000);
    rig.publish("a", 1, 100);
    assert!(rig.read("a").is_err());
    let error = everything(&rig.state, &rig.log).map(|_| ()).unwrap_err().0;
    assert!(error.contains("other records"), "{error}");
}

#[test]
fn an_event_that_the_rules_made_is_settled_and_its_row_goes() {
    let keep = temporary();
    let mut rig = Rig::open(&keep.path().join("node"), 1).unwrap();
    for incarnation in 1..=3 {
        let up = rollbook_core::command::NodeUp { id: 1, incarnation, address: "127.0.0.1:1".to_owned() };
        rig.command(Command::NodeUp(up));
    }
    let roll = rig.head("roll");
    assert!(roll.next > 3, "the rules tell of nodes: {roll:?}");
    let made = |rig: &Rig| rig.state.rows(Family::Made).unwrap().len() + rig.state.rows(Family::Index).unwrap().len();
    let before = rig.read("roll").unwrap();
    assert!(made(&rig) > 3);
    rig.step().unwrap();
    assert_eq!((made(&rig), rig.read("roll").unwrap()), (0, before));
}
