//! Random pipelines and random stories keep the invariants of processes.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::{
    Known, OWNER, Story, UNIT, back, begin, close, complete, end, forward, graph, id, job, lost, node, output, run,
    send,
};
use crate::xbus::limits::DETACHED_MS;
use crate::xbus::pipeline::document::NodeDocument;
use crate::xbus::process::event::{Denied, Effects, Event};
use crate::xbus::process::row::{JobRow, JobState, NodeState, OutputState, ProcessStatus};

/// Most nodes of a random pipeline besides its emitter.
const NODES: usize = 6;

/// A pipeline of an emitter and some nodes, each with two inputs and, but for consumers, two outputs. `wires` says which
/// output of an earlier node feeds which input.
fn pipeline(
    kinds: &[(bool, bool)],
    wires: &[(usize, usize, usize, usize)],
) -> (Vec<NodeDocument>, Vec<alloc::string::String>) {
    let mut nodes = alloc::vec![node("e", &[], &["o"])];
    let mut edges = BTreeSet::new();
    for (number, (worker, broadcast)) in (1..).zip(kinds) {
        let outputs: &[&str] = if *worker { &["a", "b"] } else { &[] };
        let fed: BTreeSet<usize> =
            wires.iter().filter(|wire| wire.2 == number && wire.0 < number).map(|wire| wire.3 % 2).collect();
        let inputs: Vec<&str> = ["x", "y"]
            .into_iter()
            .enumerate()
            .filter(|(at, _)| fed.contains(at) || *at == 0)
            .map(|(_, name)| name)
            .collect();
        let mut one = node(&format!("n{number}"), &inputs, outputs);
        one.role_broadcast = *broadcast;
        nodes.push(one);
        // Each input needs an edge, and the emitter has one for the first.
        edges.insert(format!("e.o->n{number}.x"));
    }
    for (from, out, to, into) in wires.iter().filter(|wire| wire.0 < wire.2 && wire.2 <= kinds.len()) {
        let from_worker = *from > 0 && kinds.get(from - 1).is_some_and(|(worker, _)| *worker);
        if from_worker {
            edges.insert(format!("n{from}.{}->n{to}.{}", ["a", "b"][out % 2], ["x", "y"][into % 2]));
            // Then the emitter does not feed this input too, or most stories would end at once.
            if into % 2 == 0 {
                edges.remove(&format!("e.o->n{to}.x"));
            }
        } else if into % 2 == 1 {
            edges.insert(format!("e.o->n{to}.y"));
        }
    }
    (nodes, edges.into_iter().collect())
}

fn story(kinds: &[(bool, bool)], wires: &[(usize, usize, usize, usize)]) -> Story {
    let (nodes, edges) = pipeline(kinds, wires);
    let edges: Vec<&str> = edges.iter().map(alloc::string::String::as_str).collect();
    let mut story = Story::new(graph(&nodes, &edges), &[]);
    let names = nodes.iter().map(|node| node.id.clone()).collect::<Vec<_>>();
    story.actors = Known((1..=3).map(|actor| (actor, names.clone())).collect());
    story.ok(Event::ActorsChanged(UNIT));
    story
}

/// Says what the model of the test knows: which jobs an actor has, and what each input got.
#[derive(Default)]
struct Model {
    held: BTreeMap<(alloc::string::String, u8), bool>,
    inputs: BTreeMap<(usize, usize), Vec<u8>>,
    statuses: Vec<ProcessStatus>,
}

impl Model {
    fn check(&mut self, story: &Story, event: &Event, effects: &Effects) {
        let process = &story.process;
        let status = process.status();
        // A job is given to an actor again only after a loss: then it is not held any more.
        if let Some(delivery) = &effects.deliver {
            let key = (delivery.node.clone(), delivery.actor.as_bytes()[0]);
            let broadcast = story
                .graph
                .find(&delivery.node)
                .and_then(|at| story.graph.node(at))
                .is_some_and(|node| node.role_broadcast);
            let busy = self
                .held
                .iter()
                .any(|((node, actor), held)| *held && *node == key.0 && (!broadcast || *actor == key.1));
            assert!(!busy, "{event:?} started a job twice");
            assert_eq!(status, ProcessStatus::Running);
            self.held.insert(key, true);
        }
        for ((node, actor), held) in &mut self.held {
            let number = story.graph.find(node).expect("a node");
            let jobs = process.nodes[number].jobs.iter().filter(|job| job.actor == id(*actor).as_bytes());
            let live_or_ended = jobs.map(|job| job.state()).any(|state| state != JobState::Ready);
            *held &= live_or_ended;
        }
        // What is ready is told only while the process runs.
        assert!(effects.ready.is_empty() || status == ProcessStatus::Running);
        for (node, row) in process.nodes.iter().enumerate() {
            for (port, input) in row.inputs.iter().enumerate().filter(|(_, input)| !input.envelope.is_empty()) {
                let first = self.inputs.entry((node, port)).or_insert_with(|| input.envelope.clone());
                assert_eq!(*first, input.envelope, "an input took two envelopes");
            }
        }
        // The end is the end.
        if let Some(last) = self.statuses.last().filter(|last| last.is_final()) {
            assert_eq!(*last, status);
        }
        self.statuses.push(status);
        let error = process.nodes.iter().any(|node| node.state() == NodeState::Error);
        let well = process.nodes.iter().all(|node| node.state().is_well());
        assert_eq!(status == ProcessStatus::Done, well && status != ProcessStatus::Error);
        assert!(!error || status == ProcessStatus::Error);
        assert_eq!(status == ProcessStatus::Error, !process.state.is_empty());
    }
}

fn event(kind: u8, node: usize, actor: u8, name: usize, envelope: u8) -> Event {
    let (node, name) = (format!("n{node}"), ["a", "b"][name % 2]);
    match kind {
        0..=3 => send(&node, actor),
        4 => run(&node, actor),
        5 => Event::Detach(job(&node, actor)),
        6 => end(&node, actor, true),
        7 => end(&node, actor, !envelope.is_multiple_of(5)),
        8 => begin(&node, actor, name, envelope),
        9 | 10 => complete(&node, actor, name, envelope),
        11 => Event::OutputFail(output(&node, actor, name, envelope)),
        12 => close(&node, actor, name),
        13 => forward(&node, actor, name, 100),
        14 => lost(actor),
        15 => back(actor),
        16 if envelope.is_multiple_of(4) => Event::ActorGone(id(actor).to_vec()),
        17 if envelope.is_multiple_of(2) => Event::NodeLost(OWNER),
        17 => Event::Expire(UNIT),
        18 => Event::Pause(UNIT),
        19 => Event::Resume(UNIT),
        20 if envelope.is_multiple_of(8) => Event::Cancel(UNIT),
        _ => Event::ActorsChanged(UNIT),
    }
}

/// What is left to do for a live job: an envelope that is coming becomes complete, an open output gets one (`eager`),
/// or the job ends.
fn next_of(name: &str, actor: u8, job: &JobRow, eager: bool, envelope: u8) -> Event {
    let outputs = || ["a", "b"].into_iter().zip(&job.outputs);
    if let Some((output, row)) = outputs().find(|(_, row)| row.state() == OutputState::Sending) {
        return complete(name, actor, output, row.envelope[0]);
    }
    match outputs().find(|(_, row)| eager && row.state() == OutputState::Open) {
        Some((output, _)) => complete(name, actor, output, envelope),
        None => end(name, actor, true),
    }
}

/// Does all that is left to do: every ready job is sent and succeeds, and every live one ends.
fn finish(story: &mut Story, model: &mut Model, eager: bool) {
    if story.process.status() == ProcessStatus::Paused {
        let effects = story.ok(Event::Resume(UNIT));
        model.check(story, &Event::Resume(UNIT), &effects);
    }
    for envelope in 140..=u8::MAX {
        let running = story.process.status() == ProcessStatus::Running;
        let rows = story.graph.nodes().iter().zip(&story.process.nodes);
        let jobs = rows.flat_map(|(node, row)| row.jobs.iter().map(move |job| (node.id.as_str(), job)));
        let mut next = jobs.filter_map(|(name, job)| {
            let actor = job.actor.first().copied();
            match job.state() {
                JobState::Ready => Some(send(name, actor.unwrap_or(1))).filter(|_| running),
                state => actor.filter(|_| state.is_live()).map(|actor| next_of(name, actor, job, eager, envelope)),
            }
        });
        let Some(event) = next.next() else { break };
        drop(next);
        let effects = story.ok(event.clone());
        model.check(story, &event, &effects);
    }
    assert!(!story.process.has_live_jobs());
    assert!(story.process.status().is_final(), "{:?}", story.process);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_invariants_hold_and_the_process_ends_with_its_jobs(
        kinds in proptest::collection::vec((any::<bool>(), proptest::bool::weighted(0.2)), 1..=NODES),
        wires in proptest::collection::vec((0_usize..NODES, 0_usize..2, 1..=NODES, 0_usize..2), 0..10),
        steps in proptest::collection::vec((0_u8..22, 1..=NODES, 1_u8..4, 0_usize..2, 101_u8..140, 0_u64..3), 0..120),
        eager in any::<bool>(),
    ) {
        let mut story = story(&kinds, &wires);
        let mut model = Model::default();
        for (kind, node, actor, name, envelope, pause) in steps {
            story.millis += pause * DETACHED_MS / 2;
            let event = event(kind, node, actor, name, envelope);
            match story.apply(event.clone()) {
                Ok(effects) => model.check(&story, &event, &effects),
                Err(Denied::MalformedId) => prop_assert!(false, "all ids are well-formed"),
                Err(_) => {}
            }
        }
        finish(&mut story, &mut model, eager);
    }

    /// The same events give the same bytes.
    #[test]
    fn two_replicas_have_the_same_row(
        kinds in proptest::collection::vec((any::<bool>(), proptest::bool::weighted(0.2)), 1..=NODES),
        wires in proptest::collection::vec((0_usize..NODES, 0_usize..2, 1..=NODES, 0_usize..2), 0..10),
        steps in proptest::collection::vec((0_u8..22, 1..=NODES, 1_u8..4, 0_usize..2, 101_u8..140), 0..60),
    ) {
        use prost::Message as _;
        let (mut one, mut two) = (story(&kinds, &wires), story(&kinds, &wires));
        for (kind, node, actor, name, envelope) in steps {
            let event = event(kind, node, actor, name, envelope);
            // The other replica read its row from a store.
            two.process = crate::xbus::process::row::ProcessRow::decode(&two.process.encode_to_vec()[..]).expect("a row");
            prop_assert_eq!(one.apply(event.clone()), two.apply(event));
            prop_assert_eq!(one.process.encode_to_vec(), two.process.encode_to_vec());
        }
    }
}
