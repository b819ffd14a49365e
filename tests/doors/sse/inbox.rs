//! Inboxes: `_bus_.` subjects are routed, never stored; request/reply and confirm on top of them.

use crate::harness::node::Node;
use crate::harness::{SOON, ms};

#[test]
fn an_inbox_publish_has_index_minus_one_with_and_without_listeners() {
    let node = Node::shared();
    let inbox = "_bus_.00000000000000000001";
    for listening in [false, true] {
        let mut stream = listening.then(|| node.subscribe(&[("subject", inbox)]));
        let made = node.publish(inbox, "{\"reply\":1}");
        assert_eq!(made.index, -1);
        assert!(made.id.starts_with("e_") && made.created_at.ends_with('Z'), "{made:?}");
        if let Some(stream) = &mut stream {
            let event = stream.next_event(SOON);
            assert_eq!(event.event_id(), made.id);
            let (id, at) = (&made.id, &made.created_at);
            assert_eq!(
                event.raw,
                format!(
                    "id: {id}\nevent: msg\ndata: {{\"id\":\"{id}\",\"subject\":\"{inbox}\",\"created_at\":\"{at}\",\"payload\":{{\"reply\":1}},\"index\":-1}}\n\n"
                )
            );
        }
    }
}

#[test]
fn every_listener_of_an_inbox_gets_a_copy_and_no_one_else() {
    let node = Node::shared();
    let mut streams: Vec<_> = (0..3).map(|_| node.subscribe(&[("subject", "_bus_.copies")])).collect();
    let mut other = node.subscribe(&[("subject", "_bus_.copies2")]);
    let mut upper = node.subscribe(&[("subject", "_bus_.Copies")]);
    node.publish("_bus_.copies", "1");
    for stream in &mut streams {
        assert_eq!(stream.next_event(SOON).payload(), 1);
        stream.quiet(ms(30));
    }
    other.quiet(ms(30));
    upper.quiet(ms(30));
}

#[test]
fn an_inbox_keeps_nothing() {
    let node = Node::shared();
    let inbox = "_bus_.nothing-kept";
    node.publish(inbox, "1");
    for start in ["oldest", "e_unknown", "newest"] {
        let query = [("subject", inbox), ("start", start), ("ack", "manual"), ("redelivery", "100ms")];
        let mut stream = node.subscribe(&query);
        stream.quiet(ms(100));
        // `start` and `ack` are ignored: no waiting for an ack, no redelivery.
        node.publish(inbox, "2");
        node.publish(inbox, "3");
        let payloads: Vec<_> = stream.events(2, SOON).iter().map(|event| event.payload()).collect();
        assert_eq!(payloads, [2, 3], "start={start}");
        stream.quiet(ms(250));
    }
    let listed = node.web("GET", "/api/namespaces", "");
    let items = listed.json()["items"].as_array().cloned().unwrap_or_default();
    assert!(!items.is_empty(), "namespaces are listed: {}", listed.text());
    assert!(items.iter().all(|item| item["name"] != "_bus_"), "{}", listed.text());
}

#[test]
fn a_request_is_answered_through_an_inbox() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.service");
    let query = [("subject", subject.as_str()), ("start", "newest"), ("ack", "manual")];
    let mut responder = node.subscribe(&query);
    let inbox = "_bus_.dc0unahksdu9ruucpt80";
    let mut replies = node.subscribe(&[("subject", inbox)]);
    let body = format!("{{\"subject\":\"{subject}\",\"response_subject\":\"{inbox}\",\"payload\":{{\"q\":1}}}}");
    assert_eq!(node.post(body).published().index, 1);
    let request = responder.next_event(SOON);
    assert_eq!(request.json()["response_subject"], inbox);
    node.ack(&responder.consumer_id(), &request.event_id());
    node.publish(inbox, "{\"answer\":[1, 2]}");
    let reply = replies.next_event(SOON);
    assert!(reply.text().contains("\"payload\":{\"answer\":[1, 2]}"), "{}", reply.text());
    assert_eq!(node.publish(&subject, "1").index, 2, "the reply did not grow the log");
}

#[test]
fn a_publisher_can_wait_for_two_confirmations() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let query = [("subject", subject.as_str()), ("ack", "manual")];
    let mut consumers = [node.subscribe(&query), node.subscribe(&query)];
    let inbox = "_bus_.confirm-two";
    let mut confirms = node.subscribe(&[("subject", inbox)]);
    let body = format!("{{\"subject\":\"{subject}\",\"response_subject\":\"{inbox}\"}}");
    node.post(body).published();
    for consumer in &mut consumers {
        let event = consumer.next_event(SOON);
        node.ack(&consumer.consumer_id(), &event.event_id());
        let reply = event.json()["response_subject"].as_str().map(str::to_owned);
        let reply = reply.expect("a response subject");
        // A confirmation has no payload.
        node.post(format!("{{\"subject\":\"{reply}\"}}")).published();
    }
    for event in confirms.events(2, SOON) {
        assert!(event.json().get("payload").is_none(), "{}", event.text());
    }
}

#[test]
fn inbox_subjects_obey_the_character_table() {
    let node = Node::shared();
    for (subject, text) in [
        ("_bus_.a b", "subject should not have spaces"),
        ("_bus_.", "subject should not end with a dot"),
        ("_bus_.*", "subject should not have * or >"),
    ] {
        let answer = node.post(format!("{{\"subject\":\"{subject}\"}}"));
        answer.refusal(400, text).unwrap_or_else(|problem| panic!("{subject}: {problem}"));
    }
}

#[test]
fn a_listener_that_does_not_read_loses_messages_but_harms_nobody() {
    let node = Node::shared();
    let inbox = "_bus_.overflow";
    let mut stuck = node.subscribe(&[("subject", inbox)]);
    let mut reader = node.subscribe(&[("subject", inbox)]);
    let payload = format!("\"{}\"", "x".repeat(20_000));
    let body = format!("{{\"subject\":\"{inbox}\",\"payload\":{payload}}}");
    let mut http = node.http();
    for _ in 0..1500 {
        assert_eq!(http.post(&body).published().index, -1);
        reader.next_event(SOON);
    }
    // 30 MB went by: the stuck one has its buffer and what the sockets held.
    let mut got = 0;
    while stuck.try_event(ms(500)).is_some() {
        got += 1;
    }
    assert!((1..=1500).contains(&got), "{got} messages");
    node.publish(inbox, "\"still there\"");
    assert_eq!(stuck.next_event(SOON).payload(), "still there");
}
