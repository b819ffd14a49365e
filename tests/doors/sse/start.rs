//! Where a stream begins: oldest, newest, after an event, Last-Event-ID, unknown ids.

use crate::harness::node::{Node, Options, Shared, target};
use crate::harness::sse::{End, Sse};
use crate::harness::{SOON, ms, wait_for};

/// Publishes `1..=count` and gives the ids.
fn fill(node: &Shared, ns: &str, count: u32) -> Vec<String> {
    (1..=count).map(|n| node.publish(&format!("{ns}.x"), &n.to_string()).id).collect()
}

fn payloads(stream: &mut Sse, count: usize) -> Vec<i64> {
    let events = stream.events(count, SOON);
    events.iter().filter_map(|event| event.payload().as_i64()).collect()
}

#[test]
fn oldest_replays_everything_and_then_follows() {
    let node = Node::shared();
    let ns = node.namespace();
    fill(&node, &ns, 5);
    let mut stream = node.replay(&format!("{ns}.x"));
    assert_eq!(payloads(&mut stream, 5), [1, 2, 3, 4, 5]);
    node.publish(&format!("{ns}.x"), "6");
    assert_eq!(payloads(&mut stream, 1), [6]);
}

#[test]
fn newest_is_the_default_and_skips_what_was_acknowledged() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    fill(&node, &ns, 3);
    for query in [
        vec![("subject", subject.as_str())],
        vec![("subject", subject.as_str()), ("start", "newest")],
        vec![("subject", subject.as_str()), ("start", "")],
    ] {
        let mut stream = node.subscribe(&query);
        node.publish(&subject, "77");
        assert_eq!(payloads(&mut stream, 1), [77], "{query:?}");
        stream.quiet(ms(60));
    }
}

#[test]
fn newest_never_repeats_the_last_event_nor_loses_the_next() {
    let node = Node::shared();
    let ns = node.namespace();
    for n in (0..60).step_by(2) {
        node.publish(&format!("{ns}.x"), &n.to_string());
        let mut stream = node.subscribe(&[("subject", &format!("{ns}.x"))]);
        node.publish(&format!("{ns}.x"), &(n + 1).to_string());
        assert_eq!(payloads(&mut stream, 1), [n + 1]);
    }
}

#[test]
fn an_id_starts_right_after_that_event() {
    let node = Node::shared();
    let ns = node.namespace();
    let ids = fill(&node, &ns, 5);
    let subject = format!("{ns}.x");
    let mut stream = node.subscribe(&[("subject", &subject), ("start", &ids[1])]);
    assert_eq!(payloads(&mut stream, 3), [3, 4, 5]);
    stream.quiet(ms(60));
    let mut last = node.subscribe(&[("subject", &subject), ("start", &ids[4])]);
    last.quiet(ms(60));
    node.publish(&subject, "6");
    assert_eq!(payloads(&mut last, 1), [6]);
}

#[test]
fn the_start_id_may_belong_to_another_subject_or_a_client() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    let other = node.publish(&format!("{ns}.other"), "2").id;
    node.publish(&subject, "3");
    let body = format!("{{\"id\":\"mine:1\",\"subject\":\"{subject}\",\"payload\":4}}");
    node.post(body).published();
    node.publish(&subject, "5");
    let mut stream = node.subscribe(&[("subject", &subject), ("start", &other)]);
    assert_eq!(payloads(&mut stream, 3), [3, 4, 5]);
    let mut stream = node.subscribe(&[("subject", &subject), ("start", "mine:1")]);
    assert_eq!(payloads(&mut stream, 1), [5]);
}

#[test]
fn last_event_id_beats_start() {
    let node = Node::shared();
    let ns = node.namespace();
    let ids = fill(&node, &ns, 4);
    let own = format!("{{\"id\":\"own\",\"subject\":\"{ns}.x\",\"payload\":5}}");
    node.post(own).published();
    node.publish(&format!("{ns}.x"), "6");
    let subject = format!("{ns}.x");
    for start in ["oldest", "newest", "", &ids[3]] {
        let query = target(&[("subject", &subject), ("start", start)]);
        let mut stream = Sse::open(node.log, &query, &[("Last-Event-ID", &ids[1])]);
        assert_eq!(payloads(&mut stream, 4), [3, 4, 5, 6], "start={start}");
    }
    // A stored id counts in any form; an empty one is none.
    let query = target(&[("subject", &subject), ("start", "oldest")]);
    let mut stream = Sse::open(node.log, &query, &[("last-event-id", "own")]);
    assert_eq!(payloads(&mut stream, 1), [6]);
    let mut stream = Sse::open(node.log, &query, &[("Last-Event-ID", "")]);
    assert_eq!(payloads(&mut stream, 1), [1]);
}

#[test]
fn a_last_event_id_that_is_not_known_is_refused_so_that_a_browser_does_not_come_back_with_it_for_ever() {
    let node = Node::shared();
    let (full, empty) = (node.namespace(), node.namespace());
    fill(&node, &full, 3);
    fill(&node, &full, 1);
    for ns in [&full, &empty] {
        let query = target(&[("subject", &format!("{ns}.x")), ("start", "oldest")]);
        // The last one is of an index that was not given out yet.
        for id in ["17", "nothing", "e_", "e_unknown", "e_00000000000000000000", "e_dc0unahksdu9ruucpt80"] {
            let refused = node.http().request("GET", &query, &[("Last-Event-ID", id)], b"");
            let text = format!("Last-Event-ID {id} not found in namespace {ns}\n");
            assert_eq!((refused.status, refused.text()), (400, text), "{ns}");
        }
        let refused = node.http().request("GET", &query, &[("Last-Event-ID", "\u{e9}")], b"");
        assert_eq!((refused.status, refused.text()), (400, "invalid Last-Event-ID\n".to_owned()));
    }
    // An inbox holds nothing, so there is nothing to go on behind, and the cursor of a durable consumer is its own.
    let mut inbox = Sse::open(node.log, "/?subject=_bus_.a", &[("Last-Event-ID", "e_unknown")]);
    inbox.quiet(ms(60));
    let subject = format!("{full}.x");
    let query = [("subject", subject.as_str()), ("start", "oldest"), ("consumer", "c")];
    assert_eq!(payloads(&mut node.subscribe(&query), 4), [1, 2, 3, 1]);
    node.publish(&subject, "5");
    let mut durable = Sse::open(node.log, &target(&query), &[("Last-Event-ID", "e_unknown")]);
    assert_eq!(payloads(&mut durable, 1), [5]);
}

#[test]
fn a_stream_whose_last_event_retention_took_away_goes_on_with_the_oldest_and_says_what_is_missing() {
    let node = Node::shared();
    let ns = node.namespace();
    let ids = fill(&node, &ns, 5);
    let retention = r#"{"retention":{"max_events":2}}"#;
    assert_eq!(node.web("PATCH", &format!("/api/namespaces/{ns}"), retention).status, 200);
    let first = wait_for("events are gone", SOON, || {
        node.publish(&format!("{ns}.x"), "6");
        let head = node.web("GET", &format!("/api/namespaces/{ns}"), "").json();
        head["first_index"].as_u64().filter(|first| *first > 3)
    });
    let query = target(&[("subject", &format!("{ns}.x"))]);
    let mut stream = Sse::open(node.log, &query, &[("Last-Event-ID", &ids[0])]);
    let event = stream.next_event(SOON);
    let index = event.json()["index"].as_u64().expect("an index");
    assert!(index >= first, "{index} {first}");
    let comment = format!(": events are missing, the first that is kept has index {index}\n\n");
    assert_eq!(stream.raw().matches(&comment).count(), 1, "{}", stream.raw());
    // What was asked for in so many words is refused as before.
    let stream = node.subscribe(&[("subject", &format!("{ns}.x")), ("start", &ids[0])]);
    expect_not_found(stream, &ids[0], &ns);
}

/// Reads the stream of an unknown start id to its end.
fn expect_not_found(mut stream: Sse, id: &str, ns: &str) {
    let event = stream.next_event(SOON);
    let hint = if id.starts_with("e_") { "" } else { "; start is oldest, newest or the id of an event" };
    assert_eq!(event.raw, format!("event: error\ndata: start event id {id} not found in namespace {ns}{hint}\n\n"));
    assert_eq!(stream.end(SOON), End::Clean);
    let want = format!(": consumer {}\n\n{}", stream.consumer_id(), event.raw);
    assert_eq!(stream.raw(), want, "all bytes of the stream");
}

#[test]
fn a_stream_that_broke_before_its_first_event_goes_on_without_a_gap() {
    let mut node = Node::start(&Options::new());
    for before in 0..3 {
        let mut stream = node.subscribe(&[("subject", "app.x")]);
        let begin = std::iter::from_fn(|| stream.next_frame(SOON)).find_map(|frame| frame.id);
        let begin = begin.expect("an id before the first event");
        drop(stream);
        if before == 1 {
            node.restart();
        }
        let missed = node.publish("app.x", &before.to_string());
        let mut again = Sse::open(node.log, &target(&[("subject", "app.x")]), &[("Last-Event-ID", &begin)]);
        assert_eq!(again.next_event(SOON).event_id(), missed.id, "{begin}");
        again.quiet(ms(60));
    }
    // A beginning that this log never had is not taken for one.
    let later = "e_vvvvvvo00000000001hg";
    let answer = node.http().request("GET", "/?subject=app.x", &[("Last-Event-ID", later)], b"");
    answer.refusal(400, &format!("Last-Event-ID {later} not found in namespace app")).expect("refused");
}

#[test]
fn an_unknown_start_id_is_told_at_once_and_ends_the_stream() {
    let node = Node::shared();
    let (full, empty) = (node.namespace(), node.namespace());
    fill(&node, &full, 3);
    // The id of an event of another namespace is unknown too, when nothing is at its place here.
    let other = node.namespace();
    fill(&node, &other, 4);
    let foreign = node.publish(&format!("{other}.foreign"), "1").id;
    for ns in [&full, &empty] {
        let subject = format!("{ns}.x");
        for id in ["e_doesnotexist", "e_dc0unahksdu9ruucpt80", "e_00000000000000000000", "whatever", "e_", &foreign] {
            let stream = node.subscribe(&[("subject", &subject), ("start", id)]);
            expect_not_found(stream, id, ns);
        }
    }
}

#[test]
fn a_start_id_cannot_inject_lines_into_the_stream() {
    let node = Node::shared();
    let ns = node.namespace();
    for id in ["e_x\nid: evil\n\nevent: msg\ndata: {}", "e_x\r\nevent: msg", "e_x\revent: msg"] {
        let mut stream = node.subscribe(&[("subject", &format!("{ns}.x")), ("start", id)]);
        stream.end(SOON);
        let raw = stream.raw();
        assert!(!raw.contains('\r'), "raw CR: {raw:?}");
        for line in raw.lines() {
            let known = line.is_empty() || line.starts_with(": ") || line == "event: error";
            assert!(known || line.starts_with("data: "), "injected line in {raw:?}");
        }
    }
}

#[test]
fn a_deleted_or_future_index_in_an_id_is_not_found() {
    let node = Node::shared();
    let ns = node.namespace();
    let id = node.publish(&format!("{ns}.x"), "1").id;
    // One character further on: a neighbour that does not exist.
    let (head, last) = id.split_at(id.len() - 1);
    let other = if last == "0" { "1" } else { "0" };
    let forged = format!("{head}{other}");
    let stream = node.subscribe(&[("subject", &format!("{ns}.x")), ("start", &forged)]);
    let mut stream = stream;
    match stream.next_event(SOON).kind.as_deref() {
        Some("error") => assert_eq!(stream.end(SOON), End::Clean),
        other => panic!("{forged} was taken for {id}: {other:?}"),
    }
}
