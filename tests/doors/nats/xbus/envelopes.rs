//! Fragments become envelopes, or are refused, over the raw protocol.

use std::time::Duration;

use prost::Message as _;
use rollbook::doors::nats::xbus::proto::envelope::{Envelope, EnvelopePosition, ReceptionStatus};
use rollbook::doors::nats::xbus::proto::nrpc::ErrorType;

use super::actor::{Peer, checksum, envelope, event, fragments, items, new_id, order, output, text};
use super::setup::{Setup, activate, rest, set_up};
use crate::doors::nats::client::options;
use crate::harness::node::Node;

/// From the emitter to the consumer.
const DIRECT: &str = "nodes:\n- {id: in, type: emitter, roles: [shop]}\n- {id: archive, type: consumer, roles: [archive]}\nedges:\n- in.default->archive.default\n";

fn start() -> (Node, Setup) {
    let node = Node::start(&options());
    let actors = [
        ("shop", "emitter", "shop"),
        ("other", "emitter", "shop"),
        ("tax", "worker", "tax"),
        ("archive", "consumer", "archive"),
    ];
    let setup = set_up(&node, &actors, &[("orders", DIRECT)]);
    (node, setup)
}

#[test]
fn fragments_are_received_until_the_envelope_is_complete_and_may_come_twice() {
    let (node, setup) = start();
    let (mut shop, mut archive) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "archive"));
    let parts = fragments(&["a", "b", "c"]);
    for part in &parts[..2] {
        assert_eq!(shop.emit(part), (ReceptionStatus::Receiving, String::new()));
        assert_eq!(shop.emit(part), (ReceptionStatus::Receiving, String::new()), "the same fragment once more");
    }
    assert!(archive.job_within(Duration::from_millis(300)).is_none(), "no job before the envelope is complete");
    assert_eq!(shop.emit(&parts[2]), (ReceptionStatus::Accepted, String::new()));
    for part in &parts {
        assert_eq!(shop.emit(part), (ReceptionStatus::Accepted, String::new()), "a fragment of a complete envelope");
    }
    let job = archive.job();
    assert_eq!(job.items(), ["a"], "the first fragment comes with the job");
    let position = job.request.inputs[0].position.clone().expect("a position");
    assert!(!position.complete);
    let rest = archive.retrieve(&position).expect("fragments");
    let found: Vec<String> = rest.iter().flat_map(|part| items(part.fragment.as_ref().expect("a fragment"))).collect();
    assert_eq!(found, ["b", "c"]);
    let complete: Vec<bool> = rest.iter().map(|part| part.position.as_ref().is_some_and(|at| at.complete)).collect();
    assert_eq!(complete, [false, true]);
    let start = EnvelopePosition { envelope_id: position.envelope_id, start: true, ..EnvelopePosition::default() };
    assert_eq!(archive.retrieve(&start).expect("fragments").len(), 3, "from the beginning");
    archive.succeed(&job);
    assert!(archive.job_within(Duration::from_millis(300)).is_none(), "one process, one job");
}

#[test]
fn an_envelope_at_fault_is_answered_with_the_reason_and_stays_in_error() {
    let (node, setup) = start();
    let mut shop = Peer::connect(&node, &setup, "shop");
    let mut fails = |parts: &[Envelope], reason: &str| {
        let (last, before) = parts.split_last().expect("fragments");
        for part in before {
            assert_eq!(shop.emit(part).0, ReceptionStatus::Receiving, "{reason}");
        }
        let (status, said) = shop.emit(last);
        assert_eq!(status, ReceptionStatus::Error, "{reason}");
        assert!(said.contains(reason), "{said:?} is not {reason:?}");
        assert_eq!(shop.emit(last).0, ReceptionStatus::Error, "it stays in error: {reason}");
    };
    let mut wrong = order("checksum");
    wrong.events[0].checksum ^= 1;
    fails(&[wrong], "checksum");

    let mut parts = fragments(&["a", "b", "c"]);
    parts.remove(1);
    fails(&parts, "index 2 expected, 3 received");

    let mut parts = fragments(&["a", "b", "c"]);
    parts[1] = parts[0].clone();
    parts[1].events[0].items = vec![b"another".to_vec()];
    fails(&parts[..2], "id reused with other content");

    let mut parts = fragments(&["a", "b"]);
    parts[0].event_ids = vec![parts[0].events[0].id.clone()];
    let unknown = event("order.placed", &["x"]);
    let second = Envelope { id: parts[0].id.clone(), event_ids: Vec::new(), events: vec![unknown], last: false };
    fails(&[parts[0].clone(), second], "is not in eventIDs");

    let mut more = order("one");
    more.events[0].items.push(b"two".to_vec());
    more.events[0].checksum = checksum(&more.events[0]);
    fails(&[more], "more items than itemCount");

    fails(&[Envelope { events: vec![event("", &["x"])], ..order("x") }], "eventIDs");
}

#[test]
fn the_id_of_an_envelope_belongs_to_its_sender() {
    let (node, setup) = start();
    let (mut shop, mut other) = (Peer::connect(&node, &setup, "shop"), Peer::connect(&node, &setup, "other"));
    let parts = fragments(&["a", "b"]);
    assert_eq!(shop.emit(&parts[0]).0, ReceptionStatus::Receiving);
    let (status, reason) = other.emit(&parts[1]);
    assert_eq!(status, ReceptionStatus::Error);
    assert!(reason.starts_with("id reused"), "{reason}");
    assert_eq!(shop.emit(&parts[1]).0, ReceptionStatus::Accepted, "the envelope of its sender is not touched");
    assert!(other.emit(&parts[0]).1.starts_with("id reused"), "a complete envelope has a sender too");
}

#[test]
fn an_envelope_whose_ids_counts_and_checksums_are_left_to_the_server_is_complete_with_its_last_fragment() {
    let (node, setup) = start();
    let (mut shop, mut archive) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "archive"));
    let mut bare = order("bare");
    bare.event_ids.clear();
    bare.last = true;
    let first = &mut bare.events[0];
    (first.id, first.index, first.item_count, first.checksum) = (Vec::new(), 0, 0, 0);
    shop.emit_whole(&bare);
    let job = archive.job();
    assert_eq!(job.items(), ["bare"]);
    let delivered = &job.envelope().events[0];
    assert_eq!((delivered.index, delivered.item_count, delivered.checksum), (1, 1, checksum(delivered)));
    archive.succeed(&job);
}

#[test]
fn who_may_not_send_is_refused_as_a_client() {
    let (node, setup) = start();
    let mut shop = Peer::connect(&node, &setup, "shop");
    let mut archive = Peer::ready(&node, &setup, "archive");
    let mut tax = Peer::connect(&node, &setup, "tax");
    let client = i32::from(ErrorType::Client);
    let wanted = output(None, "default", order("x"));
    let nobody = format!("broker.{}.output", text(&new_id()));
    assert_eq!(shop.refused(&nobody, &wanted.encode_to_vec()), (client, "not found: actor".to_owned()));
    let (kind, said) = shop.refused(&format!("broker.{}.output", setup.actor("shop")), b"\x0f");
    assert_eq!(kind, client, "{said}");
    assert!(archive.output_refused(&wanted).contains("a consumer sends no envelopes"));
    assert!(tax.output_refused(&wanted).contains("the context matches no live job"));

    shop.emit_whole(&order("job"));
    let job = archive.job();
    assert!(shop.output_refused(&output(Some(&job), "default", order("x"))).contains("an emitter has no context"));
    assert!(tax.output_refused(&output(Some(&job), "default", order("x"))).contains("no live job"), "a foreign job");

    rest(&node, "POST", "actors/shop/disable", "");
    assert!(shop.output_refused(&wanted).contains("the actor is not enabled"));
    rest(&node, "POST", "actors/shop/accept", "{}");
    shop.emit_whole(&order("again"));
    let nothing = EnvelopePosition { envelope_id: new_id(), start: true, ..EnvelopePosition::default() };
    let error = archive.retrieve(&nothing).expect_err("an unknown envelope");
    assert_eq!(error.error, client, "{error:?}");
    assert!(error.message.contains("unknown envelope"), "{error:?}");
    let hidden =
        EnvelopePosition { envelope_id: job.envelope().id.clone(), start: true, ..EnvelopePosition::default() };
    assert!(tax.retrieve(&hidden).expect_err("not its envelope").message.contains("unknown envelope"));
    assert_eq!(archive.retrieve(&hidden).expect("its own").len(), 1);
}

#[test]
fn an_envelope_that_no_pipeline_takes_is_an_error_on_its_process_state() {
    let (node, setup) = start();
    let mut shop = Peer::connect(&node, &setup, "shop");
    shop.follow_states();
    activate(
        &node,
        "orders",
        "2",
        &DIRECT.replace("roles: [shop]}", "roles: [shop], sourcematch: {eventtypes: [order.placed]}}"),
    );
    let odd = envelope(vec![event("order.placed", &["a"]), event("order.odd", &["b"])]);
    shop.emit_whole(&odd);
    let state = shop.outcome(&odd);
    assert_eq!((state.status, state.process_list.len()), (5, 1), "{state:?}");
    let process = rest(&node, "GET", &format!("processes/{}", text(&state.process_list[0].id)), "");
    let process = &process["process"];
    assert_eq!((&process["status"], &process["state"]), (&"error".into(), &"no matching pipeline".into()), "{process}");
    assert_eq!(process["envelope"], text(&odd.id));
}

#[test]
fn an_envelope_of_many_fragments_is_delivered_whole_and_in_order() {
    let (node, setup) = start();
    let (mut shop, mut archive) = (Peer::connect(&node, &setup, "shop"), Peer::ready(&node, &setup, "archive"));
    let texts: Vec<String> = (0..40).map(|number| format!("{number:04}{}", "x".repeat(100_000))).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    let parts = fragments(&texts);
    let (last, before) = parts.split_last().expect("fragments");
    for part in before {
        assert_eq!(shop.emit(part).0, ReceptionStatus::Receiving);
    }
    shop.emit_whole(last);
    let job = archive.job();
    let position = job.request.inputs[0].position.clone().expect("a position");
    let rest = archive.retrieve(&position).expect("fragments");
    let mut found = job.items();
    found.extend(rest.iter().flat_map(|part| items(part.fragment.as_ref().expect("a fragment"))));
    let numbers: Vec<String> = found.iter().map(|item| item.chars().take(4).collect()).collect();
    let wanted: Vec<String> = (0..40).map(|number| format!("{number:04}")).collect();
    assert_eq!(numbers, wanted);
    archive.succeed(&job);
}
