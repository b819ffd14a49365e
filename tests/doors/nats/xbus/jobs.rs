//! Jobs of workers and consumers over the raw protocol: outputs, ends, losses.

use std::time::Duration;

use rollbook::doors::nats::xbus::proto::envelope::{Envelope, OutputRequest};
use rollbook::doors::nats::xbus::proto::job::{ActorProcessingState, JobStatus};
use rollbook::doors::nats::xbus::proto::nrpc::{self, ErrorType, KEEP_ALIVE};
use serde_json::{Value, json};

use super::actor::{Job, Peer, envelope, event, order, output, state, text};
use super::setup::{Setup, processes, rest, set_up};
use crate::doors::nats::client::options;
use crate::harness::node::Node;
use crate::harness::{SOON, ms, wait_for};

/// A worker with two outputs before two consumers.
const SPLIT: &str = "nodes:
- {id: in, type: emitter, roles: [shop]}
- {id: split, type: worker, roles: [tax], outputs: [good, bad]}
- {id: archive, type: consumer, roles: [archive]}
- {id: alarm, type: consumer, roles: [alarm]}
edges:
- in.default->split.default
- split.good->archive.default
- split.bad->alarm.default
";
/// Short enough for a test, long enough for a job that would come.
const NOTHING: Duration = Duration::from_millis(300);

fn start() -> (Node, Setup) {
    let node = Node::start(&options());
    let actors = [
        ("shop", "emitter", "shop"),
        ("tax", "worker", "tax"),
        ("tax2", "worker", "tax"),
        ("archive", "consumer", "archive"),
        ("alarm", "consumer", "alarm"),
    ];
    let setup = set_up(&node, &actors, &[("orders", SPLIT)]);
    (node, setup)
}

fn process(node: &Node, job: &Job) -> Value {
    rest(node, "GET", &format!("processes/{}", job.process()), "")
}

/// Waits until a process has this status, and the process.
fn until(node: &Node, job: &Job, status: &str) -> Value {
    wait_for(status, SOON, || Some(process(node, job)).filter(|process| process["process"]["status"] == status))
}

fn close(job: &Job, output: &str) -> OutputRequest {
    OutputRequest { context: Some(job.context.clone()), output: output.to_owned(), close: true, envelope: None }
}

#[test]
fn a_worker_sends_closes_and_forwards_and_the_process_is_done_after_its_consumers() {
    let (node, setup) = start();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    let (mut archive, mut alarm) = (Peer::ready(&node, &setup, "archive"), Peer::ready(&node, &setup, "alarm"));
    shop.follow_states();
    let first = order("one");
    shop.emit_whole(&first);
    let job = tax.job();
    assert_eq!((&*job.context.node_id, job.items()), ("split", vec!["one".to_owned()]));
    assert_eq!(job.envelope().id, first.id);
    assert!(tax.output_refused(&output(Some(&job), "odd", order("x"))).contains("unknown output split.odd"));
    tax.output(&close(&job, "bad")).expect("an answer");
    assert!(tax.output_refused(&close(&job, "bad")).contains("output split.bad is already closed"));
    assert!(tax.output_refused(&output(Some(&job), "bad", order("x"))).contains("output split.bad is already closed"));
    let taxed = envelope(vec![event("order.taxed", &["taxed one"])]);
    tax.output(&output(Some(&job), "good", taxed.clone())).expect("an answer");
    // All outputs are closed or sent: that is the end, and a stream that says so once more does no harm.
    tax.succeed(&job);
    let consumed = archive.job();
    assert_eq!((consumed.items(), &consumed.envelope().id), (vec!["taxed one".to_owned()], &taxed.id));
    assert_eq!(process(&node, &job)["process"]["status"], "running", "before its consumer said so");
    archive.succeed(&consumed);
    assert_eq!(shop.outcome(&first).status, 4);
    until(&node, &job, "done");
    assert!(tax.output_refused(&output(Some(&job), "good", order("late"))).contains("the context matches no live job"));
    assert!(archive.processing_end(&state(&consumed, JobStatus::Success, &[])).is_err(), "the job has ended");

    // The envelope that came in goes out.
    let second = order("two");
    shop.emit_whole(&second);
    let job = tax.job();
    let forward = |id: &[u8]| Envelope { id: id.to_vec(), last: true, ..Envelope::default() };
    assert!(tax.output_refused(&output(Some(&job), "bad", forward(&first.id))).contains("did not receive envelope"));
    assert!(tax.output_refused(&output(None, "bad", forward(&second.id))).contains("context"));
    tax.output(&output(Some(&job), "bad", forward(&second.id))).expect("an answer");
    // The stream ends well: what was not used is closed.
    tax.succeed(&job);
    let alarmed = alarm.job();
    assert_eq!((alarmed.items(), &alarmed.envelope().id), (vec!["two".to_owned()], &second.id));
    alarm.succeed(&alarmed);
    assert_eq!(shop.outcome(&second).status, 4);
    assert!(archive.job_within(NOTHING).is_none());
}

#[test]
fn what_a_consumer_says_when_it_fails_is_told_to_the_emitter_and_kept() {
    let (node, setup) = start();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    let mut archive = Peer::ready(&node, &setup, "archive");
    shop.follow_states();
    let sent = order("one");
    shop.emit_whole(&sent);
    let job = tax.job();
    tax.pass(&job, "good", order("taxed"));
    let consumed = archive.job();
    archive.end(&consumed, &state(&consumed, JobStatus::Error, &["disk full"]));
    let outcome = shop.outcome(&sent);
    assert_eq!((outcome.status, &*outcome.process_list[0].errors[0].text), (5, "disk full"), "{outcome:?}");
    let shown = until(&node, &job, "error");
    assert_eq!(shown["process"]["state"], "node archive failed", "{shown}");
    assert!(shown.to_string().contains("disk full"), "{shown}");

    // An error of nrpc fails the job too.
    let sent = order("two");
    shop.emit_whole(&sent);
    let job = tax.job();
    tax.say(&job, &nrpc::error(ErrorType::Server, "out of order"));
    let outcome = shop.outcome(&sent);
    assert_eq!((outcome.status, &*outcome.process_list[0].errors[0].text), (5, "out of order"), "{outcome:?}");
}

#[test]
fn a_detached_job_ends_when_its_actor_says_so() {
    let (node, setup) = start();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    let mut alarm = Peer::ready(&node, &setup, "alarm");
    shop.follow_states();
    let sent = order("one");
    shop.emit_whole(&sent);
    let job = tax.job();
    tax.end(&job, &state(&job, JobStatus::Running, &[]));
    wait_for("the detached job", SOON, || process(&node, &job).to_string().contains("detached").then_some(()));
    let running = ActorProcessingState { context: Some(job.context.clone()), status: 1, ..Default::default() };
    assert_eq!(tax.processing_end(&running).expect_err("no end").error, i32::from(ErrorType::Client));
    // The actor may send by another connection, as it may say there how the job ends.
    drop(tax);
    let mut tax = Peer::ready(&node, &setup, "tax");
    assert!(tax.job_within(NOTHING).is_none(), "the job is not given back while its actor is connected again");
    tax.output(&output(Some(&job), "bad", order("late"))).expect("an answer");
    tax.processing_end(&state(&job, JobStatus::Success, &[])).expect("an answer");
    let alarmed = alarm.job();
    alarm.end(&alarmed, &state(&alarmed, JobStatus::Running, &[]));
    alarm.processing_end(&state(&alarmed, JobStatus::Error, &["too late"])).expect("an answer");
    let outcome = shop.outcome(&sent);
    assert_eq!((outcome.status, &*outcome.process_list[0].errors[0].text), (5, "too late"), "{outcome:?}");
}

#[test]
fn an_actor_that_is_too_busy_gets_its_job_again_later() {
    let (node, setup) = start();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    shop.emit_whole(&order("one"));
    let job = tax.job();
    tax.say(&job, &nrpc::error(ErrorType::ServerTooBusy, "later"));
    assert!(tax.job_within(ms(700)).is_none(), "not at once");
    let again = tax.job_within(ms(3000)).expect("the same job, after a second");
    assert_eq!(again.context, job.context);
    assert_ne!(again.inbox, job.inbox);
    tax.succeed(&again);
    until(&node, &job, "done");
}

#[test]
fn a_job_whose_actor_disconnects_goes_to_another_one_with_the_same_context() {
    let (node, setup) = start();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    let mut archive = Peer::ready(&node, &setup, "archive");
    shop.emit_whole(&order("one"));
    let job = tax.job();
    // What the first one sent counts, and what the second one sends instead is acknowledged and thrown away.
    let sent = order("by the first");
    tax.output(&output(Some(&job), "good", sent.clone())).expect("an answer");
    let mut second = Peer::ready(&node, &setup, "tax2");
    assert!(second.job_within(NOTHING).is_none());
    drop(tax);
    let again = second.job();
    assert_eq!((&again.context, again.items()), (&job.context, job.items()));
    second.pass(&again, "good", order("by the second"));
    let consumed = archive.job();
    assert_eq!(consumed.items(), ["by the first"]);
    archive.succeed(&consumed);
    until(&node, &job, "done");
    assert!(archive.job_within(NOTHING).is_none(), "one envelope went out");
    // The same actor gets it too, when it is back.
    shop.emit_whole(&order("two"));
    let job = second.job();
    drop(second);
    let mut back = Peer::ready(&node, &setup, "tax2");
    let again = back.job();
    assert_eq!(again.context, job.context);
    back.succeed(&again);
    until(&node, &job, "done");
}

#[test]
fn an_envelope_of_which_a_lost_actor_sent_a_part_does_not_hold_its_output() {
    let (node, setup) = start();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    let mut archive = Peer::ready(&node, &setup, "archive");
    shop.emit_whole(&order("one"));
    let job = tax.job();
    let mut part = order("part");
    part.event_ids.clear();
    (part.events[0].item_count, part.events[0].checksum) = (0, 0);
    let ack = tax.output(&output(Some(&job), "good", part)).expect("an answer");
    assert_eq!(ack.status, 1, "receiving: {ack:?}");
    assert!(tax.output_refused(&output(Some(&job), "good", order("x"))).contains("taken by another envelope"));
    drop(tax);
    let mut second = Peer::ready(&node, &setup, "tax2");
    let again = second.job();
    second.pass(&again, "good", order("whole"));
    let consumed = archive.job();
    assert_eq!(consumed.items(), ["whole"]);
    archive.succeed(&consumed);
    until(&node, &job, "done");
}

#[test]
fn an_actor_that_leaves_ends_its_jobs_and_gets_no_more() {
    let (node, setup) = start();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    shop.emit_whole(&order("one"));
    let job = tax.job();
    tax.leave();
    shop.emit_whole(&order("two"));
    assert!(tax.job_within(NOTHING).is_none());
    tax.succeed(&job);
    until(&node, &job, "done");
    let mut other = Peer::ready(&node, &setup, "tax2");
    let next = other.job();
    assert_eq!(next.items(), ["two"]);
    let leaving = ActorProcessingState { actor_leaving: true, ..state(&next, JobStatus::Success, &[]) };
    other.end(&next, &leaving);
    until(&node, &next, "done");
    shop.emit_whole(&order("three"));
    assert!(other.job_within(NOTHING).is_none(), "it said so with its last state");
}

#[test]
fn a_process_that_is_paused_starts_nothing_and_one_that_is_canceled_is_in_error() {
    let (node, setup) = start();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    let mut archive = Peer::ready(&node, &setup, "archive");
    shop.emit_whole(&order("one"));
    let job = tax.job();
    let control = |verb: &str| rest(&node, "POST", &format!("processes/{}/{verb}", job.process()), "");
    assert_eq!(control("pause")["process"]["status"], "paused");
    // Jobs that go on may end.
    tax.pass(&job, "good", order("taxed"));
    assert!(archive.job_within(NOTHING).is_none());
    assert_eq!(control("resume")["process"]["status"], "running");
    let consumed = archive.job();
    archive.succeed(&consumed);
    until(&node, &job, "done");

    let sent = order("two");
    shop.emit_whole(&sent);
    let job = tax.job();
    let canceled = rest(&node, "POST", &format!("processes/{}/cancel", job.process()), "");
    assert_eq!((&canceled["process"]["status"], &canceled["process"]["state"]), (&json!("error"), &json!("canceled")));
    tax.succeed(&job);
    assert!(archive.job_within(NOTHING).is_none());
    assert_eq!(process(&node, &job)["process"]["state"], "canceled");
}

#[test]
fn an_actor_that_says_it_works_is_left_in_peace() {
    let (node, setup) = start();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    shop.emit_whole(&order("one"));
    let job = tax.job();
    for _ in 0..5 {
        tax.say(&job, &KEEP_ALIVE);
        std::thread::sleep(ms(200));
    }
    tax.subscribe(&format!("{}.heartbeat", job.inbox), "beats");
    let beat = tax.next("beats");
    assert_eq!((&*beat.reply, &beat.payload[..]), ("", &[][..]), "a beat that is not the last one");
    assert!(tax.job_within(NOTHING).is_none());
    tax.succeed(&job);
    until(&node, &job, "done");
}

#[test]
fn actors_are_on_the_roll_while_they_take_jobs() {
    let (node, setup) = start();
    let service = || {
        let listed = node.web("GET", "/api/services", "").json();
        let found = listed["items"].as_array().into_iter().flatten().find(|one| one["id"] == "tax").cloned();
        found.unwrap_or(Value::Null)
    };
    let online = |want: bool| {
        wait_for("the roll", SOON, || {
            let up = service()["instances"].as_u64().is_some_and(|count| count > 0);
            (up == want).then_some(())
        });
    };
    let mut tax = Peer::ready(&node, &setup, "tax");
    online(true);
    assert_eq!(service()["type"], "actor", "{}", service());
    tax.leave();
    online(false);
    drop(tax);
    let tax = Peer::ready(&node, &setup, "tax");
    online(true);
    drop(tax);
    online(false);
}

#[test]
fn jobs_go_on_after_the_node_is_killed() {
    let (mut node, setup) = start();
    let mut shop = Peer::connect(&node, &setup, "shop");
    let mut tax = Peer::ready(&node, &setup, "tax");
    let sent = [order("one"), order("two")];
    sent.iter().for_each(|envelope| shop.emit_whole(envelope));
    let job = tax.job();
    tax.job();
    node.restart();
    let (mut shop, mut tax) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "tax"));
    // The same fragment once more begins nothing.
    shop.emit_whole(&sent[0]);
    let mut again = [tax.job(), tax.job()];
    again.sort_by_key(Job::items);
    assert_eq!(again[0].items(), ["one"]);
    assert!(again.iter().any(|again| again.context == job.context), "{} comes again", text(&job.context.process_id));
    again.iter().for_each(|job| tax.succeed(job));
    wait_for("two processes that are done", SOON, || (processes(&node, "&status=done").len() == 2).then_some(()));
    assert_eq!(processes(&node, "").len(), 2);
}
