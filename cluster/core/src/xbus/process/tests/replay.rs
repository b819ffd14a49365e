//! Processes that go along again.

use super::*;
use crate::xbus::process::replay::{Replay, ReplayError};

/// Envelope 101 went to `c`, which failed; `d` got 102.
fn failed() -> Story {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    story.ok(complete("w", 1, "a", 101));
    story.ok(complete("w", 1, "b", 102));
    story.ok(send("d", 3));
    story.ok(end("d", 3, true));
    story.ok(send("c", 2));
    story.ok(end("c", 2, false));
    assert_eq!(story.status(), (ProcessStatus::Error, "node c failed"));
    story
}

/// A replay of the process of a story along this graph.
fn replay<'a>(old: &'a Story, graph: &'a Graph) -> Replay<'a> {
    Replay { old: &old.process, old_graph: &old.graph, pipeline: id(151), graph, output: "o" }
}

/// The story of the new process.
fn again(old: &Story, graph: &Graph, node: Option<&str>) -> Result<Story, ReplayError> {
    let replay = replay(old, graph);
    let (process, begun) = match node {
        Some(node) => replay.from_node(id(201), 2000, node, &old.actors)?,
        None => replay.from_start(id(201), 2000, &replay.emitters(), &old.actors),
    };
    let actors = Known(old.actors.0.clone());
    Ok(Story { graph: graph.clone(), actors, process, begun, millis: 2000 })
}

#[test]
fn a_replay_from_the_start_is_a_new_process_with_the_old_envelope() {
    let old = failed();
    let mut new = again(&old, &old.graph, None).unwrap();
    assert_eq!(new.begun.status, Some((ProcessStatus::Initial, ProcessStatus::Running)));
    assert_eq!(new.begun.ready, [ready("w")]);
    let row = &new.process;
    assert_eq!((row.id(), &row.replay_of, &row.emitter), (id(201), &id(200).to_vec(), &old.process.emitter));
    assert_eq!((&row.envelope, row.created, &row.pipeline), (&id(100).to_vec(), 2000, &id(151).to_vec()));
    assert_eq!(new.ok(send("w", 1)).deliver.unwrap().inputs, [("i".to_string(), Some(id(100)))]);
    new.ok(end("w", 1, true));
    assert_eq!(new.status(), (ProcessStatus::Done, ""));
}

#[test]
fn a_replay_from_a_node_does_what_stands_behind_and_nothing_else() {
    let old = failed();
    let mut new = again(&old, &old.graph, Some("c")).unwrap();
    assert_eq!(new.begun.ready, [ready("c")]);
    assert_eq!(
        (new.state("e"), new.state("w"), new.state("d")),
        (NodeState::Success, NodeState::Success, NodeState::Success)
    );
    assert_eq!(new.ok(send("c", 2)).deliver.unwrap().inputs, [("i".to_string(), Some(id(101)))]);
    let effects = new.ok(end("c", 2, true));
    assert_eq!(effects.status, Some((ProcessStatus::Running, ProcessStatus::Done)));
    assert_eq!(new.process.nodes[1].jobs[0].outputs[0].envelope, id(101).to_vec(), "what the worker sent is kept");
}

#[test]
fn a_branch_that_failed_is_skipped_when_another_one_goes_along_again() {
    let old = failed();
    let mut new = again(&old, &old.graph, Some("d")).unwrap();
    assert_eq!((new.begun.ready.clone(), new.state("c")), (vec![ready("d")], NodeState::Skipped));
    new.ok(send("d", 3));
    new.ok(end("d", 3, true));
    assert_eq!(new.status(), (ProcessStatus::Done, ""));
}

#[test]
fn a_join_behind_the_node_gets_what_the_other_branch_sent_before() {
    let nodes =
        [node("e", &[], &["o"]), node("a", &["i"], &["o"]), node("b", &["i"], &["o"]), node("c", &["x", "y"], &[])];
    let graph = graph(&nodes, &["e.o->a.i", "e.o->b.i", "a.o->c.x", "b.o->c.y"]);
    let mut old = Story::new(graph, &[(1, "a"), (2, "b"), (3, "c")]);
    old.ok(send("a", 1));
    old.ok(complete("a", 1, "o", 101));
    old.ok(send("b", 2));
    old.ok(end("b", 2, false));
    let mut new = again(&old, &old.graph, Some("b")).unwrap();
    assert_eq!(new.begun.ready, [ready("b")]);
    new.ok(send("b", 2));
    assert_eq!(new.ok(complete("b", 2, "o", 102)).ready, [ready("c")]);
    let inputs = new.ok(send("c", 3)).deliver.unwrap().inputs;
    assert_eq!(inputs, [("x".to_string(), Some(id(101))), ("y".to_string(), Some(id(102)))]);
    // Of a branch that sent nothing nothing comes.
    let mut new = again(&old, &old.graph, Some("a")).unwrap();
    new.ok(send("a", 1));
    assert_eq!(new.ok(complete("a", 1, "o", 103)).ready, [ready("c")]);
    let inputs = new.ok(send("c", 3)).deliver.unwrap().inputs;
    assert_eq!(inputs, [("x".to_string(), Some(id(103))), ("y".to_string(), None)]);
}

#[test]
fn another_version_has_the_node_and_its_inputs_by_their_names() {
    let old = failed();
    // The nodes stand elsewhere in the text, and a node is new.
    let nodes = [
        node("c", &["more", "i"], &[]),
        node("new", &["i"], &[]),
        node("w", &["i"], &["b", "a"]),
        node("e", &[], &["o"]),
        node("d", &["i"], &[]),
    ];
    let edges = ["e.o->w.i", "w.a->c.i", "w.b->d.i", "w.b->c.more", "e.o->new.i"];
    let newer = graph(&nodes, &edges);
    let mut new = again(&old, &newer, Some("c")).unwrap();
    let inputs = new.ok(send("c", 2)).deliver.unwrap().inputs;
    assert_eq!(inputs, [("more".to_string(), None), ("i".to_string(), Some(id(101)))], "as in the old process");
    assert_eq!(new.state("new"), NodeState::Skipped, "it stands beside the node");
    new.ok(end("c", 2, true));
    assert_eq!(new.status(), (ProcessStatus::Done, ""));
    let without = graph(&[node("e", &[], &["o"]), node("c", &["other"], &[])], &["e.o->c.other"]);
    let refused = |graph: &Graph, node: &str| again(&old, graph, Some(node)).map(|_| ()).unwrap_err();
    assert_eq!(refused(&without, "c"), ReplayError::NoInput("c".into(), "i".into()));
    assert_eq!(refused(&without, "d"), ReplayError::NoNode("d".into()));
    assert_eq!(refused(&newer, "new"), ReplayError::NoOldNode("new".into()));
    assert_eq!(refused(&newer, "e"), ReplayError::Emitter("e".into()));
}

#[test]
fn a_node_to_which_nothing_came_is_no_start() {
    let mut old = Story::new(fork(), &FORK);
    old.ok(Event::Cancel(UNIT));
    assert_eq!(again(&old, &old.graph, Some("c")).map(|_| ()).unwrap_err(), ReplayError::NotReached("c".into()));
    assert!(again(&old, &old.graph, Some("w")).is_ok(), "its envelope was there");
}

#[test]
fn jobs_that_nobody_did_are_not_left_over_beside_the_node() {
    let mut old = Story::new(fork(), &FORK);
    old.ok(send("w", 1));
    old.ok(complete("w", 1, "a", 101));
    old.ok(complete("w", 1, "b", 102));
    old.ok(Event::Cancel(UNIT));
    let new = again(&old, &old.graph, Some("c")).unwrap();
    assert_eq!((new.state("d"), new.process.nodes[3].jobs.len()), (NodeState::Skipped, 0));
    assert!(!new.process.has_live_jobs());
}
