//! What the options of the stores are for.

use rocksdb::perf::{PerfContext, PerfMetric, PerfStatsLevel, set_perf_stats};
use rollbook_core::rows::Family;

use super::layout::{family, open_state, unlogged};

/// The filter of so many keys is larger than a shard of the cache.
const KEYS: u64 = 600_000;
const LOOKS: u64 = 500;

fn key(number: u64) -> Vec<u8> {
    // As random as the ids of events and envelopes.
    let spread = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    [spread.to_be_bytes(), number.to_be_bytes()].concat()
}

#[test]
fn a_look_for_a_key_that_is_not_there_reads_nothing_however_many_there_are() {
    let directory = tempfile::tempdir().unwrap();
    let db = open_state(directory.path()).unwrap();
    let ids = family(&db, Family::Ids.name()).unwrap();
    for number in 0..KEYS {
        db.put_cf_opt(ids, key(number), [7; 16], &unlogged()).unwrap();
    }
    db.flush_cf(ids).unwrap();
    let look =
        |from: u64| (from..from + LOOKS).for_each(|number| assert_eq!(db.get_cf(ids, key(number)).unwrap(), None));
    // The pieces of the filter come into the cache.
    (0..10).for_each(|round| look(KEYS + round * LOOKS));
    set_perf_stats(PerfStatsLevel::EnableCount);
    let mut context = PerfContext::default();
    context.reset();
    look(KEYS * 2);
    let read = context.metric(PerfMetric::BlockReadByte) / LOOKS;
    set_perf_stats(PerfStatsLevel::Disable);
    assert!(read < 4096, "{read} bytes for each look");
}
