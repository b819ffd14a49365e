//! Builds arrive in chunks and are finished.

use super::*;
use crate::dock::build::BuildRow;

impl Story {
    /// Gives a build another size and count, as if that many bytes had come, without their rows.
    fn pretend(&mut self, build: u8, change: impl FnOnce(&mut BuildRow)) {
        let mut row = self.replica.machine.docks().build(&uid(build)).unwrap().clone();
        change(&mut row);
        let key = [b"docks/build/", &row.id[..]].concat();
        self.replica.memory.rows.insert((Family::Meta, key), row.encode_to_vec());
        self.replica.machine = self.replica.reloaded();
    }

    /// A change without the checks of the rows of chunks.
    fn apply(&mut self, change: Change) -> Reply {
        self.millis += 10;
        self.replica.apply_at(self.millis, &[Command::dock(None, change).frame().unwrap()]).pop().unwrap()
    }
}

#[test]
fn a_build_arrives_chunk_by_chunk_and_then_its_definition_points_to_it() {
    let mut story = Story::with_web();
    let counts = |chunks, bytes| DockDone { revision: 0, chunks, bytes };
    assert_eq!(story.done(begin(1, "web")), counts(0, 0));
    assert_eq!(story.done(chunk(1, 0, b"abc")), counts(1, 3));
    assert_eq!(story.done(chunk(1, 1, b"de")), counts(2, 5));
    assert!(story.replica.machine.docks().build(&uid(1)).unwrap().is_open());
    assert_eq!((story.definition("web").build_id(), story.definition("web").revision), (None, 1));
    assert_eq!(story.done(finish(1, &[b"abc", b"de"])), DockDone { revision: 2, chunks: 2, bytes: 5 });
    let row = story.replica.machine.docks().build(&uid(1)).unwrap();
    assert_eq!((row.is_open(), row.sha256.as_slice(), row.revision), (false, &SHA256[..], 2));
    let definition = story.definition("web");
    assert_eq!((definition.build_id(), &*definition.document), (Some(uid(1)), &br#"{"build":1}"#[..]));
    assert_eq!(story.chunks(), [(uid(1), 0, &b"abc"[..]), (uid(1), 1, b"de")]);
    story.done(set("web", b"[]"));
    assert_eq!(story.definition("web").build_id(), Some(uid(1)), "another document is no other build");
}

#[test]
fn what_comes_again_because_its_outcome_was_unknown_is_no_news() {
    let mut story = Story::with_web();
    story.done(begin(1, "web"));
    assert_eq!(story.done(begin(1, "web")), DockDone::default());
    story.done(chunk(1, 0, b"abc"));
    assert_eq!(story.done(chunk(1, 0, b"abc")), DockDone { revision: 0, chunks: 1, bytes: 3 });
    let done = story.done(finish(1, &[b"abc"]));
    story.done(set("web", b"[]"));
    let before = story.replica.memory.rows.clone();
    assert_eq!(story.done(finish(1, &[b"abc"])), done);
    assert_eq!(story.propose(Some(1), finish(1, &[b"abc"])), Ok(done), "whatever its revision was");
    assert_eq!((&*story.definition("web").document, story.definition("web").revision), (&b"[]"[..], 3));
    let of_docks = |rows: &BTreeMap<(Family, Vec<u8>), Vec<u8>>| {
        rows.iter().filter(|((_, key), _)| key.starts_with(b"docks/")).map(|row| format!("{row:?}")).collect::<Vec<_>>()
    };
    assert_eq!(of_docks(&before), of_docks(&story.replica.memory.rows));
}

#[test]
fn chunks_that_are_not_the_next_ones_are_refused() {
    let mut story = Story::with_web();
    assert_eq!(story.refused(chunk(1, 0, b"a")), Refusal::DockNotFound(format!("build {}", uid(1))));
    story.done(begin(1, "web"));
    let refused = |story: &mut Story, ordinal, bytes: &[u8]| match story.refused(chunk(1, ordinal, bytes)) {
        Refusal::Dock(text) | Refusal::Malformed(text) => text,
        other => panic!("{other:?}"),
    };
    assert_eq!(refused(&mut story, 1, b"b"), "chunk 1 is not the next one: 0 came");
    story.done(chunk(1, 0, b"a"));
    story.done(chunk(1, 1, b"b"));
    assert_eq!(refused(&mut story, 1, b"B"), "another chunk 1 came before");
    assert_eq!(refused(&mut story, 0, b"a"), "chunk 0 is not the next one: 2 came");
    assert_eq!(refused(&mut story, 3, b"d"), "chunk 3 is not the next one: 2 came");
    assert!(refused(&mut story, 2, b"").starts_with("a chunk of a build has"));
    assert!(refused(&mut story, 2, &vec![0; BUILD_CHUNK_BYTES_MAX + 1]).starts_with("a chunk of a build has"));
    story.done(chunk(1, 2, &vec![0; BUILD_CHUNK_BYTES_MAX]));
    story.done(finish_with(1, 3, 2 + u64::try_from(BUILD_CHUNK_BYTES_MAX).unwrap()));
    assert_eq!(refused(&mut story, 3, b"d"), "the build is finished");
}

#[test]
fn a_build_is_finished_with_what_came_and_nothing_else() {
    let mut story = Story::with_web();
    assert!(matches!(story.refused(finish(1, &[b"a"])), Refusal::DockNotFound(_)));
    story.done(begin(1, "web"));
    assert_eq!(story.refused(finish(1, &[])), Refusal::Dock("0 chunks with 0 bytes came".into()));
    story.done(chunk(1, 0, b"a"));
    for (chunks, bytes) in [(1, 2), (2, 1), (0, 0)] {
        assert_eq!(story.refused(finish_with(1, chunks, bytes)), Refusal::Dock("1 chunks with 1 bytes came".into()));
    }
    let changed = |change: fn(&mut BuildFinish)| {
        let Change::BuildFinish(mut body) = finish(1, &[b"a"]) else { panic!("a finish") };
        change(&mut body);
        Change::BuildFinish(body)
    };
    assert!(matches!(story.refused(changed(|body| body.sha256.push(7))), Refusal::Malformed(_)));
    assert!(matches!(story.refused(changed(|body| body.document.clear())), Refusal::Malformed(_)));
    story.done(finish(1, &[b"a"]));
    assert_eq!(story.refused(changed(|body| body.sha256 = vec![8; 32])), Refusal::Dock("the build is finished".into()));
}

#[test]
fn a_build_needs_a_definition_and_an_id_of_its_own() {
    let mut story = Story::with_web();
    story.done(set("mail", b"{}"));
    assert_eq!(story.refused(begin(1, "x")), Refusal::DockNotFound("definition x".into()));
    story.done(begin(1, "web"));
    let taken = Refusal::Dock("a build has that id".into());
    assert_eq!(story.refused(begin(1, "mail")), taken);
    story.done(chunk(1, 0, b"a"));
    assert_eq!(story.refused(begin(1, "web")), taken);
    story.done(finish(1, &[b"a"]));
    assert_eq!(story.refused(begin(1, "web")), taken);
}

#[test]
fn one_build_is_bounded_in_bytes_and_chunks() {
    let mut story = Story::with_web();
    story.done(begin(1, "web"));
    story.pretend(1, |row| (row.chunks, row.bytes) = (5000, BUILD_BYTES_MAX - 2));
    assert!(matches!(story.apply(chunk(1, 5000, b"abc")), Err(Refusal::Dock(_))));
    assert!(story.apply(chunk(1, 5000, b"ab")).is_ok());
    assert!(matches!(story.apply(chunk(1, 5001, b"a")), Err(Refusal::Dock(_))));
    assert!(story.apply(finish_with(1, 5001, BUILD_BYTES_MAX)).is_ok());
    story.apply(begin(2, "web")).unwrap();
    story.pretend(2, |row| (row.chunks, row.bytes) = (BUILD_CHUNKS_MAX, 9));
    assert!(matches!(story.apply(chunk(2, BUILD_CHUNKS_MAX, b"a")), Err(Refusal::Dock(_))));
}

#[test]
fn all_builds_together_are_bounded_the_open_ones_with_the_finished_ones() {
    let mut story = Story::new();
    for build in 1..=8 {
        let definition = format!("d{build}");
        story.apply(set(&definition, b"{}")).unwrap();
        story.apply(begin(build, &definition)).unwrap();
        let bytes = if build == 8 { BUILD_BYTES_MAX - 3 } else { BUILD_BYTES_MAX };
        story.pretend(build, |row| (row.chunks, row.bytes) = (5000, bytes));
        if build < 5 {
            story.apply(finish_with(build, 5000, bytes)).unwrap();
        }
    }
    assert_eq!(story.replica.machine.docks().build_bytes(), BUILDS_BYTES_MAX - 3);
    story.apply(begin(9, "d1")).unwrap();
    assert!(matches!(story.apply(chunk(9, 0, b"abcd")), Err(Refusal::Overloaded(_))));
    story.apply(chunk(9, 0, b"abc")).unwrap();
    assert!(matches!(story.apply(chunk(9, 1, b"d")), Err(Refusal::Overloaded(_))));
    story.apply(finish_with(9, 1, 3)).unwrap();
    story.apply(remove("d2")).unwrap();
    assert_eq!(story.replica.machine.docks().build_bytes(), BUILDS_BYTES_MAX - BUILD_BYTES_MAX);
    story.apply(begin(10, "d1")).unwrap();
    story.apply(chunk(10, 0, b"abcd")).unwrap();
}
