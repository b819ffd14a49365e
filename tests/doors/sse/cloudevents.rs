//! CloudEvents 1.0.2: the three modes in, structured mode out, and the official SDKs.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::examples::clients;
use crate::harness::http::Response;
use crate::harness::node::{Node, Options, run_command, target};
use crate::harness::sse::Sse;
use crate::harness::{SOON, report};

const STRUCTURED: (&str, &str) = ("Content-Type", "application/cloudevents+json");
/// Headers and body of a publish, status and text of its refusal.
type Row<'r> = (&'r [(&'r str, &'r str)], String, u16, &'r str);

const BATCHED: (&str, &str) = ("Content-Type", "application/cloudevents-batch+json");

fn event(id: &str, kind: &str) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/shop", "type": kind, "subject": "order/17", "tenant": "acme",
        "time": "2024-03-15T10:30:45.5Z", "count": 3, "data": { "n": 1 },
    })
}

fn send(node: &Node, query: &str, headers: &[(&str, &str)], body: &str) -> Response {
    node.http().request("POST", &format!("/{query}"), headers, body.as_bytes())
}

fn follow(node: &Node, pattern: &str, headers: &[(&str, &str)]) -> Sse {
    let query = [("subject", pattern), ("start", "oldest")];
    Sse::open(node.log, &target(&query), &[&[("Accept", "application/cloudevents+json")], headers].concat())
}

#[test]
fn what_comes_in_by_any_mode_goes_out_as_it_was() {
    let node = Node::shared();
    let ns = node.namespace();
    let kind = format!("{ns}.made");
    let one = event("one", &kind);
    let stored = send(&node, "", &[STRUCTURED], &one.to_string()).published();
    assert_eq!((stored.id.as_str(), stored.index, stored.created_at.as_str()), ("one", 1, "2024-03-15T10:30:45.5Z"));
    let batch = json!([event("two", &kind), event("three", &kind)]);
    let answer = send(&node, "", &[BATCHED], &batch.to_string());
    assert_eq!((answer.status, answer.header("x-bus-event-id")), (202, None), "{}", answer.text());
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "four"),
        ("ce-source", "/shop"),
        ("ce-type", kind.as_str()),
        ("ce-subject", "Gr%C3%B6%C3%9Fe"),
        ("ce-time", "2024-03-15T10:30:45Z"),
        ("Content-Type", "text/plain"),
    ];
    assert_eq!(send(&node, "", &binary, "a text").published().id, "four");
    assert_eq!(send(&node, "", &[BATCHED], "[]").status, 202);

    let events = follow(&node, &format!("{ns}.>"), &[]).events(4, SOON);
    let seen: Vec<Value> = events.iter().map(|event| event.json()).collect();
    let four = json!({
        "specversion": "1.0", "id": "four", "source": "/shop", "type": kind, "subject": "Größe",
        "time": "2024-03-15T10:30:45Z", "datacontenttype": "text/plain", "data": "a text",
    });
    assert_eq!(seen, [one, batch[0].clone(), batch[1].clone(), four]);
    assert_eq!(events[1].id.as_deref(), Some("two"), "a stream goes on behind it");
    let plain = node.replay(&format!("{ns}.>")).next_event(SOON).json();
    let headers = json!({
        "ce-specversion": "1.0", "ce-source": "/shop", "ce-subject": "order/17", "ce-tenant": "acme", "ce-count": "3",
        "ce-json-literal": "count",
    });
    assert_eq!((&plain["headers"], &plain["payload"]), (&headers, &json!({ "n": 1 })));
}

#[test]
fn streams_of_cloud_events_resume_and_are_acknowledged_as_others_are() {
    let node = Node::shared();
    let ns = node.namespace();
    let first = node.publish(&format!("{ns}.x"), "{\n\"n\": 1}");
    let second = node.publish(&format!("{ns}.x"), "2");
    let mut stream = follow(&node, &format!("{ns}.x"), &[("Last-Event-ID", &first.id)]);
    assert_eq!(stream.next_event(SOON).json()["id"], second.id.as_str());
    let wanted = json!({
        "specversion": "1.0", "id": first.id, "source": format!("/rollbook/{ns}"), "type": format!("{ns}.x"),
        "time": first.created_at, "data": { "n": 1 },
    });
    assert_eq!(follow(&node, &format!("{ns}.x"), &[]).next_event(SOON).json(), wanted);
    let query = [("subject", format!("{ns}.x")), ("start", "oldest".to_owned()), ("ack", "manual".to_owned())];
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut stream = Sse::open(node.log, &target(&query), &[("Accept", "application/cloudevents+json")]);
    let event = stream.next_event(SOON);
    assert_eq!(node.ack(&stream.consumer_id(), &event.event_id()).status, 202);
    assert_eq!(stream.next_event(SOON).json()["data"], 2);
}

#[test]
fn the_subject_in_the_log_is_the_type_unless_the_request_or_the_event_says_another() {
    let node = Node::shared();
    let ns = node.namespace();
    let odd = event("one", "OrderMade").to_string();
    let refused = send(&node, "", &[STRUCTURED], &odd);
    refused.refusal(400, "invalid subject: missing namespace").expect("a type that is no subject");
    send(&node, &format!("?subject={ns}.said"), &[STRUCTURED], &odd).published();
    let mut own = event("two", "OrderMade");
    own["rollbooksubject"] = json!(format!("{ns}.own"));
    send(&node, "", &[STRUCTURED], &own.to_string()).published();
    let subjects: Vec<String> =
        node.replay(&format!("{ns}.>")).events(2, SOON).iter().map(|event| event.subject()).collect();
    assert_eq!(subjects, [format!("{ns}.said"), format!("{ns}.own")]);
    assert_eq!(follow(&node, &format!("{ns}.own"), &[]).next_event(SOON).json(), own);
}

#[test]
fn an_id_is_stored_once_and_what_is_no_cloud_event_is_refused() {
    let node = Node::shared();
    let ns = node.namespace();
    let kind = format!("{ns}.made");
    send(&node, "", &[STRUCTURED], &event("one", &kind).to_string()).published();
    let again = send(&node, "", &[STRUCTURED], &event("one", &kind).to_string());
    assert_eq!(again.repeats("event id already exists").index, 1);
    let odd = event("urn:x/1", &kind).to_string();
    assert_eq!(send(&node, "", &[STRUCTURED], &odd).published().index, 2);
    assert_eq!(send(&node, "", &[STRUCTURED], &odd).repeats("key was processed before").index, 2);
    let without = |name: &str| {
        let mut event = event("x", &kind);
        event.as_object_mut().expect("an object").remove(name);
        event.to_string()
    };
    let binary = [("ce-specversion", "1.0"), ("ce-id", "x"), ("Content-Type", "application/json")];
    let rows: [Row<'_>; 6] = [
        (
            &[("Content-Type", "application/cloudevents+xml")],
            "<x/>".to_owned(),
            415,
            "unsupported format of CloudEvents: application/cloudevents+json and application/cloudevents-batch+json are understood",
        ),
        (&[STRUCTURED], without("source"), 400, "invalid CloudEvent: source is missing"),
        (&[STRUCTURED], "{".to_owned(), 400, "invalid CloudEvent: it is not a JSON object"),
        (&[BATCHED], format!("[{}]", without("id")), 400, "invalid CloudEvent: id is missing: item 1 of the batch"),
        (&binary, "1".to_owned(), 400, "invalid CloudEvent: source is missing"),
        (&binary, "{".to_owned(), 400, "invalid payload: not valid JSON"),
    ];
    let wrong = rows
        .iter()
        .filter_map(|(headers, body, status, text)| send(&node, "", headers, body).refusal(*status, text).err());
    report("refusals", &wrong.collect::<Vec<_>>());
    assert_eq!(send(&node, "", &[STRUCTURED], &event("last", &kind).to_string()).published().index, 3);
}

#[test]
fn the_sdk_for_javascript_reads_back_what_it_wrote() {
    let Some(clients) = clients() else { return };
    if !clients.modules().join("cloudevents").exists() {
        eprintln!("skipped: the CloudEvents SDK is not installed; make test does it");
        return;
    }
    let node = Node::start(&Options::new());
    let exit = clients.node("cloudevents.js", &[&format!("http://{}", node.log), "shop"], SOON * 2);
    assert_eq!((exit.code, exit.stdout.trim()), (Some(0), "all came back"), "{}", exit.stderr);
}

#[test]
fn the_sdk_for_python_reads_back_what_it_wrote() {
    let Some(clients) = clients() else { return };
    if !clients.python().exists() {
        eprintln!("skipped: there is no Python environment; make test makes it");
        return;
    }
    let node = Node::start(&Options::new());
    let mut command = Command::new(clients.python());
    command.arg(clients.script("cloudevents_sdk.py")).args([&format!("http://{}", node.log), "shop"]);
    let exit = run_command(command, b"", SOON * 2);
    assert_eq!((exit.code, exit.stdout.trim()), (Some(0), "all came back"), "{}", exit.stderr);
}
