//! Docks: what each change does, and that a change that is refused changes nothing. `definitions` has definitions, `builds`
//! how builds arrive, `cleaning` which of them go, `events` what happened to processes, `random` random changes on two
//! replicas.

mod builds;
mod cleaning;
mod definitions;
mod events;
mod random;

use super::level::latest_replica;
use super::*;
use crate::dock::change::{BuildBegin, BuildChunk, BuildFinish, Change, DefinitionSet, Events};
use crate::dock::definition::DefinitionRow;
use crate::dock::done::DockDone;
use crate::dock::event::{DockEvent, DockEventKind};
use crate::dock::limits::*;
use crate::xbus::id::Id;

/// The checksum of all builds.
const SHA256: [u8; 32] = [7; 32];

fn uid(number: u8) -> Id {
    Id::new([number; 16])
}

/// A cluster on which time passes by 10 milliseconds with each change.
struct Story {
    replica: Replica,
    millis: u64,
}

impl Story {
    /// An empty cluster of the newest level.
    fn new() -> Self {
        Self { replica: latest_replica(), millis: 1_000_000 }
    }

    /// A cluster with the definition `web`.
    fn with_web() -> Self {
        let mut story = Self::new();
        story.done(set("web", b"{}"));
        story
    }

    /// Makes a change, and checks that the rows say the same as the memory, and that a refused change did nothing.
    fn propose(&mut self, if_revision: Option<u64>, change: Change) -> Result<DockDone, Refusal> {
        self.millis += 10;
        // The time of the log goes on with an entry of its own.
        self.replica.apply_at(self.millis, &[]);
        let before = (self.replica.machine.clone(), self.replica.memory.rows.clone());
        let frame = Command::dock(if_revision, change).frame().unwrap();
        let reply = self.replica.apply_at(self.millis, &[frame]).pop().unwrap();
        if reply.is_err() {
            assert_eq!(self.replica.machine, before.0, "a refused change did something: {reply:?}");
            assert_eq!(self.replica.memory.rows, before.1, "a refused change wrote something: {reply:?}");
        }
        assert_eq!(self.replica.machine, self.replica.reloaded());
        self.check_chunks();
        match reply? {
            Done::Dock(done) => Ok(done),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn done(&mut self, change: Change) -> DockDone {
        self.propose(None, change).unwrap()
    }

    /// Makes many changes in one entry, without the checks of [`Story::propose`].
    #[track_caller]
    fn all_done(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.millis += 10;
        let frames: Vec<_> = changes.into_iter().map(|change| Command::dock(None, change).frame().unwrap()).collect();
        let replies = self.replica.apply_at(self.millis, &frames);
        assert!(replies.iter().all(Result::is_ok), "{replies:?}");
    }

    #[track_caller]
    fn refused(&mut self, change: Change) -> Refusal {
        self.propose(None, change).unwrap_err()
    }

    /// A build of `web` arrives and is finished.
    #[track_caller]
    fn builds(&mut self, build: u8, chunks: &[&[u8]]) {
        self.done(begin(build, "web"));
        for (ordinal, bytes) in (0..).zip(chunks) {
            self.done(chunk(build, ordinal, bytes));
        }
        self.done(finish(build, chunks));
    }

    fn definition(&self, id: &str) -> &DefinitionRow {
        self.replica.machine.docks().definition(id).unwrap()
    }

    /// Build, ordinal and bytes of all chunks.
    fn chunks(&self) -> Vec<(Id, u32, &[u8])> {
        chunks(&self.replica)
    }

    /// The rows of chunks are those that the builds have.
    fn check_chunks(&self) {
        check_chunks(&self.replica);
    }

    fn has_build(&self, build: u8) -> bool {
        let is_there = self.replica.machine.docks().build(&uid(build)).is_some();
        assert_eq!(is_there, self.chunks().iter().any(|(of, ..)| *of == uid(build)), "every build here has chunks");
        is_there
    }
}

fn chunks(replica: &Replica) -> Vec<(Id, u32, &[u8])> {
    let (from, to) = rows::bounds(u32::MAX - 2);
    let rows = replica.memory.rows.range((Family::Ids, from)..(Family::Ids, to));
    let parse = |((_, key), value): (&(Family, Vec<u8>), _)| {
        let (build, ordinal) = key[4..].split_at(16);
        (Id::from_slice(build).unwrap(), u32::from_be_bytes(ordinal.try_into().unwrap()), value)
    };
    rows.map(parse).map(|(build, ordinal, value): (_, _, &Vec<u8>)| (build, ordinal, value.as_slice())).collect()
}

fn check_chunks(replica: &Replica) {
    let mut counts: BTreeMap<Id, (u32, u64)> = BTreeMap::new();
    for (build, ordinal, bytes) in chunks(replica) {
        let count = counts.entry(build).or_default();
        assert_eq!(ordinal, count.0, "a chunk of {build} is missing");
        *count = (ordinal + 1, count.1 + u64::try_from(bytes.len()).unwrap());
    }
    for row in replica.machine.docks().builds() {
        assert_eq!((row.chunks, row.bytes), counts.remove(&row.id()).unwrap_or_default(), "{row:?}");
    }
    assert!(counts.is_empty(), "chunks without a build: {counts:?}");
}

fn set(id: &str, document: &[u8]) -> Change {
    Change::DefinitionSet(DefinitionSet { id: id.into(), document: document.into() })
}

fn remove(id: &str) -> Change {
    Change::DefinitionRemove(id.into())
}

fn begin(build: u8, definition: &str) -> Change {
    Change::BuildBegin(BuildBegin { build: uid(build).to_vec(), definition: definition.into() })
}

fn chunk(build: u8, ordinal: u32, bytes: &[u8]) -> Change {
    Change::BuildChunk(BuildChunk { build: uid(build).to_vec(), ordinal, bytes: bytes.into() })
}

fn finish_with(build: u8, chunks: u32, bytes: u64) -> Change {
    let document = format!(r#"{{"build":{build}}}"#).into_bytes();
    Change::BuildFinish(BuildFinish { build: uid(build).to_vec(), chunks, bytes, sha256: SHA256.into(), document })
}

fn finish(build: u8, chunks: &[&[u8]]) -> Change {
    let bytes: usize = chunks.iter().map(|chunk| chunk.len()).sum();
    finish_with(build, u32::try_from(chunks.len()).unwrap(), u64::try_from(bytes).unwrap())
}

fn abandon(build: u8) -> Change {
    Change::BuildAbandon(uid(build).to_vec())
}

#[test]
fn below_the_level_no_change_of_docks_is_proposed() {
    let frame = Command::dock(None, set("web", b"{}")).frame().unwrap();
    let check = |level| crate::command::admission::check_level(&frame, 1, level);
    assert!(matches!(check(FeatureLevel::XBUS), Err(Refusal::Unavailable(_))));
    assert_eq!(check(FeatureLevel::DOCKS), Ok(()));
    assert_eq!(FeatureLevel::DOCKS.get(), FeatureLevel::XBUS.get() + 1);
}

#[test]
fn a_change_that_is_none_and_an_id_that_is_none_are_malformed() {
    let mut story = Story::with_web();
    let none = Command::Dock(alloc::boxed::Box::default()).frame().unwrap();
    assert!(matches!(story.replica.apply_one(none), Err(Refusal::Malformed(_))));
    let short = Change::BuildBegin(BuildBegin { build: vec![1; 15], definition: "web".into() });
    assert!(matches!(story.refused(short), Refusal::Malformed(_)));
    assert!(matches!(story.refused(Change::BuildAbandon(Vec::new())), Refusal::Malformed(_)));
}
