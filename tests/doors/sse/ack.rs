//! Manual acknowledgement: one event in flight, redelivery, count, the PUT table.

use std::time::Instant;

use crate::harness::node::{Node, target};
use crate::harness::sse::Sse;
use crate::harness::{SOON, ms, report};

/// A manual subscription from the oldest event.
fn manual(node: &Node, subject: &str, redelivery: &str, count: &str) -> Sse {
    node.subscribe(&[
        ("subject", subject),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", redelivery),
        ("redelivery_count", count),
    ])
}

#[test]
fn a_put_that_misses_something_is_refused() {
    let node = Node::shared();
    let mut failures = Vec::new();
    for (target, text) in [
        ("/", "missing consumer_id in query string"),
        ("/?event_id=e_x", "missing consumer_id in query string"),
        ("/?consumer_id=&event_id=e_x", "missing consumer_id in query string"),
        ("/?consumer_id=x&event_id=e_x", "invalid consumer_id in query string"),
        ("/?consumer_id=x", "invalid consumer_id in query string"),
        ("/?consumer_id=c_x", "missing event_id in query string"),
        ("/?consumer_id=c_x&event_id=", "missing event_id in query string"),
        ("/?consumer_id=c_x&event_id=x", "invalid event_id in query string"),
        ("/?consumer_id=C_x&event_id=e_x", "invalid consumer_id in query string"),
    ] {
        let answer = node.http().request("PUT", target, &[], b"");
        if let Err(problem) = answer.refusal(400, text) {
            failures.push(format!("PUT {target}: {problem}"));
        }
    }
    report("PUT", &failures);
}

#[test]
fn a_put_for_something_unknown_is_accepted() {
    let node = Node::shared();
    let ns = node.namespace();
    let event = node.publish(&format!("{ns}.x"), "1").id;
    let plain = node.replay(&format!("{ns}.x")).consumer_id();
    for (consumer, event) in
        [("c_unknown", "e_unknown"), ("c_unknown", &event), (&plain, &event), (&plain, "e_unknown")]
    {
        let answer = node.ack(consumer, event);
        assert_eq!(answer.status, 202, "{consumer} {event}: {}", answer.text());
        assert_eq!(answer.header("x-bus-acknowledged"), Some("false"), "{consumer} {event}");
        assert!(answer.body.is_empty());
        answer.cors().expect("CORS headers");
    }
}

#[test]
fn the_next_event_waits_for_the_ack() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    for n in 1..=3 {
        node.publish(&subject, &n.to_string());
    }
    let mut stream = manual(&node, &subject, "30s", "3");
    for n in 1..=3 {
        let event = stream.next_event(SOON);
        assert_eq!(event.payload(), n);
        stream.quiet(ms(100));
        // A second ack changes nothing, and says so.
        for done in ["true", "false"] {
            let answer = node.ack(&stream.consumer_id(), &event.event_id());
            assert_eq!((answer.status, answer.header("x-bus-acknowledged")), (202, Some(done)));
        }
    }
    stream.quiet(ms(100));
}

#[test]
fn an_ack_for_another_event_or_consumer_does_not_release_the_stream() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let first = node.publish(&subject, "1").id;
    let second = node.publish(&subject, "2").id;
    let mut stream = manual(&node, &subject, "30s", "3");
    assert_eq!(stream.next_event(SOON).event_id(), first);
    node.ack(&stream.consumer_id(), &second);
    node.ack("c_somebody-else", &first);
    stream.quiet(ms(150));
    node.ack(&stream.consumer_id(), &first);
    assert_eq!(stream.next_event(SOON).event_id(), second, "an early ack is no ack");
}

#[test]
fn an_event_without_ack_is_sent_again_byte_for_byte() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "{\"a\": 1.0,\n \"b\": 2}");
    let mut stream = manual(&node, &subject, "300ms", "0");
    let first = stream.next_event(SOON);
    for nth in 2..=4 {
        let sent = Instant::now();
        let again = stream.next_event(SOON);
        assert_eq!(again.raw, first.raw, "delivery {nth}");
        let waited = sent.elapsed();
        assert!(waited > ms(200) && waited < ms(1500), "delivery {nth} after {waited:?}");
    }
}

#[test]
fn an_ack_of_a_redelivered_event_ends_redelivery() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    let mut stream = manual(&node, &subject, "250ms", "10");
    let first = stream.next_event(SOON);
    let second = stream.next_event(SOON);
    assert_eq!(first.raw, second.raw);
    node.ack(&stream.consumer_id(), &second.event_id());
    stream.quiet(ms(800));
}

#[test]
fn acked_events_are_never_sent_again() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    for n in 1..=5 {
        node.publish(&subject, &n.to_string());
    }
    let mut stream = manual(&node, &subject, "500ms", "5");
    for n in 1..=5 {
        let event = stream.next_event(SOON);
        assert_eq!(event.payload(), n);
        node.ack(&stream.consumer_id(), &event.event_id());
    }
    stream.quiet(ms(1200));
}

#[test]
fn a_count_of_zero_or_less_is_unlimited() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    for count in ["0", "-1"] {
        let mut stream = manual(&node, &subject, "100ms", count);
        let events = stream.events(8, SOON);
        assert!(events.iter().all(|event| event.index() == 1), "count {count}");
    }
    assert_eq!(node.get(&format!("/?subject=_dead_.{ns}.x&ack=x")).status, 400);
    let mut dead = node.replay(&format!("_dead_.{ns}.>"));
    dead.quiet(ms(100));
}

#[test]
fn a_count_of_one_is_a_single_delivery() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    node.publish(&subject, "2");
    let mut stream = manual(&node, &subject, "200ms", "1");
    let payloads: Vec<_> = stream.events(2, SOON).iter().map(|event| event.payload()).collect();
    assert_eq!(payloads, [1, 2]);
}

#[test]
fn three_deliveries_are_the_default() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    node.publish(&subject, "2");
    let query = [("subject", subject.as_str()), ("start", "oldest"), ("ack", "manual"), ("redelivery", "150ms")];
    let mut stream = node.subscribe(&query);
    let payloads: Vec<_> = stream.events(4, SOON).iter().map(|event| event.payload()).collect();
    assert_eq!(payloads, [1, 1, 1, 2]);
}

#[test]
fn the_default_redelivery_is_five_seconds() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    let mut stream = manual(&node, &subject, "", "");
    stream.next_event(SOON);
    let sent = Instant::now();
    stream.next_event(SOON);
    let waited = sent.elapsed();
    assert!(waited > ms(4500) && waited < ms(7000), "{waited:?}");
}

#[test]
fn without_manual_ack_nothing_is_sent_again() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    let query = [("subject", subject.as_str()), ("start", "oldest"), ("redelivery", "100ms")];
    let mut stream = node.subscribe(&query);
    stream.next_event(SOON);
    stream.quiet(ms(500));
}

#[test]
fn an_ack_counts_for_its_own_consumer_only() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let id = node.publish(&subject, "1").id;
    let mut first = manual(&node, &subject, "30s", "3");
    let mut second = manual(&node, &subject, "200ms", "3");
    assert_eq!(first.next_event(SOON).event_id(), id);
    assert_eq!(second.next_event(SOON).event_id(), id);
    node.ack(&first.consumer_id(), &id);
    assert_eq!(second.next_event(SOON).event_id(), id, "still not acked by the second");
    let mut third = manual(&node, &subject, "30s", "3");
    assert_eq!(third.next_event(SOON).event_id(), id);
}

#[test]
fn an_event_in_flight_on_a_lost_connection_is_seen_by_others() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let id = node.publish(&subject, "1").id;
    let mut first = manual(&node, &subject, "300ms", "1");
    assert_eq!(first.next_event(SOON).event_id(), id);
    drop(first);
    let mut second = manual(&node, &subject, "300ms", "1");
    assert_eq!(second.next_event(SOON).event_id(), id);
}

#[test]
fn a_browser_acks_with_the_consumer_id_it_chose() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.publish(&subject, "1");
    node.publish(&subject, "2");
    let query = [
        ("subject", subject.as_str()),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", "30s"),
        ("consumer_id", "c_browser-7"),
    ];
    let mut stream = node.subscribe(&query);
    let first = stream.next_event(SOON);
    node.ack("c_browser-7", &first.event_id());
    assert_eq!(stream.next_event(SOON).payload(), 2);
    // A reconnect takes over; it resumes after the last event received.
    let mut again = Sse::open(node.log, &target(&query), &[("Last-Event-ID", &first.event_id())]);
    let event = again.next_event(SOON);
    assert_eq!(event.payload(), 2);
    node.ack("c_browser-7", &event.event_id());
    again.quiet(ms(100));
}

#[test]
fn an_event_with_a_custom_id_can_be_acked_while_it_is_in_flight() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.post(format!("{{\"id\":\"order:1\",\"subject\":\"{subject}\"}}")).published();
    node.publish(&subject, "2");
    let mut stream = manual(&node, &subject, "30s", "3");
    assert_eq!(stream.next_event(SOON).event_id(), "order:1");
    let refused = node.ack(&stream.consumer_id(), "order:2");
    refused.refusal(400, "invalid event_id in query string").expect("not in flight");
    let refused = node.ack("c_other", "order:1");
    refused.refusal(400, "invalid event_id in query string").expect("not in flight there");
    assert_eq!(node.ack(&stream.consumer_id(), "order:1").status, 202);
    assert_eq!(stream.next_event(SOON).payload(), 2);
}

#[test]
fn manual_ack_follows_live_events_too() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let mut stream = node.subscribe(&[("subject", &subject), ("ack", "manual")]);
    for n in 1..=3 {
        let id = node.publish(&subject, &n.to_string()).id;
        assert_eq!(stream.next_event(SOON).event_id(), id);
        node.ack(&stream.consumer_id(), &id);
    }
}
