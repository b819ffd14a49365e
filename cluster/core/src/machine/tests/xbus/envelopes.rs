//! Fragments of envelopes, of emitters and of workers.

use super::*;
use crate::xbus::change::Expire;
use crate::xbus::envelope::row::EnvelopeStatus;
use crate::xbus::limits::{NAME_BYTES_MAX, STALL_MS};
use crate::xbus::process::event::JobOutput;
use crate::xbus::process::row::{OutputState, ProcessStatus};

const ENVELOPE: u8 = 0x20;
const EVENT: u8 = 0x21;
const FRAGMENT: u8 = 0x22;

impl Story {
    fn pinned(&self) -> Option<u64> {
        self.replica.machine.xbus().pinned()
    }

    fn open_status(&self, envelope: u8) -> Option<EnvelopeStatus> {
        self.replica.machine.xbus().open_envelope(uid(envelope)).map(|row| row.status())
    }

    /// The first output of the job of the worker of process 200.
    fn output(&self) -> (OutputState, Vec<u8>) {
        let process = self.replica.machine.xbus().open_process(uid(200)).unwrap();
        let output = &process.nodes[1].jobs[0].outputs[0];
        (output.state(), output.envelope.clone())
    }
}

/// A story in which the worker has the job of process 200.
fn working() -> Story {
    let mut story = Story::new();
    story.begins(100, 200);
    story.goes(200, send("w", WORKER));
    story
}

#[test]
fn a_complete_envelope_of_an_emitter_begins_a_process_in_the_same_entry() {
    let mut story = Story::new();
    let half = fragment(vec![part(1, "order", 1, &[b"a"], 2)], false);
    let done = story.sends(100, &emitter(&[200]), half.clone());
    assert_eq!((reception(&done), done.steps.len()), ((Reception::Receiving, ""), 0));
    assert_eq!(story.open_status(100), Some(EnvelopeStatus::Receiving));
    let done = story.sends(100, &emitter(&[200]), half);
    assert!(!done.fragment.unwrap().new_data && done.envelopes.is_empty(), "the same fragment again");
    let done = story.sends(100, &emitter(&[200]), fragment(vec![part(1, "order", 2, &[b"b"], 2)], true));
    assert_eq!(reception(&done).0, Reception::Accepted);
    assert_eq!(done.envelopes[0].status(), EnvelopeStatus::Complete);
    let step = &done.steps[0];
    assert_eq!((&step.id, &step.envelope, step.status()), (&id(200), &id(100), ProcessStatus::Running));
    assert_eq!(step.ready[0].node, "w");
    assert_eq!((story.open_status(100), story.count(FRAGMENT)), (None, 2), "two fragments are in the book");
}

#[test]
fn a_fragment_of_a_complete_envelope_that_comes_again_is_accepted_and_changes_nothing() {
    let mut story = Story::new();
    story.begins(100, 200);
    let rows = story.replica.memory.rows.len();
    let done = story.begins(100, 201);
    assert_eq!((reception(&done).0, done.steps.len()), (Reception::Accepted, 0));
    assert_eq!(story.replica.memory.rows.len(), rows + 3, "beside the event in the book with its two rows of an id");
    let done = story.sends(100, &emitter(&[201]), fragment(vec![part(1, "order", 1, &[b"other"], 1)], true));
    assert_eq!(reception(&done), (Reception::Error, &*format!("event {}: id reused with other content", uid(1))));
    assert_eq!(story.replica.machine.xbus().open_processes_count(), 1);
}

#[test]
fn an_id_that_another_sender_has_used_is_at_fault_and_the_envelope_is_not_touched() {
    let mut story = working();
    let used = format!("id reused: envelope {} came from another actor, job or output", uid(100));
    let done = story.sends(100, &worker(WORKER, 200), whole("order"));
    assert_eq!(reception(&done), (Reception::Error, used.as_str()));
    let done = story.sends(100, &Sender { output: "p", ..emitter(&[201]) }, whole("order"));
    assert_eq!(reception(&done), (Reception::Error, used.as_str()));
    assert_eq!((story.output().0, story.count(ENVELOPE)), (OutputState::Open, 1));
}

#[test]
fn a_fragment_whose_items_are_not_in_the_book_is_not_taken() {
    let mut story = Story::new();
    let lost = "unavailable: the fragment is not in the book; send it again";
    let of = |event: &str| fragment_of(100, &emitter(&[200]), whole("order"), event.into());
    assert_eq!(story.refused(of("nowhere")), lost);
    let event = story.store();
    story.store();
    let trim = Trim { name: "xbus".into(), first: 2, bytes_first: 0 };
    assert!(story.replica.apply_at(story.millis, &[Command::Trim(trim).frame().unwrap()])[0].is_ok());
    assert_eq!(story.refused(of(&event)), lost, "trimmed before the fragment was taken");
    let own = crate::event::EventId::new(Timestamp { seconds: 5, nanos: 0 }, 2).to_string();
    for bad in ["x".repeat(129), own] {
        assert!(story.refused(of(&bad)).contains("id of the event of a fragment"), "{bad}");
    }
}

#[test]
fn the_book_is_kept_from_the_first_fragment_on_whichever_came_first() {
    let mut story = Story::new();
    let (one, two) = (story.store(), story.store());
    let of = |event: &str, number: u8| {
        let parts = vec![part(number, "order", 1, &[b"a"], 1)];
        fragment_of(100, &emitter(&[200]), fragment(parts, false), event.into())
    };
    story.done(of(&two, 1));
    assert_eq!(story.pinned(), Some(2));
    story.done(of(&one, 2));
    assert_eq!(story.pinned(), Some(1), "its items lie before those of the other");
}

#[test]
fn who_may_not_send_is_told_so() {
    let mut story = working();
    let cases = [
        (Sender { actor: 99, ..emitter(&[201]) }, "not found: actor"),
        (Sender { actor: CONSUMER, ..emitter(&[201]) }, "a consumer sends no envelopes"),
        (Sender { actor: EMITTER, ..worker(WORKER, 200) }, "an emitter has no context"),
        (Sender { actor: WORKER, ..emitter(&[201]) }, "the context matches no live job"),
        (Sender { actor: OTHER_WORKER, ..worker(WORKER, 200) }, "the context matches no live job"),
        (worker(OTHER_WORKER, 200), "the context matches no live job"),
        (worker(WORKER, 201), "the context matches no live job"),
        (Sender { output: "nowhere", ..worker(WORKER, 200) }, "unknown output w.nowhere"),
    ];
    for (from, text) in cases {
        let change = story.fragment(101, &from, whole("order"));
        assert_eq!(story.refused(change), text);
    }
    story.done(status(WORKER, ActorStatus::Disabled));
    let change = story.fragment(101, &worker(WORKER, 200), whole("order"));
    assert_eq!(story.refused(change), "the actor is not enabled");
    story.done(enable(SHOP, false));
    let change = story.fragment(101, &emitter(&[201]), whole("order"));
    assert_eq!(story.refused(change), "the actor is not enabled", "because the account is not");
}

#[test]
fn ids_and_names_of_a_fragment_have_a_form() {
    let mut story = Story::new();
    let Change::Fragment(good) = story.fragment(100, &emitter(&[200]), whole("order")) else {
        panic!("another change")
    };
    let (long, short) = ("x".repeat(NAME_BYTES_MAX + 1), vec![1; 15]);
    for (bad, text) in [
        (FragmentReceived { envelope: short.clone(), ..good.clone() }, "malformed command: id of an envelope"),
        (FragmentReceived { output: long, ..good.clone() }, "malformed command: name of an output"),
        (FragmentReceived { actor: short.clone(), ..good.clone() }, "not found: actor"),
        (FragmentReceived { process_ids: vec![short], ..good.clone() }, "malformed command: id of a process"),
        (FragmentReceived { process_ids: vec![], ..good.clone() }, "malformed command: 1 process ids needed"),
    ] {
        assert_eq!(story.refused(Change::Fragment(bad)), text);
    }
    story.done(Change::Fragment(good));
}

#[test]
fn each_active_pipeline_that_matches_begins_a_process_and_needs_an_id_of_its_own() {
    let mut story = Story::new();
    for number in [51, 52] {
        story.pipeline(number, &format!("p{number}"), document());
    }
    for (given, text) in [
        (&[200, 201][..], "malformed command: 3 process ids needed"),
        (&[200, 201, 200], "malformed command: a process has that id"),
    ] {
        let change = story.fragment(100, &emitter(given), whole("order"));
        assert_eq!(story.refused(change), text);
    }
    let done = story.sends(100, &emitter(&[200, 201, 202, 203]), whole("order"));
    assert_eq!(done.steps.len(), 3);
    story.goes(200, Happens::Cancel(Unit {}));
    for taken in [200, 201] {
        let change = story.fragment(101, &emitter(&[taken, 210, 211]), whole("order"));
        assert_eq!(story.refused(change), "malformed command: a process has that id", "one that goes on, or has ended");
    }
}

#[test]
fn an_envelope_at_fault_is_remembered_without_its_events() {
    let mut story = Story::new();
    story.sends(100, &emitter(&[200]), fragment(vec![part(1, "order", 1, &[b"a"], 2)], false));
    assert_eq!((story.count(EVENT), story.count(FRAGMENT)), (1, 1));
    let done = story.sends(100, &emitter(&[200]), fragment(vec![part(1, "order", 3, &[b"a"], 2)], false));
    let fault = format!("event {}: index 2 expected, 3 received", uid(1));
    assert_eq!(reception(&done), (Reception::Error, fault.as_str()));
    assert_eq!(done.envelopes[0].status(), EnvelopeStatus::Error);
    assert_eq!((story.count(ENVELOPE), story.count(EVENT), story.count(FRAGMENT)), (1, 0, 0));
    assert_eq!(story.pinned(), None);
    let done = story.sends(100, &emitter(&[200]), whole("order"));
    assert_eq!(reception(&done), (Reception::Error, fault.as_str()), "for ever");
}

#[test]
fn an_envelope_of_many_fragments_at_fault_leaves_nothing_either() {
    let mut story = Story::new();
    for number in 1..=40 {
        let parts = vec![part(number, "order", 1, &[b"a"], 1)];
        story.sends(100, &emitter(&[200]), fragment(parts, false));
    }
    assert_eq!((story.count(EVENT), story.count(FRAGMENT)), (40, 40));
    story.sends(100, &emitter(&[200]), fragment(vec![part(1, "other", 2, &[b"a"], 1)], false));
    assert_eq!((story.count(EVENT), story.count(FRAGMENT)), (0, 0));
}

#[test]
fn the_envelope_of_a_worker_takes_its_output_and_goes_out_when_it_is_complete() {
    let mut story = working();
    let half = fragment(vec![part(1, "bill", 1, &[b"a"], 2)], false);
    story.sends(101, &worker(WORKER, 200), half);
    assert_eq!(story.output(), (OutputState::Sending, id(101)));
    let change = story.fragment(102, &worker(WORKER, 200), whole("bill"));
    assert_eq!(story.refused(change), "output w.o is taken by another envelope, which is not complete");
    let done = story.sends(101, &worker(WORKER, 200), fragment(vec![part(1, "bill", 2, &[b"b"], 2)], true));
    assert_eq!(reception(&done).0, Reception::Accepted);
    assert_eq!(done.steps.iter().flat_map(|step| &step.ready).map(|job| job.node.as_str()).collect::<Vec<_>>(), ["c"]);
    assert_eq!(story.output(), (OutputState::Sent, id(101)));
    let change = story.fragment(103, &worker(WORKER, 200), whole("bill"));
    assert_eq!(story.refused(change), "output w.o is already closed");
}

#[test]
fn an_envelope_of_a_worker_at_fault_leaves_its_output_free() {
    let mut story = working();
    let bad = fragment(vec![part(1, "bill", 5, &[b"a"], 2)], false);
    let done = story.sends(101, &worker(WORKER, 200), bad);
    assert_eq!(reception(&done).0, Reception::Error);
    assert_eq!(story.output().0, OutputState::Open);
    story.sends(102, &worker(WORKER, 200), whole("bill"));
    assert_eq!(story.output(), (OutputState::Sent, id(102)));
}

#[test]
fn the_last_fragment_of_a_worker_may_come_again_after_its_process_has_ended() {
    let mut story = working();
    story.sends(101, &worker(WORKER, 200), whole("bill"));
    story.goes(200, send("c", CONSUMER));
    assert_eq!(story.goes(200, end("c", CONSUMER, true)).status(), ProcessStatus::Done);
    let done = story.sends(101, &worker(WORKER, 200), whole("bill"));
    assert_eq!((reception(&done).0, done.steps.len()), (Reception::Accepted, 0));
    let change = story.fragment(102, &worker(WORKER, 200), whole("bill"));
    assert_eq!(story.refused(change), "the context matches no live job", "a new one has no process to go to");
}

#[test]
fn what_a_worker_sends_again_after_a_loss_is_accepted_and_thrown_away() {
    let mut story = working();
    let pipeline = Document {
        nodes: vec![node("e", &[], &["o"]), node("w", &["i"], &["o", "p"]), node("c", &["i", "j"], &[])],
        edges: vec!["e.o->w.i".into(), "w.o->c.i".into(), "w.p->c.j".into()],
    };
    story.pipeline(51, "two", pipeline);
    story.done(activate(PIPELINE, PipelineStatus::Inactive));
    story.begins(110, 210);
    story.goes(210, send("w", WORKER));
    story.sends(111, &worker(WORKER, 210), whole("bill"));
    story.done(all_hear(&[210], Happens::ActorLost(connection(WORKER))));
    story.goes(210, send("w", OTHER_WORKER));
    let (fragments, envelopes) = (story.count(FRAGMENT), story.count(ENVELOPE));
    let done = story.sends(112, &worker(OTHER_WORKER, 210), whole("bill"));
    assert_eq!(reception(&done).0, Reception::Accepted);
    assert!(done.steps[0].discard);
    assert_eq!((story.count(FRAGMENT), story.count(ENVELOPE)), (fragments, envelopes));
}

#[test]
fn an_empty_fragment_of_a_worker_holds_its_output_no_longer_than_others() {
    let mut story = working();
    let done = story.sends(101, &worker(WORKER, 200), fragment(vec![], false));
    assert_eq!((reception(&done).0, story.output().0), (Reception::Receiving, OutputState::Sending));
    story.goes(200, end("w", WORKER, true));
    story.wait(STALL_MS);
    let done = story.done(Change::EnvelopesExpire(Expire { millis: 2 * STALL_MS }));
    assert_eq!(done.envelopes[0].status(), EnvelopeStatus::Stalled);
    story.wait(STALL_MS);
    let done = story.done(Change::EnvelopesExpire(Expire { millis: 2 * STALL_MS }));
    assert_eq!(done.envelopes[0].status(), EnvelopeStatus::Error);
    assert_eq!((done.steps[0].status(), done.steps[0].state.as_str()), (ProcessStatus::Error, "node w failed"));
    assert_eq!(story.replica.machine.xbus().open_processes_count(), 0, "the end of the job waited for the envelope");
}

#[test]
fn only_fragments_begin_complete_or_fail_an_output() {
    let mut story = working();
    let output = JobOutput { job: job("w", WORKER), output: "o".into(), envelope: id(150) };
    for event in [
        Happens::OutputBegin(output.clone()),
        Happens::OutputComplete(output.clone()),
        Happens::OutputFail(output.clone()),
    ] {
        assert!(story.refused(happened(200, event)).contains("an envelope without its fragment"));
    }
    let forwarded = JobOutput { envelope: id(100), ..output };
    assert_eq!(story.goes(200, Happens::Forward(forwarded)).ready[0].node, "c");
}

#[test]
fn an_envelope_that_no_pipeline_takes_is_a_process_in_error_that_needs_attention() {
    let mut story = Story::empty();
    story.account();
    let done = story.begins(100, 200);
    assert_eq!(reception(&done).0, Reception::Accepted, "the envelope itself is in order");
    let step = &done.steps[0];
    assert_eq!((step.status(), step.state.as_str()), (ProcessStatus::Error, "no matching pipeline"));
    assert!(story.row(0x50, &[&id(200)]).is_some() && story.row(0x30, &[&id(200)]).is_some());
    assert_eq!((story.pinned(), story.replica.machine.xbus().open_processes_count()), (None, 0));
}
