//! What the ledger must do with blocks that are whole, damaged, missing or there twice.

use super::*;
use crate::ledger::block::tests::{block, record, unlabelled};

fn open(dir: &Path) -> Arc<Ledger> {
    Ledger::new(crate::store::layout::open_ledger(&dir.join("ledger")).unwrap(), &dir.join("staging")).unwrap()
}

fn run(namespace: u32, blocks: &[Block]) -> Run {
    Run { namespace, blocks: blocks.to_vec(), visible: blocks[0].first, replaced: None }
}

fn store(ledger: &Ledger, namespace: u32, blocks: &[Block]) {
    ledger.store(&[run(namespace, blocks)]).unwrap();
}

/// Writes blocks past all checks, as a release before this one could.
fn put(ledger: &Ledger, namespace: u32, block: &Block, meta: bool) {
    let key = index_key(namespace, block.first);
    ledger.db.put_cf(family(&ledger.db, CF_BLOCKS).unwrap(), &key, &block.value).unwrap();
    if meta {
        ledger.db.put_cf(family(&ledger.db, CF_BLOCK_META).unwrap(), &key, block.meta.encode_to_vec()).unwrap();
    }
}

fn seek(ledger: &Ledger, namespace: u32, sequence: u64, pattern: Option<&str>) -> Result<SeekResult, ReadError> {
    let pattern = pattern.map(|text| Pattern::parse(text).unwrap());
    ledger.seek(namespace, sequence, pattern.as_ref(), &mut 1000)
}

/// The first sequence number of the block, or how far the search passed; with the message of an error.
fn found(ledger: &Ledger, namespace: u32, sequence: u64, pattern: Option<&str>) -> Result<u64, String> {
    match seek(ledger, namespace, sequence, pattern) {
        Ok(SeekResult::Block(found)) => Ok(found.first),
        Ok(SeekResult::Passed(next)) => Ok(next),
        Err(ReadError(error)) => Err(error),
    }
}

/// Errors must say where: directory, namespace and event.
fn assert_named(ledger: &Ledger, found: Result<u64, String>, namespace: u32, sequence: u64) {
    let error = found.unwrap_err();
    assert!(error.contains(&ledger.directory().display().to_string()), "{error}");
    assert!(error.contains(&format!("namespace {namespace}, event {sequence}:")), "{error}");
}

#[test]
fn giving_back_what_is_forgotten_keeps_the_first_block_that_stays() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let blocks: Vec<Block> = (1..=3).map(|first| block(1, first, &["a.x"])).collect();
    store(&ledger, 1, &blocks);
    // Compacted files that end with the first block that stays.
    for name in [CF_BLOCKS, CF_BLOCK_META] {
        let column = family(&ledger.db, name).unwrap();
        ledger.db.flush_cf(column).unwrap();
        ledger.db.compact_range_cf(column, None::<&[u8]>, None::<&[u8]>);
    }
    store(&ledger, 1, &[block(1, 4, &["a.x"])]);
    store(&ledger, 2, &[block(2, 1, &["b.x"])]);
    assert!(ledger.forget(&[(1, 3), (2, 1)]).unwrap());
    ledger.reclaim_all().unwrap();
    assert_eq!(
        (found(&ledger, 1, 3, None), found(&ledger, 1, 4, None), found(&ledger, 2, 1, None)),
        (Ok(3), Ok(4), Ok(1))
    );
    assert_named(&ledger, found(&ledger, 1, 2, None), 1, 2);
    assert_eq!(
        ledger.extent(1),
        Extent { first: 3, first_end: 4, end: 5, stored_bytes: 2 * blocks[0].meta.stored_bytes }
    );
    assert!(ledger.forget(&[(1, 5)]).unwrap());
    ledger.reclaim_all().unwrap();
    assert!(found(&ledger, 1, 4, None).is_err() && found(&ledger, 2, 1, None).is_ok());
    assert_eq!((ledger.stored_bytes(1), ledger.settled(1)), (0, 5));
    store(&ledger, 1, &[block(1, 5, &["a.y"])]);
    assert_eq!((found(&ledger, 1, 5, None), ledger.extent(1).first), (Ok(5), 5));
}

#[test]
fn a_block_is_found_by_any_sequence_inside_it_and_passed_by_when_its_filter_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    store(&ledger, 1, &[block(1, 1, &["a.x", "a.y"]), block(1, 3, &["a.z"])]);
    store(&ledger, 2, &[block(2, 1, &["b.x"])]);
    for (sequence, pattern, expected) in
        [(1, None, 1), (2, None, 1), (3, None, 3), (4, None, 4), (1, Some("a.z"), 3), (1, Some("a.none"), 4)]
    {
        assert_eq!(found(&ledger, 1, sequence, pattern), Ok(expected), "{sequence} {pattern:?}");
    }
    assert_eq!((ledger.settled(1), ledger.settled(2), ledger.settled(3)), (4, 2, 0));
}

#[test]
fn a_search_for_a_rare_subject_gives_up_after_a_bounded_number_of_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let mut blocks: Vec<Block> = (1..=50).map(|first| block(1, first, &["a.usual"])).collect();
    blocks.push(block(1, 51, &["a.rare"]));
    store(&ledger, 1, &blocks);
    let rare = Pattern::parse("a.rare").unwrap();
    let (mut next, mut calls) = (1, 0);
    let first = loop {
        calls += 1;
        let mut budget = 20;
        match ledger.seek(1, next, Some(&rare), &mut budget).unwrap() {
            SeekResult::Block(found) => break found.first,
            SeekResult::Passed(passed) => {
                assert_eq!((passed, budget), (next + 20, 0));
                next = passed;
            }
        }
    };
    assert_eq!((first, calls), (51, 3));
}

#[test]
fn what_was_settled_is_known_after_reopening_and_a_small_block_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    store(&open(dir.path()), 1, &[block(1, 1, &["a.x", "a.y"])]);
    let ledger = open(dir.path());
    assert_eq!(ledger.settled(1), 3);
    let (mut builder, replaced) = ledger.reopen_last(1).unwrap().unwrap();
    assert_eq!(replaced, ledger.stored_bytes(1));
    builder.push("a.z", &record("a.z"), 9);
    let block = builder.finish().unwrap();
    let bytes = block.meta.stored_bytes;
    ledger.store(&[Run { replaced: Some(replaced), ..run(1, &[block]) }]).unwrap();
    assert_eq!((ledger.settled(1), found(&ledger, 1, 3, None), ledger.stored_bytes(1)), (4, Ok(1), bytes));
    assert_eq!(ledger.extent(1).first_end, 4);
}

#[test]
fn forgetting_takes_whole_blocks_only() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    store(&ledger, 1, &[block(1, 1, &["a.x", "a.y"]), block(1, 3, &["a.z"])]);
    assert!(!ledger.is_forgettable(1, 2), "the first block still holds a visible event");
    assert!(ledger.forget(&[(1, 2)]).unwrap());
    assert_eq!(found(&ledger, 1, 1, None), Ok(1));
    assert!(ledger.is_forgettable(1, 3) && ledger.forget(&[(1, 3)]).unwrap());
    assert_eq!((found(&ledger, 1, 3, None), ledger.extent(1).first), (Ok(3), 3));
    assert!(ledger.forget(&[(1, 99)]).unwrap());
    assert!(found(&ledger, 1, 3, None).is_err() && ledger.stored_bytes(1) == 0);
    assert!(!ledger.is_forgettable(1, 99));
}

#[test]
fn very_many_blocks_are_forgotten_in_several_calls() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let template = block(1, 1, &["a.x"]);
    let blocks: Vec<Block> = (1..=5000).map(|first| Block { first, ..template.clone() }).collect();
    store(&ledger, 1, &blocks);
    assert!(!ledger.forget(&[(1, 4990), (2, 7)]).unwrap());
    assert_eq!(ledger.extent(1).first, 4097);
    assert!(ledger.forget(&[(1, 4990), (2, 7)]).unwrap());
    let extent = ledger.extent(1);
    assert_eq!((extent.first, extent.first_end), (4990, 4991));
    drop(ledger);
    assert_eq!(open(dir.path()).extent(1), extent, "counted on and counted anew are the same");
}

#[test]
fn blocks_that_leave_a_gap_or_overlap_are_not_stored() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    store(&ledger, 1, &[block(1, 1, &["a.x", "a.y"])]);
    let tried = |blocks: &[Block], visible: u64, replaced| ledger.store(&[Run { visible, replaced, ..run(1, blocks) }]);
    assert!(tried(&[block(1, 4, &["a.x"])], 1, None).is_err(), "a gap");
    assert!(tried(&[block(1, 2, &["a.x"])], 1, None).is_err(), "an overlap");
    assert!(tried(&[block(1, 3, &["a.x"]), block(1, 5, &["a.x"])], 1, None).is_err(), "a gap among them");
    assert!(tried(&[block(1, 1, &["a.x"])], 1, Some(9)).is_err(), "fewer events than before");
    assert_eq!(ledger.settled(1), 3);
    assert!(tried(&[block(1, 7, &["a.x"])], 7, None).is_ok(), "all before was trimmed");
    assert_eq!(found(&ledger, 1, 7, None), Ok(7));
}

#[test]
fn a_missing_block_is_an_error_that_says_where_and_nothing_is_skipped() {
    for missing in [1, 3, 5] {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        store(&ledger, 1, &[1, 3, 5].map(|first| block(1, first, &["a.x", "a.y"])));
        ledger.db.delete_cf(family(&ledger.db, CF_BLOCK_META).unwrap(), index_key(1, missing)).unwrap();
        for sequence in 1..7 {
            for pattern in [None, Some("a.none")] {
                let found = found(&ledger, 1, sequence, pattern);
                let at = sequence.max(missing);
                if (missing..missing + 2).contains(&sequence) || (pattern.is_some() && sequence < missing) {
                    assert_named(&ledger, found, 1, at);
                } else {
                    assert!(found.is_ok(), "{missing} {sequence} {pattern:?} {found:?}");
                }
            }
        }
        drop(ledger);
        let ledger = open(dir.path());
        let holes = if missing == 3 { vec![Hole { namespace: 1, end: 3, next: 5 }] } else { vec![] };
        assert_eq!(ledger.holes(), holes);
    }
}

#[test]
fn blocks_that_overlap_are_not_served() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    // A release before this one died between a block of two events and its row, took the event behind from the
    // log once more, and went on: event 3 is in both blocks.
    put(&ledger, 1, &unlabelled(&block(1, 1, &["a.1", "a.2", "a.3", "a.2"])), true);
    put(&ledger, 1, &unlabelled(&block(1, 3, &["a.3", "a.4", "a.5"])), true);
    drop(ledger);
    let ledger = open(dir.path());
    assert_eq!(ledger.holes(), [Hole { namespace: 1, end: 5, next: 3 }]);
    for sequence in 1..5 {
        assert_named(&ledger, found(&ledger, 1, sequence, None), 1, sequence.max(3));
    }
    assert_eq!(found(&ledger, 1, 5, None), Ok(3));
}

#[test]
fn a_step_that_the_release_before_left_half_done_is_refused_and_then_mended() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    store(&ledger, 1, &[unlabelled(&block(1, 1, &["a.1", "a.2"]))]);
    // The block has four events now, its row says two; events 3 and 4 are in the log.
    put(&ledger, 1, &unlabelled(&block(1, 1, &["a.1", "a.2", "a.3", "a.4"])), false);
    assert_named(&ledger, found(&ledger, 1, 1, None), 1, 1);
    let (mut builder, replaced) = ledger.reopen_last(1).unwrap().unwrap();
    builder.push("a.3", &record("a.3"), 9);
    ledger.store(&[Run { replaced: Some(replaced), ..run(1, &[builder.finish().unwrap()]) }]).unwrap();
    let SeekResult::Block(found) = seek(&ledger, 1, 1, None).unwrap() else { panic!("no block") };
    assert_eq!((found.events, found.records), (3, ["a.1", "a.2", "a.3"].map(record).concat()));
}

#[test]
fn a_step_that_fails_anywhere_leaves_blocks_that_are_contiguous() {
    let noise = |seed: u64| {
        let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let next = move || {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            x.to_be_bytes()
        };
        std::iter::repeat_with(next).take(BLOCK_BYTES / 8).flatten().collect::<Vec<u8>>()
    };
    let full = |first: u64| {
        let mut builder = BlockBuilder::new(1, first, 0);
        let mut record = Vec::new();
        let payload = noise(first);
        let event = rollbook_core::event::Event { subject: "a.x", payload: Some(&payload), ..Default::default() };
        event.encode(&mut record).unwrap();
        builder.push("a.x", &record, 7);
        builder.finish().unwrap()
    };
    for at in 0..5 {
        let dir = tempfile::tempdir().unwrap();
        let ledger = open(dir.path());
        store(&ledger, 1, &[block(1, 1, &["a.1", "a.2"])]);
        let (mut builder, replaced) = ledger.reopen_last(1).unwrap().unwrap();
        builder.push("a.3", &record("a.3"), 9);
        let mut blocks = vec![builder.finish().unwrap()];
        blocks.extend((4..20).map(full));
        let step = Run { replaced: Some(replaced), ..run(1, &blocks) };
        let mut points = 0;
        let hook = move |_: &str| {
            points += 1;
            points == at + 1
        };
        let stored = crash::with(hook, || ledger.store(&[step]));
        assert_eq!(stored.is_err(), at < 4, "there are four points, this is {at}");
        let settled = ledger.settled(1);
        assert_eq!(settled, [3, 4, 4, 20, 20][usize::try_from(at).unwrap()]);
        drop(ledger);
        let ledger = open(dir.path());
        assert_eq!((ledger.settled(1), ledger.holes()), (settled, [].as_slice()), "point {at}");
        for sequence in 1..settled {
            let first = if sequence < 4 { 1 } else { sequence };
            assert_eq!(found(&ledger, 1, sequence, None), Ok(first), "point {at}");
        }
    }
}
