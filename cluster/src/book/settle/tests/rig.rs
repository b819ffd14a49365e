//! A node without raft, whose data directory can be copied as a killed process leaves it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use openraft::impls::EntryPayload;
use openraft::storage::RaftLogStorage as _;
use rollbook_core::command::{Command, Trim};
use rollbook_core::entry::{EntryBuilder, FLAG_CREATE, begin_publish, finish_publish};
use rollbook_core::time::Timestamp;

use crate::book::events::Book;
use crate::book::settle::*;
use crate::codec::log_id;
use crate::error::NodeError;
use crate::replicate::machine;
use crate::store::layout::Layout;
use crate::types::{Entry, EntryData, IoFlushed};
use crate::wait::wait_until;

/// A node without raft: a log, a state, and what was published.
pub(super) struct Rig {
    pub(super) root: PathBuf,
    runtime: tokio::runtime::Runtime,
    pub(super) log: LogStore,
    pub(super) state: Arc<State>,
    pub(super) next: u64,
    dice: u64,
    /// Payloads by namespace, event 1 first.
    pub(super) published: BTreeMap<String, Vec<Vec<u8>>>,
}

pub(super) fn temporary() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory).unwrap() } else { tempfile::tempdir().unwrap() }
}

pub(super) fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else if let Err(error) = fs::copy(entry.path(), &target) {
            // RocksDB removes files in the background.
            assert_eq!(error.kind(), std::io::ErrorKind::NotFound, "{error}");
        }
    }
}

impl Rig {
    pub(super) fn open(root: &Path, seed: u64) -> Result<Self, NodeError> {
        let layout = Layout::open(root, 1)?;
        let (log, _writer) = LogStore::open(&layout, false)?;
        let state = State::open(&layout)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let next = log.next_index();
        let dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut rig = Self { root: root.to_path_buf(), runtime, log, state, next, dice, published: BTreeMap::new() };
        rig.replay();
        Ok(rig)
    }

    /// Applies what the log has and the state has not, as openraft does at a start.
    pub(super) fn replay(&mut self) {
        let from = *self.state.applied().borrow();
        for index in from..self.next {
            let entry = self.log.entry(index).unwrap().unwrap_or_else(|| panic!("entry {index} is missing"));
            machine::apply(&self.state, Some(&self.log), &[entry]).unwrap();
        }
    }

    pub(super) fn random(&mut self, limit: u64) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        (self.dice >> 20) % limit
    }

    pub(super) fn apply(&mut self, frames: &[Vec<u8>], millis: u64) {
        let mut builder = EntryBuilder::new(0);
        frames.iter().for_each(|frame| builder.push(frame));
        let payload = EntryPayload::Normal(EntryData(builder.finish(millis).into()));
        let entry = Entry { log_id: log_id(1, self.next), payload };
        self.next += 1;
        self.runtime.block_on(async {
            self.log.append([entry.clone()], IoFlushed::noop()).await.unwrap();
            wait_until(&mut self.log.durable(), |next| *next == self.next).await.unwrap();
        });
        for reply in machine::apply(&self.state, Some(&self.log), &[entry]).unwrap().concat() {
            reply.unwrap();
        }
    }

    pub(super) fn frame(&mut self, namespace: &str, events: u32, bytes: u64) -> Vec<u8> {
        self.frame_at(namespace, events, bytes, 0)
    }

    /// A publish of events that were created at a time.
    pub(super) fn frame_at(&mut self, namespace: &str, events: u32, bytes: u64, millis: u64) -> Vec<u8> {
        let created_at = Timestamp::from_millis(millis);
        let mut frame = Vec::new();
        begin_publish(&mut frame, namespace).unwrap();
        for _ in 0..events {
            // Noise, which does not compress.
            let payload: Vec<u8> = (0..bytes / 8 + 1).flat_map(|_| self.random(u64::MAX).to_be_bytes()).collect();
            let subject = format!("{namespace}.x");
            Event { subject: &subject, payload: Some(&payload), created_at, ..Event::default() }
                .encode(&mut frame)
                .unwrap();
            self.published.entry(namespace.to_owned()).or_default().push(payload);
        }
        finish_publish(&mut frame, 0, FLAG_CREATE, events).unwrap();
        frame
    }

    pub(super) fn publish(&mut self, namespace: &str, events: u32, bytes: u64) {
        let frame = self.frame(namespace, events, bytes);
        self.apply(&[frame], 1000);
    }

    pub(super) fn command(&mut self, command: Command) {
        self.apply(&[command.frame().unwrap()], 1000);
    }

    pub(super) fn trim(&mut self, namespace: &str, first: u64) {
        self.command(Command::Trim(Trim { name: namespace.to_owned(), first, bytes_first: 0 }));
    }

    pub(super) fn head(&self, namespace: &str) -> Head {
        self.state.machine().head(namespace).cloned().unwrap()
    }

    /// The whole step, as the settler takes it.
    pub(super) fn step(&self) -> Result<(), ReadError> {
        let flushed = everything(&self.state, &self.log)?.flush(&self.state)?;
        forget(&self.state, &flushed)?;
        crash::point("step: forgotten")?;
        let Some(last) = flushed.limit().checked_sub(1) else { return Ok(()) };
        self.runtime.block_on(async {
            self.log.clone().purge(log_id(1, last)).await.unwrap();
            self.log.flush().await.unwrap();
        });
        crash::point("step: purged")
    }

    pub(super) fn read(&self, namespace: &str) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
        let book = Book::new(Arc::clone(&self.state), self.log.clone());
        let (mut found, mut next) = (Vec::new(), 1);
        loop {
            let after = book.read(namespace, next, None, &mut |sequence, event, _| {
                found.push((sequence, event.payload.unwrap().to_vec()));
                ControlFlow::Continue(())
            })?;
            if after == next {
                return Ok(found);
            }
            next = after;
        }
    }

    pub(super) fn check(&self, what: &str) {
        for (namespace, published) in &self.published {
            let first = self.head(namespace).first;
            let expected = (1..).zip(published).skip_while(|(sequence, _)| *sequence < first);
            let found = self.read(namespace).unwrap_or_else(|error| panic!("{what}: {error}"));
            let found: Vec<(u64, &Vec<u8>)> = found.iter().map(|(sequence, payload)| (*sequence, payload)).collect();
            assert!(found.into_iter().eq(expected), "{what}: {namespace} has other events");
        }
    }

    /// What a process that is killed now leaves behind.
    pub(super) fn image(&self, to: &Path) {
        image(&self.root, to);
    }
}

pub(super) fn image(root: &Path, to: &Path) {
    loop {
        let until = std::time::Instant::now() + Duration::from_secs(10);
        while to.exists() {
            // The log writer of the life before may still close its files there.
            if let Err(error) = fs::remove_dir_all(to) {
                assert!(std::time::Instant::now() < until, "{}: {error}", to.display());
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        let before = names(root);
        copy_tree(root, to);
        // A copy takes its time, and a dead process does not: RocksDB may have replaced files meanwhile.
        if names(root) == before {
            return;
        }
    }
}

/// The names of all files below a folder.
fn names(folder: &Path) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let below = |path: PathBuf| if path.is_dir() { names(&path) } else { BTreeSet::from([path]) };
    entries.flat_map(below).collect()
}

/// Starts on the image, and goes on as a node does.
pub(super) fn check_image(image: &Path, published: &BTreeMap<String, Vec<Vec<u8>>>, seed: u64, what: &str) {
    let layout = Layout::open(image, 1).unwrap();
    let state = State::open(&layout).unwrap_or_else(|error| panic!("{what}: {error}"));
    for head in state.machine().heads() {
        let extent = state.ledger().extent(head.id);
        let gone = extent.first.min(extent.end);
        assert!(gone <= head.first, "{what}: events from {} on are visible, blocks before {gone} are gone", head.first);
    }
    drop((state, layout));
    let mut rig = Rig::open(image, seed).unwrap_or_else(|error| panic!("{what}: {error}"));
    rig.published = published.clone();
    rig.check(what);
    for namespace in ["a", "b", "c"] {
        rig.publish(namespace, 2, 100);
    }
    rig.step().unwrap_or_else(|error| panic!("{what}: {error}"));
    rig.check(what);
    // Also those that are read through no event of the history. What lies before the first visible event may be
    // missing: it was trimmed before it was settled.
    drop((rig.log, rig.state));
    let state = State::open(&Layout::open(image, 1).unwrap()).unwrap();
    for head in state.machine().heads() {
        let here =
            |hole: &&crate::ledger::ledger::Hole| hole.namespace == head.id && hole.end.max(hole.next) > head.first;
        assert_eq!(state.ledger().holes().iter().find(here), None, "{what}: {head:?}");
    }
}
