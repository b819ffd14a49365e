//! Whole ways of envelopes: actors that work, that are lost and that are gone, and what operators do.

use super::*;
use crate::xbus::change::{Attention, AttentionStatus, LogChange};
use crate::xbus::limits::{DETACHED_MS, JOB_MESSAGES_MAX};
use crate::xbus::log::LogLine;
use crate::xbus::process::row::{JobState, ProcessRow, ProcessStatus};

const OPEN: u8 = 2;
const ENDED: u8 = 0x30;
const ATTENTION: u8 = 0x50;

impl Story {
    fn ended(&self, process: u8) -> ProcessRow {
        ProcessRow::decode(self.row(ENDED, &[&id(process)]).unwrap().as_slice()).unwrap()
    }

    fn waiting(&self, node: u32) -> usize {
        self.replica.machine.xbus().waiting(uid(PIPELINE), node, Id::default()).count()
    }

    /// Process 200 goes from the emitter to its end.
    fn complete(&mut self) {
        self.begins(100, 200);
        self.goes(200, send("w", WORKER));
        self.sends(101, &worker(WORKER, 200), whole("bill"));
        self.goes(200, send("c", CONSUMER));
        self.goes(200, end("c", CONSUMER, true));
    }
}

fn text(text: &str) -> LogLine {
    LogLine { millis: 1, level: 2, text: text.into() }
}

#[test]
fn an_envelope_goes_from_the_emitter_through_the_worker_to_the_consumer() {
    let mut story = Story::new();
    story.begins(100, 200);
    assert_eq!((story.waiting(1), story.waiting(2)), (1, 0));
    let delivered = story.goes(200, send("w", WORKER)).deliver.unwrap();
    assert_eq!((delivered.actor, delivered.inputs[0].envelope.clone()), (id(WORKER), id(100)));
    let xbus = story.replica.machine.xbus();
    assert_eq!((xbus.load(uid(WORKER)), story.waiting(1)), (1, 0));
    assert_eq!(xbus.served_by(LIFE).collect::<Vec<_>>(), [(uid(200), uid(WORKER))]);
    story.goes(200, Happens::Run(job("w", WORKER)));
    story.sends(101, &worker(WORKER, 200), whole("bill"));
    assert_eq!((story.replica.machine.xbus().load(uid(WORKER)), story.waiting(2)), (0, 1), "the worker has ended");
    let delivered = story.goes(200, send("c", CONSUMER)).deliver.unwrap();
    assert_eq!(delivered.inputs[0].envelope, id(101));
    let step = story.goes(200, end("c", CONSUMER, true));
    assert_eq!((step.was, step.status()), (Some(ProcessStatus::Running.into()), ProcessStatus::Done));
    assert_eq!(story.ended(200).status(), ProcessStatus::Done);
    assert_eq!((story.count(OPEN), story.count(ATTENTION)), (0, 0));
    assert_eq!(story.replica.machine.xbus().pinned(), None);
}

#[test]
fn a_process_in_error_needs_attention_once_and_stays_until_its_last_job_ends() {
    let mut story = Story::new();
    story.begins(100, 200);
    story.goes(200, send("w", WORKER));
    story.goes(200, Happens::Cancel(Unit {}));
    assert_eq!((story.count(OPEN), story.count(ENDED), story.count(ATTENTION)), (1, 0, 1));
    let closed = Attention { process: id(200), status: AttentionStatus::Closed.into(), ..Attention::default() };
    story.done(Change::Attention(Attention { comment: "x".repeat(2000), ..closed.clone() }));
    story.goes(200, end("w", WORKER, true));
    assert_eq!((story.count(OPEN), story.count(ENDED)), (0, 1));
    let row = Attention::decode(story.row(ATTENTION, &[&id(200)]).unwrap().as_slice()).unwrap();
    assert_eq!((row.status(), row.level, row.comment.len()), (AttentionStatus::Closed, 2, 1024));
    assert!(story.refused(Change::Attention(Attention { status: 9, ..closed.clone() })).contains("status"));
    assert!(story.refused(Change::Attention(Attention { process: id(9), ..closed })).starts_with("not found"));
}

#[test]
fn why_a_job_failed_is_in_the_reply_and_in_the_row() {
    let mut story = Story::new();
    story.begins(100, 200);
    story.goes(200, send("w", WORKER));
    let messages = (0..100).map(|number| text(&format!("m{number}"))).collect();
    let step = story.goes(200, Happens::End(JobEnd { job: job("w", WORKER), success: false, messages }));
    assert_eq!((step.status(), step.state.as_str()), (ProcessStatus::Error, "node w failed"));
    assert_eq!((step.errors.len(), step.errors[15].text.as_str()), (JOB_MESSAGES_MAX, "m99"), "the newest");
    assert_eq!(story.ended(200).nodes[1].jobs[0].messages, step.errors);
}

#[test]
fn the_jobs_of_a_lost_actor_wait_for_another_one() {
    let mut story = Story::new();
    story.begins(100, 200);
    story.begins(101, 201);
    for process in [200, 201] {
        story.goes(process, send("w", WORKER));
    }
    let concerned: Vec<Id> = story.replica.machine.xbus().processes_of(uid(WORKER)).collect();
    assert_eq!(concerned, [uid(200), uid(201)]);
    let done = story.done(all_hear(&[200, 201, 222], Happens::ActorLost(connection(WORKER))));
    assert_eq!((done.steps.len(), done.count, done.more), (2, 3, false), "one is gone and left out");
    assert_eq!((story.waiting(1), story.replica.machine.xbus().load(uid(WORKER))), (2, 0));
    assert_eq!(story.refused(happened(200, end("w", WORKER, true))), "the context matches no live job");
    story.goes(200, send("w", OTHER_WORKER));
}

#[test]
fn the_jobs_of_a_lost_node_are_given_back_and_the_node_gives_no_more() {
    let mut story = Story::new();
    story.begins(100, 200);
    story.goes(200, send("w", WORKER));
    story.millis += 10;
    drop(story.replica.apply_at(story.millis, &[node_down(LIFE.node, LIFE.incarnation)]));
    assert_eq!(story.replica.machine.xbus().serving().collect::<Vec<_>>(), [LIFE], "until the processes hear of it");
    story.done(all_hear(&[200], Happens::NodeLost(LIFE)));
    assert_eq!(story.replica.machine.xbus().serving().count(), 0);
    let gone = "unavailable: that life of the node has ended";
    assert_eq!(story.refused(happened(200, send("w", WORKER))), gone);
    assert_eq!(story.refused(happened(200, Happens::ActorBack(connection(WORKER)))), gone);
    assert_eq!(story.refused(all_hear(&[200], Happens::ActorBack(connection(WORKER)))), gone);
}

#[test]
fn a_detached_job_waits_a_while_for_its_actor() {
    let mut story = Story::new();
    story.begins(100, 200);
    story.goes(200, send("w", WORKER));
    story.goes(200, Happens::Detach(job("w", WORKER)));
    story.done(all_hear(&[200], Happens::ActorLost(connection(WORKER))));
    assert_eq!(story.replica.machine.xbus().away_since(), Some(story.millis));
    assert_eq!(story.done(Change::ProcessesExpire(Unit {})).steps.len(), 0);
    story.goes(200, Happens::ActorBack(connection(WORKER)));
    assert_eq!(story.replica.machine.xbus().away_since(), None);
    story.done(all_hear(&[200], Happens::ActorLost(connection(WORKER))));
    story.wait(DETACHED_MS);
    let done = story.done(Change::ProcessesExpire(Unit {}));
    assert_eq!((done.steps[0].ready[0].node.as_str(), done.more), ("w", false));
    assert_eq!(story.waiting(1), 1);
}

#[test]
fn an_actor_that_is_gone_leaves_its_jobs_to_others_and_is_found_by_them() {
    let mut story = Story::new();
    story.begins(100, 200);
    story.goes(200, send("w", WORKER));
    story.done(Change::AccountDelete(id(SHOP)));
    let xbus = story.replica.machine.xbus();
    assert!(xbus.concerned().eq([uid(WORKER)]) && xbus.actor(uid(WORKER)).is_none());
    story.done(all_hear(&[200], Happens::ActorGone(id(WORKER))));
    assert_eq!(story.waiting(1), 1);
    assert!(story.refused(happened(200, send("w", WORKER))).contains("cannot work for node w"));
    story.account();
    story.goes(200, send("w", WORKER));
}

#[test]
fn a_broadcast_waits_for_its_first_actor() {
    let mut story = Story::empty();
    story.account();
    let mut consumer = node("c", &["i"], &[]);
    consumer.role_broadcast = true;
    story.pipeline(
        51,
        "all",
        Document { nodes: vec![node("e", &[], &["o"]), consumer], edges: vec!["e.o->c.i".into()] },
    );
    story.done(status(CONSUMER, ActorStatus::Disabled));
    story.begins(100, 200);
    assert!(story.replica.machine.xbus().without_actor().eq([uid(200)]));
    story.done(status(CONSUMER, ActorStatus::Enabled));
    let done = story.done(all_hear(&[200], Happens::ActorsChanged(Unit {})));
    assert_eq!(done.steps[0].ready[0].actor, id(CONSUMER));
    let xbus = story.replica.machine.xbus();
    assert_eq!(xbus.waiting(uid(51), 1, uid(CONSUMER)).count(), 1, "for this actor alone");
    assert!(xbus.processes_of(uid(CONSUMER)).eq([uid(200)]));
}

#[test]
fn a_paused_process_gives_no_jobs_until_it_goes_on() {
    let mut story = Story::new();
    story.begins(100, 200);
    story.goes(200, Happens::Pause(Unit {}));
    assert_eq!((story.waiting(1), story.replica.machine.xbus().pinned()), (0, Some(1)), "the book is kept");
    assert_eq!(story.refused(happened(200, send("w", WORKER))), "the process is paused");
    assert_eq!(story.goes(200, Happens::Resume(Unit {})).ready.len(), 1);
    assert_eq!(story.waiting(1), 1);
    for event in [Happens::Pause(Unit {}), Happens::Resume(Unit {}), Happens::Cancel(Unit {})] {
        assert!(story.refused(happened(222, event)).starts_with("not found: a process"));
    }
}

#[test]
fn what_many_processes_hear_is_an_event_of_an_actor_or_node() {
    let mut story = Story::new();
    let malformed = "malformed command: processes that hear of something";
    assert_eq!(story.refused(all_hear(&[1], Happens::Cancel(Unit {}))), malformed);
    let many = vec![id(9); limits::ROLL_STEP_MAX + 1];
    let event = ProcessEvent { event: Some(Happens::ActorsChanged(Unit {})) };
    assert_eq!(story.refused(Change::Processes(ProcessesChange { ids: many, event: event.clone() })), malformed);
    assert_eq!(story.refused(Change::Processes(ProcessesChange { ids: vec![vec![1]], event })), malformed);
}

#[test]
fn big_processes_hear_in_several_changes() {
    let mut story = Story::empty();
    story.account();
    let mut all = node("c", &["i"], &[]);
    all.role_broadcast = true;
    story.pipeline(51, "all", Document { nodes: vec![node("e", &[], &["o"]), all], edges: vec!["e.o->c.i".into()] });
    let consumers: Vec<ActorRequest> = (0..250_u8)
        .map(|number| {
            let mut bytes = id(99);
            bytes[0] = number;
            ActorRequest { id: bytes, ..actor(99, &format!("c{number}"), ActorKind::Consumer, "c") }
        })
        .collect();
    story.done(Change::Register(registration(2, "many", 2, &consumers)));
    story.done(accept(2, 2));
    story.all_done(consumers.iter().map(|consumer| {
        let (id, config) = (consumer.id.clone(), Vec::new());
        Change::ActorStatus(ActorStatusSet { id, status: ActorStatus::Enabled.into(), config })
    }));
    let processes: Vec<u8> = (100..200).collect();
    let begun: Vec<_> =
        processes.iter().map(|number| story.fragment(*number, &emitter(&[*number]), whole("order"))).collect();
    story.all_done(begun);
    let done = story.done(all_hear(&processes, Happens::ActorsChanged(Unit {})));
    assert!(done.more && done.count > 10 && done.count < 100, "{}", done.count);
    let rest = &processes[usize::try_from(done.count).unwrap()..];
    assert!(story.done(all_hear(rest, Happens::ActorsChanged(Unit {}))).count > 10);
}

#[test]
fn messages_of_all_jobs_of_a_process_are_bounded() {
    let mut story = Story::empty();
    story.account();
    let many = (0..30).map(|number| format!("w{number}"));
    let workers = many.map(|name| NodeDocument { roles: vec!["w".into()], ..node(&name, &["i"], &["o"]) });
    let edges = (0..30).map(|number| format!("e.o->w{number}.i")).collect();
    let nodes = [node("e", &[], &["o"])].into_iter().chain(workers).collect();
    story.pipeline(51, "many", Document { nodes, edges });
    let messages = vec![text(&"x".repeat(1024)); 16];
    story.begins(100, 200);
    story.goes(200, send("w0", WORKER));
    story.goes(200, Happens::End(JobEnd { job: job("w0", WORKER), success: false, messages: messages.clone() }));
    assert_eq!(story.ended(200).nodes[1].jobs[0].state(), JobState::Error);
    story.begins(101, 201);
    for number in 0..30 {
        let name = format!("w{number}");
        story.goes(201, send(&name, WORKER));
        let end = JobEnd { job: job(&name, WORKER), success: true, messages: messages.clone() };
        story.goes(201, Happens::End(end));
    }
    let row = story.ended(201);
    assert_eq!((row.status(), row.encoded_len() < 40 << 10), (ProcessStatus::Done, true));
}

#[test]
fn what_an_actor_logs_is_kept_in_the_order_in_which_it_came() {
    let mut story = Story::new();
    story.complete();
    let log = |process: Vec<u8>, envelope: Vec<u8>| LogChange {
        actor: id(WORKER),
        process,
        envelope,
        node: "n".repeat(5000),
        messages: vec![text("m"); 50],
    };
    for _ in 0..3 {
        story.done(Change::Log(log(id(200), Vec::new())));
    }
    story.done(Change::Log(log(Vec::new(), id(100))));
    assert_eq!((story.count(0x40), story.count(0x41)), (4, 4));
    let row =
        story.replica.memory.rows.iter().find(|((_, key), _)| key.starts_with(&rows::key(u32::MAX - 1, &[&[0x40]])));
    let row = LogChange::decode(row.unwrap().1.as_slice()).unwrap();
    assert_eq!((row.messages.len(), row.node.len()), (JOB_MESSAGES_MAX, 1024));
    assert!(story.refused(Change::Log(log(Vec::new(), Vec::new()))).contains("about nothing"));
    assert!(story.refused(Change::Log(log(id(200), vec![1; 5000]))).contains("id of a log entry"));
    assert!(story.refused(Change::Log(LogChange { actor: vec![1], ..log(id(200), vec![]) })).contains("id of a log"));
}
