//! Dead letters: what is stored when the last delivery was not acknowledged.

use crate::harness::node::Node;
use crate::harness::sse::Frame;
use crate::harness::{SOON, ms};

/// The dead letters of a namespace so far.
fn dead(node: &Node, ns: &str, count: usize) -> Vec<Frame> {
    let mut stream = node.replay(&format!("_dead_.{ns}.**"));
    let letters = stream.events(count, SOON);
    stream.quiet(ms(100));
    letters
}

#[test]
fn an_event_given_up_is_stored_as_a_dead_letter_and_the_stream_goes_on() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.deep.x");
    let payload = "{ \"n\" : 1.0, \"big\" : 1e400 }";
    node.publish(&format!("{ns}.other"), "0");
    let body = format!("{{\"subject\":\"{subject}\",\"trace_id\":\"tr\",\"payload\":{payload}}}");
    let first = node.post(body).published();
    let second = node.publish(&subject, "2");
    let query = [
        ("subject", subject.as_str()),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", "200ms"),
        ("redelivery_count", "3"),
    ];
    let mut stream = node.subscribe(&query);
    let consumer = stream.consumer_id();
    let ids: Vec<String> = stream.events(4, SOON).iter().map(Frame::event_id).collect();
    assert_eq!(ids, [&first.id, &first.id, &first.id, &second.id].map(String::clone));
    node.ack(&consumer, &second.id);

    let letters = dead(&node, &ns, 1);
    let letter = letters.first().expect("one dead letter");
    assert!(letter.text().contains(payload), "payload bytes are kept: {}", letter.text());
    // 1e400 is valid JSON but not a double: compare the rest without it.
    let text = letter.text().replace(payload, "0");
    let json: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(json["subject"], format!("_dead_.{subject}"));
    let body = &json["payload"];
    assert_eq!(body["event"]["id"], first.id.as_str());
    assert_eq!(body["event"]["subject"], subject.as_str());
    assert_eq!(body["event"]["created_at"], first.created_at.as_str());
    assert_eq!(body["event"]["trace_id"], "tr");
    assert_eq!(body["event"]["payload"], 0);
    assert_eq!(body["index"], 2);
    assert_eq!(body["consumer_id"], consumer.as_str());
    assert!(body["consumer"].is_null() && body["group"].is_null(), "{body}");
    assert_eq!(body["deliveries"], 3);
    assert_eq!(body["reason"], "redelivery_count exceeded");
    let mut names: Vec<&String> = body.as_object().expect("an object").keys().collect();
    names.sort();
    assert_eq!(names, ["consumer", "consumer_id", "deliveries", "event", "group", "index", "reason"]);
}

#[test]
fn a_consumer_never_receives_its_own_dead_letters() {
    let node = Node::shared();
    let ns = node.namespace();
    node.publish(&format!("{ns}.x"), "1");
    let pattern = format!("{ns}.**");
    let query = [
        ("subject", pattern.as_str()),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", "100ms"),
        ("redelivery_count", "2"),
    ];
    let mut stream = node.subscribe(&query);
    stream.events(2, SOON);
    stream.quiet(ms(500));
    assert_eq!(dead(&node, &ns, 1).len(), 1);
    assert_eq!(node.publish(&format!("{ns}.x"), "2").index, 2, "no index was taken");
}

#[test]
fn reading_dead_letters_makes_no_second_level() {
    let node = Node::shared();
    let ns = node.namespace();
    node.publish(&format!("{ns}.x"), "1");
    let once = |pattern: &str| {
        let query = [
            ("subject", pattern),
            ("start", "oldest"),
            ("ack", "manual"),
            ("redelivery", "100ms"),
            ("redelivery_count", "1"),
        ];
        let mut stream = node.subscribe(&query);
        stream.next_event(SOON);
        stream.quiet(ms(400));
    };
    once(&format!("{ns}.>"));
    once(&format!("_dead_.{ns}.>"));
    assert_eq!(dead(&node, &ns, 1).len(), 1);
    let mut second = node.replay(&format!("_dead_._dead_.{ns}.>"));
    second.quiet(ms(100));
}

#[test]
fn the_letter_of_a_durable_consumer_names_it_and_moves_its_cursor() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    node.publish(&subject, "2");
    let query = [
        ("subject", subject.as_str()),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", "100ms"),
        ("redelivery_count", "1"),
        ("consumer", "billing"),
        ("group", "staff"),
    ];
    let mut stream = node.subscribe(&query);
    stream.events(2, SOON);
    let letters = dead(&node, &ns, 2);
    for letter in &letters {
        let body = letter.payload();
        assert_eq!((&body["consumer"], &body["group"]), (&"billing".into(), &"staff".into()));
        assert_eq!(body["deliveries"], 1);
    }
    drop(stream);
    let mut again = node.subscribe(&query);
    again.quiet(ms(300));
}

#[test]
fn a_lost_connection_is_no_dead_letter() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    let query = [
        ("subject", subject.as_str()),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", "150ms"),
        ("redelivery_count", "1"),
    ];
    let mut stream = node.subscribe(&query);
    stream.next_event(SOON);
    drop(stream);
    std::thread::sleep(ms(500));
    dead(&node, &ns, 0);
}
