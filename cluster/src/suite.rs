//! Runs the storage suite of openraft on our stores, and tests of properties that the suite does not check.

use std::time::Duration;

use futures_util::StreamExt as _;
use openraft::StorageError;
use openraft::impls::EntryPayload;
use openraft::storage::{RaftLogReader as _, RaftLogStorage as _};
use openraft::testing::log::{StoreBuilder, Suite};
use rollbook_core::entry::EntryBuilder;

use crate::codec::log_id;
use crate::log::store::LogStore;
use crate::replicate::machine::StateMachine;
use crate::state::state::State;
use crate::store::layout::Layout;
use crate::types::{Entry, EntryData, IoFlushed, Runtime, Types};
use crate::wait::wait_until;

struct Stores;

impl StoreBuilder<Types, LogStore, StateMachine, tempfile::TempDir> for Stores {
    async fn build(&self) -> Result<(tempfile::TempDir, LogStore, StateMachine), StorageError<Types>> {
        let directory = tempfile::tempdir().unwrap();
        let layout = Layout::open(directory.path(), 0).unwrap();
        let (log, _writer) = LogStore::open(&layout, false).unwrap();
        let machine = StateMachine::detached(State::open(&layout).unwrap());
        Ok((directory, log, machine))
    }
}

#[test]
fn our_stores_pass_the_storage_suite_of_openraft() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(Runtime::scope(1, Suite::test_all(Stores))).unwrap();
}

#[tokio::test]
async fn entries_that_replace_truncated_ones_are_read_at_once_and_are_not_durable_yet() {
    let directory = tempfile::tempdir().unwrap();
    let open = || LogStore::open_simulated(&Layout::open(directory.path(), 0).unwrap(), Duration::from_millis(20));
    let entry = |term, index| Entry {
        log_id: log_id(term, index),
        payload: EntryPayload::Normal(EntryData(EntryBuilder::new(0).finish(0).into())),
    };
    let mut log = open().unwrap();
    log.append((1..=5).map(|index| entry(1, index)), IoFlushed::noop()).await.unwrap();
    wait_until(&mut log.durable(), |next| *next == 6).await.unwrap();
    drop(log);
    let mut tries = 0;
    let mut log = loop {
        tries += 1;
        // The writer closes the database a moment later.
        match open() {
            Ok(log) => break log,
            Err(error) if tries == 1000 => panic!("{error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
        }
    };
    // Nothing is in memory now, so that what stays is read from the database and the rest from memory.
    log.truncate_after(Some(log_id(1, 2))).await.unwrap();
    assert_eq!(*log.durable().borrow(), 3, "durable");
    log.append((3..=4).map(|index| entry(2, index)), IoFlushed::noop()).await.unwrap();
    assert_eq!(*log.durable().borrow(), 3, "durable");
    let read: Vec<_> = log.try_get_log_entries(1..9).await.unwrap().into_iter().map(|entry| entry.log_id).collect();
    assert_eq!(read, [log_id(1, 1), log_id(1, 2), log_id(2, 3), log_id(2, 4)]);
}

#[tokio::test]
async fn giving_back_purged_entries_keeps_the_one_behind_them() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _writer) = LogStore::open(&Layout::open(directory.path(), 0).unwrap(), false).unwrap();
    let entry = |index| Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(EntryData(EntryBuilder::new(0).finish(0).into())),
    };
    log.append((1..=4).map(entry), IoFlushed::noop()).await.unwrap();
    log.flush().await.unwrap();
    // A compacted file that ends with the first entry that stays.
    log.compact();
    log.append((5..=6).map(entry), IoFlushed::noop()).await.unwrap();
    log.purge(log_id(1, 3)).await.unwrap();
    log.flush().await.unwrap();
    log.reclaim(false).unwrap();
    log.reclaim(true).unwrap();
    assert_eq!(log.on_disk().unwrap(), [4, 5, 6]);
}

#[tokio::test]
async fn a_hole_in_the_log_is_an_error_for_every_reader_and_what_was_purged_is_none() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _writer) = LogStore::open(&Layout::open(directory.path(), 0).unwrap(), false).unwrap();
    let entry = |index| Entry {
        log_id: log_id(1, index),
        payload: EntryPayload::Normal(EntryData(EntryBuilder::new(0).finish(0).into())),
    };
    log.append((1..=9).map(entry), IoFlushed::noop()).await.unwrap();
    log.purge(log_id(1, 2)).await.unwrap();
    log.flush().await.unwrap();
    log.lose(5);
    let indexes = |entries: Vec<Entry>| entries.iter().map(|entry| entry.log_id.index).collect::<Vec<_>>();
    assert_eq!(indexes(log.try_get_log_entries(0..5).await.unwrap()), [3, 4], "purged entries are no hole");
    assert_eq!(indexes(log.limited_get_log_entries(6, 20).await.unwrap()), [6, 7, 8, 9]);
    for (from, to) in [(3, 9), (5, 9), (5, 6), (4, 6)] {
        let error = log.try_get_log_entries(from..to).await.unwrap_err().to_string();
        let named = error.contains("entry 5 ") && error.contains(directory.path().join("raft").to_str().unwrap());
        assert!(named, "{from}..{to}: {error}");
        assert!(log.limited_get_log_entries(from, to).await.is_err(), "{from}..{to}");
        let last = log.entries_stream(from..to).await.collect::<Vec<_>>().await.pop().unwrap();
        assert!(last.is_err(), "{from}..{to} is applied as if it were whole");
    }
    let first = log.entries_stream(1..5).await.collect::<Vec<_>>().await;
    assert!(first.first().unwrap().is_err(), "what is to be applied was purged");
    log.lose(9);
    assert!(log.try_get_log_entries(8..10).await.is_err(), "the last one is missing");
}
