//! Processes that have ended go along again.

use super::*;
use crate::command::Trim;
use crate::xbus::change::{Expire, Replay};
use crate::xbus::process::row::{ProcessRow, ProcessStatus};

fn replay(process: u8, new: &[u8]) -> Replay {
    let ids = new.iter().map(|number| id(*number)).collect();
    Replay { process: id(process), ids, from_node: String::new(), active: false }
}

fn trim(first: u64) -> Vec<u8> {
    Command::Trim(Trim { name: "xbus".into(), first, bytes_first: 0 }).frame().unwrap()
}

impl Story {
    /// Process 200 fails at the consumer, to which envelope 101 of the worker came.
    fn fails(&mut self) {
        self.begins(100, 200);
        self.goes(200, send("w", WORKER));
        self.sends(101, &worker(WORKER, 200), whole("bill"));
        self.goes(200, send("c", CONSUMER));
        let step = self.goes(200, end("c", CONSUMER, false));
        assert_eq!(step.status(), ProcessStatus::Error);
    }

    fn open(&self, process: u8) -> &ProcessRow {
        self.replica.machine.xbus().open_process(uid(process)).unwrap()
    }

    /// Drops the events of the book that nothing needs.
    fn trims(&mut self, first: u64) {
        self.millis += 10;
        drop(self.replica.apply_at(self.millis, &[trim(first)]));
    }
}

#[test]
fn a_process_goes_along_again_from_the_start_and_holds_what_it_needs() {
    let mut story = Story::new();
    story.fails();
    let step = story.done(Change::Replay(replay(200, &[210]))).steps.pop().unwrap();
    assert_eq!(
        (step.id.clone(), step.was, step.status()),
        (id(210), Some(ProcessStatus::Initial.into()), ProcessStatus::Running)
    );
    assert_eq!(step.ready[0].node, "w");
    let row = story.open(210);
    assert_eq!((&row.replay_of, &row.envelope, row.pinned), (&id(200), &id(100), 1));
    // Neither the book nor the rows of the envelope go as long as the process goes on.
    story.trims(10);
    assert_eq!(story.replica.machine.head("xbus").unwrap().first, 1);
    assert_eq!(story.done(Change::EnvelopesPurge(Expire { millis: u64::MAX })).count, 0);
    story.goes(210, send("w", WORKER));
    story.goes(210, end("w", WORKER, true));
    assert!(story.replica.machine.xbus().open_process(uid(210)).is_none());
    assert_eq!(story.done(Change::EnvelopesPurge(Expire { millis: u64::MAX })).count, 2);
    assert!(story.refused(Change::Replay(replay(200, &[211]))).contains("is gone"));
}

#[test]
fn a_process_goes_along_again_from_a_node_with_the_envelope_that_came_there() {
    let mut story = Story::new();
    story.fails();
    let from = |node: &str| Replay { from_node: node.into(), ..replay(200, &[210]) };
    assert_eq!(story.refused(Change::Replay(from("x"))), "the version of the pipeline has no node x");
    assert!(story.refused(Change::Replay(from("e"))).contains("is an emitter"));
    story.done(Change::Replay(from("c")));
    let delivered = story.goes(210, send("c", CONSUMER)).deliver.unwrap();
    assert_eq!(delivered.inputs[0].envelope, id(101));
    assert_eq!(story.goes(210, end("c", CONSUMER, true)).status(), ProcessStatus::Done);
}

#[test]
fn a_process_goes_along_the_active_version_when_that_is_wanted() {
    let mut story = Story::new();
    story.fails();
    let mut newer = document();
    newer.nodes.push(node("audit", &["i"], &[]));
    newer.edges.push("e.o->audit.i".into());
    story.done(Change::PipelineSave(save(51, "orders", "2", newer)));
    story.done(activate(51, PipelineStatus::Active));
    let active = |new: u8| Replay { active: true, ..replay(200, &[new]) };
    let ready = story.done(Change::Replay(active(210))).steps.pop().unwrap().ready;
    assert_eq!(ready.iter().map(|job| job.node.as_str()).collect::<Vec<_>>(), ["w", "audit"]);
    assert_eq!(story.open(210).pipeline, id(51));
    story.done(Change::Replay(replay(200, &[211])));
    assert_eq!(story.open(211).pipeline, id(PIPELINE), "the version of the old process, active or not");
    story.done(Change::ActorDelete(id(EMITTER)));
    assert!(story.refused(Change::Replay(active(212))).contains("the emitter is gone"));
    story.done(Change::Replay(replay(200, &[213])));
    story.done(activate(51, PipelineStatus::Inactive));
    assert_eq!(story.refused(Change::Replay(active(214))), "no version of pipeline orders is active");
}

#[test]
fn only_what_has_ended_and_is_still_there_goes_along_again() {
    let mut story = Story::new();
    assert!(story.refused(Change::Replay(replay(9, &[210]))).starts_with("not found: process"));
    story.begins(100, 200);
    assert!(story.refused(Change::Replay(replay(200, &[210]))).contains("the process goes on"));
    story.goes(200, send("w", WORKER));
    story.goes(200, Happens::Cancel(Unit {}));
    assert!(story.refused(Change::Replay(replay(200, &[210]))).contains("an actor still has a job of it"));
    story.goes(200, end("w", WORKER, true));
    assert!(story.refused(Change::Replay(replay(200, &[]))).contains("1 process ids needed"));
    assert!(story.refused(Change::Replay(replay(200, &[200]))).contains("a process has that id"));
    story.trims(2);
    assert!(story.refused(Change::Replay(replay(200, &[210]))).contains("no longer in the book"));
}

#[test]
fn an_envelope_that_no_pipeline_took_goes_along_those_that_take_it_now() {
    let mut story = Story::empty();
    story.account();
    story.begins(100, 200);
    let active = |new: &[u8]| Replay { active: true, ..replay(200, new) };
    assert!(story.refused(Change::Replay(replay(200, &[210]))).contains("with the active version"));
    assert_eq!(story.refused(Change::Replay(active(&[210]))), "no active pipeline takes the envelope");
    story.pipeline(PIPELINE, "orders", document());
    story.pipeline(51, "more orders", document());
    assert!(story.refused(Change::Replay(active(&[210]))).contains("2 process ids needed"));
    let done = story.done(Change::Replay(active(&[210, 211])));
    assert_eq!(done.steps.len(), 2);
    assert_eq!((&story.open(210).replay_of, story.open(211).pinned), (&id(200), 1));
}
