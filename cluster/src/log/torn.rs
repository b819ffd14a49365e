//! Every cut and every flipped byte of a small raft log and of its mark: never fewer acknowledged entries, never an
//! older vote, without a refusal.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use openraft::impls::EntryPayload;
use openraft::storage::RaftLogStorage as _;
use rollbook_core::entry::EntryBuilder;
use tempfile::TempDir;

use super::mark::{Mark, MarkFile};
use super::repair::{self, Opened};
use super::scan;
use super::store::LogStore;
use crate::codec::log_id;
use crate::error::NodeError;
use crate::store::layout::Layout;
use crate::types::{Entry, EntryData, IoFlushed, Vote};
use crate::wait::wait_until;

/// Terms of the entries from 1 on that the log has acknowledged, and that of the vote.
const TERMS: [u64; 5] = [1, 1, 1, 2, 2];
const VOTE: u64 = 3;

fn place() -> TempDir {
    // Memory where there is some: thousands of logs are opened.
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

fn entry(term: u64, index: u64) -> Entry {
    let data = EntryData(EntryBuilder::new(0).finish(0).into());
    Entry { log_id: log_id(term, index), payload: EntryPayload::Normal(data) }
}

fn copy(from: &Path, to: &Path) {
    if to.exists() {
        fs::remove_dir_all(to).unwrap();
    }
    fs::create_dir_all(to).unwrap();
    for item in fs::read_dir(from).unwrap() {
        let item = item.unwrap();
        let target = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &target);
        } else {
            fs::copy(item.path(), target).unwrap();
        }
    }
}

/// A node that was killed after it had written, truncated, written anew and voted; `pause` before the truncation.
async fn killed(keep: &TempDir, pause: Duration) -> PathBuf {
    let (live, left) = (keep.path().join("live"), keep.path().join("left"));
    let (mut log, writer) = LogStore::open(&Layout::open(&live, 1).unwrap(), false).unwrap();
    log.save_vote(&Vote::new_committed(1, 1)).await.unwrap();
    log.append((1..=9).map(|index| entry(1, index)), IoFlushed::noop()).await.unwrap();
    wait_until(&mut log.durable(), |next| *next == 10).await.unwrap();
    tokio::time::sleep(pause).await;
    log.save_vote(&Vote::new_committed(2, 1)).await.unwrap();
    log.truncate_after(Some(log_id(1, 3))).await.unwrap();
    log.append((4..=5).map(|index| entry(2, index)), IoFlushed::noop()).await.unwrap();
    wait_until(&mut log.durable(), |next| *next == 6).await.unwrap();
    log.save_vote(&Vote::new(VOTE, 2)).await.unwrap();
    // What a killed process leaves, before a clean stop can add to it.
    copy(&live, &left);
    drop(log);
    writer.join().unwrap();
    left
}

/// The log at `data` is refused, or it has everything.
fn whole_or_refused(data: &Path, what: &str) -> Result<(), NodeError> {
    let layout = Layout::open(data, 1).unwrap();
    let Opened { known, .. } = repair::open(&layout, false)?;
    let vote = known.vote.map_or(0, |vote| vote.leader_id.term);
    assert!(vote >= VOTE, "{what}: the vote of term {vote}");
    let (log, writer) = LogStore::open(&layout, false).unwrap();
    let found: Vec<Option<u64>> =
        (1..=5).map(|index| log.entry(index).unwrap().map(|entry| entry.log_id.leader_id.term)).collect();
    assert_eq!(found, TERMS.map(Some), "{what}: terms of the entries");
    drop(log);
    writer.join().unwrap();
    Ok(())
}

/// Tries what damage does to one file; how many are refused.
fn refused(left: &Path, file: &Path, damaged: impl Iterator<Item = (String, Vec<u8>)>) -> usize {
    let trial = left.with_extension("trial-of-test");
    let mut count = 0;
    for (what, bytes) in damaged {
        copy(left, &trial);
        fs::write(trial.join(file), bytes).unwrap();
        count += usize::from(whole_or_refused(&trial, &what).is_err());
    }
    count
}

/// The bytes with one bit of each byte flipped; which one is drawn.
fn flips(whole: &[u8], places: impl Iterator<Item = usize>) -> impl Iterator<Item = (String, Vec<u8>)> {
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let seed = u64::try_from(nanos).unwrap() | 1;
    eprintln!("seed of the flipped bits: {seed}");
    let mut dice = seed;
    places.map(move |at| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        let mut flipped = whole.to_vec();
        flipped[at] ^= 1 << ((dice >> 20) % 8);
        (format!("seed {seed}: a bit of byte {at} of {} is flipped", whole.len()), flipped)
    })
}

fn newest_log(data: &Path) -> PathBuf {
    let file = scan::log_files(&data.join("raft")).unwrap().pop().unwrap();
    file.strip_prefix(data).unwrap().to_path_buf()
}

#[tokio::test]
async fn a_log_that_is_cut_anywhere_is_whole_or_refused() {
    let keep = place();
    let left = killed(&keep, Duration::ZERO).await;
    let undamaged = keep.path().join("undamaged");
    copy(&left, &undamaged);
    whole_or_refused(&undamaged, "undamaged").unwrap();
    let file = newest_log(&left);
    let whole = fs::read(left.join(&file)).unwrap();
    let cuts = (0..whole.len()).map(|at| (format!("cut to {at} of {}", whole.len()), whole[..at].to_vec()));
    assert_eq!(refused(&left, &file, cuts), whole.len(), "the last byte is part of an acknowledged vote");
}

#[tokio::test]
async fn a_log_with_any_byte_flipped_is_whole_or_refused() {
    let keep = place();
    let left = killed(&keep, Duration::ZERO).await;
    let file = newest_log(&left);
    let whole = fs::read(left.join(&file)).unwrap();
    let count = refused(&left, &file, flips(&whole, 0..whole.len()));
    assert_eq!(count, whole.len(), "all of it was acknowledged");
}

#[tokio::test]
async fn a_mark_that_is_cut_or_has_any_byte_flipped_is_as_good_or_refused() {
    let keep = place();
    let left = killed(&keep, Duration::ZERO).await;
    let file = PathBuf::from("MARK");
    let whole = fs::read(left.join(&file)).unwrap();
    let slots = || (0..64).chain(whole.len() - 64..whole.len());
    assert_eq!(refused(&left, &file, flips(&whole, slots())), 0, "the other slot is left");
    let cuts = slots().map(|at| (format!("mark cut to {at} of {}", whole.len()), whole[..at].to_vec()));
    assert_eq!(refused(&left, &file, cuts), 64, "without a whole slot it is refused");
}

#[tokio::test]
async fn a_power_cut_behind_a_truncation_is_no_loss() {
    let keep = place();
    // Long enough that the mark is synced once more before the truncation.
    let left = killed(&keep, Duration::from_millis(1100)).await;
    // The log was synced each time; of the mark the disk has what was synced last.
    fs::rename(left.join("MARK.disk"), left.join("MARK")).unwrap();
    whole_or_refused(&left, "the mark as it was when it was synced last").unwrap();
}

#[tokio::test]
async fn a_lost_mark_is_refused_until_it_is_asked_for() {
    let keep = place();
    let left = killed(&keep, Duration::ZERO).await;
    for lost in [None, Some(Vec::new()), Some(vec![7; 4160])] {
        let data = keep.path().join("copy");
        copy(&left, &data);
        match &lost {
            None => fs::remove_file(data.join("MARK")).unwrap(),
            Some(bytes) => fs::write(data.join("MARK"), bytes).unwrap(),
        }
        let error = whole_or_refused(&data, "lost").unwrap_err();
        assert!(matches!(error, NodeError::LostMark { .. }), "{error}");
        assert!(error.to_string().contains("MARK") && error.to_string().contains("--accept-lost-mark"), "{error}");
        let layout = Layout::open(&data, 1).unwrap();
        let Opened { mark, .. } = repair::open(&layout, true).unwrap();
        assert_eq!(mark.get(), Mark { next_index: 6, last_term: Some(2), vote_term: VOTE });
        drop((mark, layout));
        // From then on it is protected again.
        whole_or_refused(&data, "accepted").unwrap();
    }
}

#[test]
fn a_first_start_that_was_cut_short_goes_on() {
    let keep = place();
    let steps = ["only the directory", "the mark", "a log", "an empty mark and a log"];
    for (number, step) in steps.into_iter().enumerate() {
        let data = keep.path().join(number.to_string());
        let layout = Layout::open(&data, 1).unwrap();
        match number {
            0 => {}
            1 => drop(MarkFile::begin(&layout.mark(), 0, Mark::default()).unwrap()),
            2 => drop(repair::open(&layout, false).unwrap()),
            _ => {
                drop(repair::open(&layout, false).unwrap());
                fs::write(layout.mark(), []).unwrap();
            }
        }
        let opened = repair::open(&layout, false).map(|opened| opened.known);
        assert!(opened.is_ok_and(|known| known == repair::Known::default()), "{step}");
    }
}

#[tokio::test]
async fn an_older_entry_in_the_place_of_the_acknowledged_one_is_refused() {
    let keep = place();
    let left = killed(&keep, Duration::ZERO).await;
    let layout = Layout::open(&left, 1).unwrap();
    drop(repair::open(&layout, false).unwrap());
    // The log that a disk shows which lost the truncation and what came behind it.
    let promised = Mark { next_index: 6, last_term: Some(3), vote_term: VOTE };
    MarkFile::begin(&layout.mark(), 99, promised).unwrap();
    let error = repair::open(&layout, false).map(drop).unwrap_err();
    assert!(error.to_string().contains("entry 5 "), "{error}");
    // Nor is a vote that is older, nor a log that is gone with its vote.
    let promised = Mark { vote_term: VOTE + 1, ..Mark::default() };
    MarkFile::begin(&layout.mark(), 199, promised).unwrap();
    assert!(matches!(repair::open(&layout, false).map(drop), Err(NodeError::LostVote { .. })));
    fs::remove_dir_all(layout.raft()).unwrap();
    assert!(repair::open(&layout, false).is_err(), "a vote was given, and there is no log at all");
}
