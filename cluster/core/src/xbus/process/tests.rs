//! Processes: one story after the other. `loss` has those about actors that are lost; `replay` has processes that go along again; `random` has random pipelines and random stories.

mod loss;
mod random;
mod replay;

use alloc::collections::BTreeMap;
use alloc::string::{String, ToString as _};
use alloc::vec;
use alloc::vec::Vec;

use super::apply::{CANCELED, NO_PIPELINE, Seed};
use super::event::{
    ActorConnection, Actors, Delivery, Denied, Effects, Event, JobEnd, JobName, JobOutput, JobSend, ReadyJob, Unit,
};
use super::row::{JobState, NodeState, ProcessRow, ProcessStatus};
use crate::node::Owner;
use crate::xbus::id::Id;
use crate::xbus::log::{LogLevel, LogLine};
use crate::xbus::pipeline::document::{Document, NodeDocument, NodeKind};
use crate::xbus::pipeline::graph::{ActorView, Graph, Node, Trigger};

/// Enabled actors with their roles; each has the name of its number.
#[derive(Default)]
struct Known(BTreeMap<u8, Vec<String>>);

impl Known {
    fn new(all: &[(u8, &str)]) -> Self {
        Self(all.iter().map(|(number, role)| (*number, vec![(*role).to_string()])).collect())
    }
}

impl Actors for Known {
    fn of(&self, node: &Node) -> Vec<Id> {
        self.0.keys().map(|number| id(*number)).filter(|actor| self.may_work(node, *actor)).collect()
    }

    fn may_work(&self, node: &Node, actor: Id) -> bool {
        let roles = self.0.get(&actor.as_bytes()[0]);
        roles.is_some_and(|roles| node.names(ActorView { id: actor, name: "", roles }))
    }
}

fn id(number: u8) -> Id {
    Id::new([number; 16])
}

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_string()).collect()
}

/// A node whose role is its name.
fn node(id: &str, inputs: &[&str], outputs: &[&str]) -> NodeDocument {
    let node = NodeDocument { id: id.into(), roles: texts(&[id]), ..NodeDocument::default() };
    node.complete(None, Some(texts(inputs)), Some(texts(outputs)))
}

fn graph(nodes: &[NodeDocument], edges: &[&str]) -> Graph {
    Graph::parse(&Document { nodes: nodes.to_vec(), edges: texts(edges) }).expect("a graph without faults")
}

/// Emitter `e`, worker `w` with the outputs `a` and `b`, consumers `c` and `d` behind them.
fn fork() -> Graph {
    let nodes =
        [node("e", &[], &["o"]), node("w", &["i"], &["a", "b"]), node("c", &["i"], &[]), node("d", &["i"], &[])];
    graph(&nodes, &["e.o->w.i", "w.a->c.i", "w.b->d.i"])
}

/// A process with its graph and actors; envelope 100 begins it.
struct Story {
    graph: Graph,
    actors: Known,
    process: ProcessRow,
    begun: Effects,
    millis: u64,
}

impl Story {
    fn new(graph: Graph, actors: &[(u8, &str)]) -> Self {
        Self::with_output(graph, actors, "o")
    }

    fn with_output(graph: Graph, actors: &[(u8, &str)], output: &str) -> Self {
        let actors = Known::new(actors);
        let roles = texts(&["e"]);
        let emitter = ActorView { id: id(9), name: "", roles: &roles };
        let trigger = Trigger { emitter, output, event_types: &[] };
        let seed = Seed { id: id(200), envelope: id(100), millis: 1 };
        let (process, begun) = ProcessRow::begin(seed, id(150), &graph, trigger, &actors).expect("a matching pipeline");
        Self { graph, actors, process, begun, millis: 1000 }
    }

    fn apply(&mut self, event: Event) -> Result<Effects, Denied> {
        let before = self.process.clone();
        let result = self.process.apply(&self.graph, &self.actors, &event, self.millis);
        if result.is_err() {
            assert_eq!(self.process, before, "a denied event changes nothing");
        }
        result
    }

    fn ok(&mut self, event: Event) -> Effects {
        self.apply(event.clone()).unwrap_or_else(|denied| panic!("{event:?}: {denied}"))
    }

    fn state(&self, node: &str) -> NodeState {
        self.process.nodes[self.graph.find(node).expect("a node")].state()
    }

    fn job(&self, node: &str) -> JobState {
        self.process.nodes[self.graph.find(node).expect("a node")].jobs[0].state()
    }

    fn status(&self) -> (ProcessStatus, &str) {
        (self.process.status(), &self.process.state)
    }
}

fn job(node: &str, actor: u8) -> JobName {
    JobName { node: node.into(), actor: id(actor).to_vec() }
}

fn output(node: &str, actor: u8, output: &str, envelope: u8) -> JobOutput {
    let envelope = if envelope == 0 { Vec::new() } else { id(envelope).to_vec() };
    JobOutput { job: job(node, actor), output: output.into(), envelope }
}

fn send(node: &str, actor: u8) -> Event {
    Event::Send(JobSend { job: job(node, actor), owner: Some(OWNER) })
}

fn connection(actor: u8) -> ActorConnection {
    ActorConnection { actor: id(actor).to_vec(), owner: Some(OWNER) }
}

fn lost(actor: u8) -> Event {
    Event::ActorLost(connection(actor))
}

fn back(actor: u8) -> Event {
    Event::ActorBack(connection(actor))
}

fn run(node: &str, actor: u8) -> Event {
    Event::Run(job(node, actor))
}

fn end(node: &str, actor: u8, success: bool) -> Event {
    Event::End(JobEnd { job: job(node, actor), success, messages: Vec::new() })
}

fn begin(node: &str, actor: u8, name: &str, envelope: u8) -> Event {
    Event::OutputBegin(output(node, actor, name, envelope))
}

fn complete(node: &str, actor: u8, name: &str, envelope: u8) -> Event {
    Event::OutputComplete(output(node, actor, name, envelope))
}

fn close(node: &str, actor: u8, name: &str) -> Event {
    Event::OutputClose(output(node, actor, name, 0))
}

fn forward(node: &str, actor: u8, name: &str, envelope: u8) -> Event {
    Event::Forward(output(node, actor, name, envelope))
}

fn ready(node: &str) -> ReadyJob {
    ReadyJob { node: node.into(), actor: None }
}

const FORK: [(u8, &str); 3] = [(1, "w"), (2, "c"), (3, "d")];
const UNIT: Unit = Unit {};
/// The node of the cluster to which all actors are connected.
const OWNER: Owner = Owner { node: 1, incarnation: 4 };

#[test]
fn an_envelope_goes_through_worker_and_consumers() {
    let mut story = Story::new(fork(), &FORK);
    assert_eq!(story.begun.ready, [ready("w")]);
    assert_eq!(story.begun.status, Some((ProcessStatus::Initial, ProcessStatus::Running)));
    assert_eq!(story.state("e"), NodeState::Success);
    let delivery = story.ok(send("w", 1)).deliver.unwrap();
    assert_eq!(delivery, Delivery { node: "w".into(), actor: id(1), inputs: vec![("i".into(), Some(id(100)))] });
    assert_eq!(story.job("w"), JobState::Pending);
    story.ok(run("w", 1));
    assert_eq!(story.job("w"), JobState::Running);
    story.ok(begin("w", 1, "a", 101));
    assert_eq!(story.ok(complete("w", 1, "a", 101)).ready, [ready("c")]);
    assert_eq!(story.job("w"), JobState::Running);
    // The last output ends the worker without a word, and its stream may say so once more.
    assert_eq!(story.ok(close("w", 1, "b")).ready, []);
    assert_eq!((story.state("w"), story.state("d")), (NodeState::Success, NodeState::Skipped));
    story.ok(end("w", 1, true));
    assert_eq!(story.ok(send("c", 2)).deliver.unwrap().inputs, [("i".to_string(), Some(id(101)))]);
    let effects = story.ok(end("c", 2, true));
    assert_eq!(effects.status, Some((ProcessStatus::Running, ProcessStatus::Done)));
    assert_eq!(story.status(), (ProcessStatus::Done, ""));
}

#[test]
fn success_closes_the_outputs_that_were_not_used() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    story.ok(end("w", 1, true));
    assert_eq!((story.state("c"), story.state("d")), (NodeState::Skipped, NodeState::Skipped));
    assert_eq!(story.status(), (ProcessStatus::Done, ""));
}

#[test]
fn success_waits_for_an_envelope_that_is_still_coming() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    story.ok(begin("w", 1, "a", 101));
    story.ok(end("w", 1, true));
    assert!(story.job("w").is_live());
    assert_eq!(story.state("d"), NodeState::Skipped);
    assert_eq!(story.ok(complete("w", 1, "a", 101)).ready, [ready("c")]);
    assert_eq!(story.job("w"), JobState::Success);
    // If the envelope never becomes complete, the job has failed after all.
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    story.ok(begin("w", 1, "a", 101));
    story.ok(end("w", 1, true));
    story.ok(Event::OutputFail(output("w", 1, "a", 101)));
    assert_eq!(story.status(), (ProcessStatus::Error, "node w failed"));
}

#[test]
fn an_envelope_in_error_leaves_its_output_free_for_another_one() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    story.ok(begin("w", 1, "a", 101));
    assert_eq!(story.apply(begin("w", 1, "a", 102)), Err(Denied::OutputBusy("w".into(), "a".into())));
    assert_eq!(story.apply(close("w", 1, "a")), Err(Denied::OutputBusy("w".into(), "a".into())));
    story.ok(Event::OutputFail(output("w", 1, "a", 101)));
    story.ok(begin("w", 1, "a", 102));
    story.ok(complete("w", 1, "a", 102));
}

#[test]
fn an_error_fails_the_process_and_lets_live_jobs_finish() {
    let nodes = [
        node("e", &[], &["o"]),
        node("c", &["i"], &[]),
        node("d", &["i"], &[]),
        node("w", &["i"], &["o"]),
        node("l", &["i"], &[]),
    ];
    let graph = graph(&nodes, &["e.o->c.i", "e.o->d.i", "e.o->w.i", "w.o->l.i"]);
    let mut story = Story::new(graph, &[(2, "c"), (3, "d"), (1, "w"), (4, "l")]);
    story.ok(send("c", 2));
    story.ok(send("w", 1));
    let messages = vec![LogLine { millis: 5, level: LogLevel::Error.into(), text: "disk full".into() }];
    let failed = Event::End(JobEnd { job: job("c", 2), success: false, messages: messages.clone() });
    assert_eq!(story.ok(failed).status, Some((ProcessStatus::Running, ProcessStatus::Error)));
    assert_eq!(story.process.nodes[1].jobs[0].messages, messages);
    assert_eq!(story.state("c"), NodeState::Error);
    assert_eq!(story.apply(send("d", 3)), Err(Denied::NotRunning("at its end")));
    assert!(story.process.has_live_jobs());
    // The live job ends, and nothing begins behind it.
    assert_eq!(story.ok(complete("w", 1, "o", 101)), Effects::default());
    assert_eq!((story.job("w"), story.state("l")), (JobState::Success, NodeState::Waiting));
    assert!(!story.process.has_live_jobs());
    assert_eq!(story.status(), (ProcessStatus::Error, "node c failed"));
}

#[test]
fn a_node_waits_for_all_its_inputs_and_gets_closed_ones_as_closed() {
    let nodes = [node("e", &[], &["o"]), node("w", &["i"], &["a", "b"]), node("c", &["x", "y"], &[])];
    let edges = ["e.o->w.i", "w.a->c.x", "w.b->c.y"];
    let mut story = Story::new(graph(&nodes, &edges), &[(1, "w"), (2, "c")]);
    story.ok(send("w", 1));
    assert_eq!(story.ok(complete("w", 1, "b", 101)).ready, []);
    assert_eq!(story.state("c"), NodeState::Waiting);
    assert_eq!(story.ok(close("w", 1, "a")).ready, [ready("c")]);
    let inputs = story.ok(send("c", 2)).deliver.unwrap().inputs;
    assert_eq!(inputs, [("x".to_string(), None), ("y".to_string(), Some(id(101)))]);
}

#[test]
fn an_input_of_several_edges_takes_one_envelope() {
    let nodes = [node("e", &[], &["o"]), node("w", &["i"], &["a", "b"]), node("c", &["i"], &[])];
    let edges = ["e.o->w.i", "w.a->c.i", "w.b->c.i"];
    let actors = [(1, "w"), (2, "c")];
    // One envelope and one closing.
    let mut story = Story::new(graph(&nodes, &edges), &actors);
    story.ok(send("w", 1));
    story.ok(close("w", 1, "a"));
    assert_eq!(story.state("c"), NodeState::Waiting);
    assert_eq!(story.ok(complete("w", 1, "b", 101)).ready, [ready("c")]);
    // Two envelopes.
    let mut story = Story::new(graph(&nodes, &edges), &actors);
    story.ok(send("w", 1));
    assert_eq!(story.ok(complete("w", 1, "a", 101)).ready, [ready("c")]);
    story.ok(complete("w", 1, "b", 102));
    assert_eq!(story.status(), (ProcessStatus::Error, "input c.i got a second envelope"));
    // Two closings.
    let mut story = Story::new(graph(&nodes, &edges), &actors);
    story.ok(send("w", 1));
    story.ok(end("w", 1, true));
    assert_eq!((story.state("c"), story.process.status()), (NodeState::Skipped, ProcessStatus::Done));
}

#[test]
fn an_emitter_sends_on_one_output_and_closes_the_others() {
    let nodes = [node("e", &[], &["o", "p"]), node("c", &["i"], &[]), node("d", &["i"], &[])];
    let graph = graph(&nodes, &["e.o->c.i", "e.p->d.i"]);
    let story = Story::with_output(graph, &FORK, "p");
    assert_eq!(story.begun.ready, [ready("d")]);
    assert_eq!(story.state("c"), NodeState::Skipped);
}

#[test]
fn of_several_emitters_those_that_match_send() {
    let other = NodeDocument { roles: texts(&["other"]), ..node("f", &[], &["o"]) };
    let nodes = [node("e", &[], &["o"]), other, node("c", &["i", "j"], &[])];
    let mut story = Story::new(graph(&nodes, &["e.o->c.i", "f.o->c.j"]), &FORK);
    assert_eq!((story.state("e"), story.state("f")), (NodeState::Success, NodeState::Skipped));
    let inputs = story.ok(send("c", 2)).deliver.unwrap().inputs;
    assert_eq!(inputs, [("i".to_string(), Some(id(100))), ("j".to_string(), None)]);
}

#[test]
fn an_envelope_that_no_pipeline_takes_is_a_process_in_error() {
    let seed = Seed { id: id(200), envelope: id(100), millis: 7 };
    let process = ProcessRow::unmatched(seed, id(9));
    assert_eq!((process.status(), process.state.as_str(), process.created), (ProcessStatus::Error, NO_PIPELINE, 7));
    let emitter = ActorView { id: id(9), name: "", roles: &[] };
    let trigger = Trigger { emitter, output: "o", event_types: &[] };
    assert_eq!(ProcessRow::begin(seed, id(150), &fork(), trigger, &Known::default()), None);
}

fn broadcast(nodes: &mut [NodeDocument], which: usize) {
    nodes[which].role_broadcast = true;
}

#[test]
fn a_broadcast_has_a_job_for_each_enabled_actor() {
    let mut nodes = [node("e", &[], &["o"]), node("c", &["i"], &[])];
    broadcast(&mut nodes, 1);
    let mut story = Story::new(graph(&nodes, &["e.o->c.i"]), &[(2, "c"), (3, "c"), (4, "x")]);
    let bound = |actor| ReadyJob { node: "c".into(), actor: Some(id(actor)) };
    assert_eq!(story.begun.ready, [bound(2), bound(3)]);
    assert_eq!(story.apply(send("c", 4)), Err(Denied::NotReady));
    story.ok(send("c", 2));
    story.ok(end("c", 2, true));
    assert_eq!(story.state("c"), NodeState::Ready);
    // A lost one gets its own job again, and a disabled one leaves no gap.
    story.ok(send("c", 3));
    assert_eq!(story.ok(lost(3)).ready, [bound(3)]);
    story.ok(Event::ActorGone(id(3).to_vec()));
    assert_eq!((story.state("c"), story.process.status()), (NodeState::Success, ProcessStatus::Done));
}

#[test]
fn a_broadcast_without_actors_waits_for_the_first_one() {
    let mut nodes = [node("e", &[], &["o"]), node("w", &["i"], &["o"]), node("c", &["i"], &[])];
    broadcast(&mut nodes, 1);
    let mut story = Story::new(graph(&nodes, &["e.o->w.i", "w.o->c.i"]), &[(2, "c")]);
    assert_eq!((story.begun.ready.len(), story.process.status()), (0, ProcessStatus::Running));
    story.actors = Known::new(&[(2, "c"), (5, "w"), (6, "w")]);
    assert_eq!(story.ok(Event::ActorsChanged(UNIT)).ready.len(), 2);
    assert_eq!(story.ok(Event::ActorsChanged(UNIT)).ready.len(), 0);
    // The output is closed when all have closed it, and not before.
    story.ok(send("w", 5));
    story.ok(close("w", 5, "o"));
    assert_eq!(story.state("c"), NodeState::Waiting);
    story.ok(send("w", 6));
    assert_eq!(story.ok(complete("w", 6, "o", 101)).ready, [ready("c")]);
}

#[test]
fn a_paused_process_starts_nothing_and_goes_on_later() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    assert_eq!(story.ok(Event::Pause(UNIT)).status, Some((ProcessStatus::Running, ProcessStatus::Paused)));
    assert_eq!(story.apply(Event::Pause(UNIT)), Err(Denied::NotRunning("paused")));
    // The live job goes on.
    assert_eq!(story.ok(complete("w", 1, "a", 101)).ready, []);
    assert_eq!(story.apply(send("c", 2)), Err(Denied::NotRunning("paused")));
    assert_eq!(story.ok(complete("w", 1, "b", 102)).ready, []);
    assert_eq!(story.ok(Event::Resume(UNIT)).ready, [ready("c"), ready("d")]);
    assert_eq!(story.apply(Event::Resume(UNIT)), Err(Denied::NotRunning("not paused")));
    story.ok(send("c", 2));
    story.ok(end("c", 2, true));
    story.ok(Event::Pause(UNIT));
    assert_eq!(story.ok(Event::Cancel(UNIT)).status, Some((ProcessStatus::Paused, ProcessStatus::Error)));
    assert_eq!(story.status(), (ProcessStatus::Error, CANCELED));
    assert_eq!(story.apply(Event::Resume(UNIT)), Err(Denied::NotRunning("at its end")));
    assert_eq!(story.apply(Event::Cancel(UNIT)), Err(Denied::NotRunning("at its end")));
}

#[test]
fn a_paused_process_whose_last_job_ends_has_ended() {
    let nodes = [node("e", &[], &["o"]), node("c", &["i"], &[])];
    let mut story = Story::new(graph(&nodes, &["e.o->c.i"]), &FORK);
    story.ok(send("c", 2));
    story.ok(Event::Pause(UNIT));
    assert_eq!(story.ok(end("c", 2, true)).status, Some((ProcessStatus::Paused, ProcessStatus::Done)));
}

#[test]
fn an_actor_forwards_what_it_got_and_nothing_else() {
    let mut story = Story::new(fork(), &FORK);
    story.ok(send("w", 1));
    assert_eq!(story.apply(forward("w", 1, "a", 101)), Err(Denied::NotReceived(id(101))));
    assert_eq!(story.ok(forward("w", 1, "a", 100)).ready, [ready("c")]);
    story.ok(forward("w", 1, "a", 100));
    assert_eq!(story.ok(forward("w", 1, "b", 100)).ready, [ready("d")]);
    assert_eq!(story.ok(send("d", 3)).deliver.unwrap().inputs[0].1, Some(id(100)));
}

#[test]
fn whoever_has_no_job_is_told_so() {
    let mut story = Story::new(fork(), &FORK);
    let none = Denied::NoLiveJob;
    for event in [run("w", 1), end("w", 1, true), close("w", 1, "a"), begin("w", 1, "a", 101), begin("x", 1, "a", 101)]
    {
        assert_eq!(story.apply(event), Err(none.clone()));
    }
    assert_eq!(story.apply(send("w", 2)), Err(Denied::WrongActor("w".into())));
    assert_eq!(story.apply(send("c", 2)), Err(Denied::NotReady));
    story.ok(send("w", 1));
    assert_eq!(story.apply(begin("w", 1, "x", 101)), Err(Denied::UnknownOutput("w".into(), "x".into())));
    assert_eq!(Denied::UnknownOutput("w".into(), "x".into()).to_string(), "unknown output w.x");
    let short = JobOutput { envelope: vec![1, 2], ..output("w", 1, "a", 1) };
    assert_eq!(story.apply(Event::OutputBegin(short)), Err(Denied::MalformedId));
    story.ok(close("w", 1, "a"));
    let closed = Denied::OutputClosed("w".into(), "a".into());
    assert_eq!(story.apply(begin("w", 1, "a", 101)), Err(closed.clone()));
    assert_eq!(story.apply(close("w", 1, "a")), Err(closed));
    assert_eq!(story.ok(end("w", 1, false)).status.map(|(_, now)| now), Some(ProcessStatus::Error));
    assert_eq!(story.apply(end("w", 1, true)), Err(none));
}

#[test]
fn a_pipeline_whose_emitter_leads_nowhere_is_done_at_once() {
    let story = Story::new(graph(&[node("e", &[], &["o"])], &[]), &[]);
    assert_eq!(story.begun.status, Some((ProcessStatus::Initial, ProcessStatus::Done)));
    assert_eq!(node("e", &[], &["o"]).kind(), NodeKind::Emitter);
}
