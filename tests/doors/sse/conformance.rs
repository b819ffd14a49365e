//! The conformance list of the protocol, as far as other chapters do not hold it already.

use std::collections::BTreeSet;

use crate::harness::node::Node;
use crate::harness::sse::Frame;
use crate::harness::{SOON, ms};

#[test]
fn item_1_ten_thousand_sequential_publishes_of_one_subject() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!("{{\"subject\":\"{ns}.x\",\"payload\":{{\"n\":1}}}}");
    let mut http = node.http();
    for index in 1..=10_000 {
        assert_eq!(http.post(&body).published().index, index);
    }
}

#[test]
fn item_3_ten_publishers_and_eight_subscribers_from_oldest() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let seen: Vec<Vec<String>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(|| node.replay(&subject).events(1000, SOON))).collect();
        for publisher in 0..10 {
            let (node, subject) = (&node, &subject);
            scope.spawn(move || {
                let mut http = node.http();
                for n in 0..100 {
                    let body = format!("{{\"subject\":\"{subject}\",\"payload\":[{publisher},{n}]}}");
                    http.post(body).published();
                }
            });
        }
        let seen = readers.into_iter().map(|reader| reader.join().expect("a reader"));
        seen.map(|events| events.iter().map(|event| event.raw.clone()).collect()).collect()
    });
    let first = seen.first().expect("a reader");
    assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 1000, "each event once");
    assert!(seen.iter().all(|own| own == first), "all see one order, live or replayed");
}

#[test]
fn item_8_nested_payloads_and_many_writers_and_readers() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let array: Vec<String> = (0..100).map(|n| format!("[{n},[\"a\",{{\"k\":[]}}]]")).collect();
    let array = format!("[{}]", array.join(","));
    let object = "{\"a\":{\"b\":{\"c\":[{\"d\":\"}\"},null,true]}}}";
    node.publish(&subject, &array);
    node.publish(&subject, object);
    let events = node.replay(&subject).events(2, SOON);
    let texts: Vec<&str> = events.iter().map(Frame::text).collect();
    assert!(texts[0].contains(&array) && texts[1].contains(object), "{texts:?}");
    std::thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                for _ in 0..50 {
                    node.publish(&subject, "1");
                }
            });
        }
        for _ in 0..3 {
            scope.spawn(|| {
                let events = node.replay(&subject).events(252, SOON);
                let indexes: Vec<i64> = events.iter().map(Frame::index).collect();
                assert_eq!(indexes, (1..=252).collect::<Vec<i64>>());
            });
        }
    });
}

#[test]
fn item_20_subjects_without_a_namespace_fail_on_both_verbs() {
    let node = Node::shared();
    for (subject, text) in
        [("nodots", "invalid subject: missing namespace"), ("unknown.namespace", "namespace not found: unknown")]
    {
        let post = node.post(format!("{{\"subject\":\"{subject}\",\"payload\":1}}"));
        post.refusal(400, text).expect("POST");
        node.get(&format!("/?subject={subject}")).refusal(400, text).expect("GET");
    }
}

/// Four writers, one consumer that acknowledges each event by hand.
fn stress(pattern: &str) {
    let node = Node::shared();
    let ns = node.namespace();
    let query = [
        ("subject", format!("{ns}.stress.{pattern}")),
        ("start", "oldest".to_owned()),
        ("ack", "manual".to_owned()),
        ("redelivery", "10s".to_owned()),
    ];
    let query: Vec<(&str, &str)> = query.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut stream = node.subscribe(&query);
    let consumer = stream.consumer_id();
    let mut acks = node.http();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (node, ns) = (&node, &ns);
            scope.spawn(move || {
                for n in 0..50 {
                    node.publish(&format!("{ns}.stress.w{writer}"), &n.to_string());
                }
            });
        }
        for want in 1..=200 {
            let event = stream.next_event(SOON);
            assert_eq!(event.index(), want, "in order, none lost, none twice");
            let target = format!("/?consumer_id={consumer}&event_id={}", event.event_id());
            assert_eq!(acks.request("PUT", &target, &[], b"").status, 202);
        }
    });
    stream.quiet(ms(100));
}

#[test]
fn item_22_manual_acks_under_load_with_a_greater_sign() {
    stress(">");
}

#[test]
fn item_22_manual_acks_under_load_with_two_stars() {
    stress("**");
}

#[test]
fn item_23_two_hundred_thousand_events_in_batches_reach_one_consumer() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let item = format!("{{\"subject\":\"{subject}\",\"payload\":{{\"pad\":\"{}\"}}}}", "x".repeat(100));
    let batch = format!("[{}]", vec![item; 1000].join(","));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut stream = node.replay(&subject);
            for want in 1..=200_000_i64 {
                let event = stream.next_event(SOON);
                let ends = event.text().ends_with(&format!(",\"index\":{want}}}"));
                assert!(ends, "want index {want}: {}", event.text());
            }
        });
        let mut http = node.http();
        for _ in 0..200 {
            assert_eq!(http.post(&batch).status, 202);
        }
    });
}

#[test]
fn a_rare_subject_is_found_among_many_others() {
    let node = Node::shared();
    let ns = node.namespace();
    let item = format!("{{\"subject\":\"{ns}.common\",\"payload\":\"{}\"}}", "x".repeat(200));
    let batch = format!("[{}]", vec![item; 1000].join(","));
    for n in 0..7 {
        node.publish(&format!("{ns}.rare"), &n.to_string());
        assert_eq!(node.post(&batch).status, 202);
    }
    let events = node.replay(&format!("{ns}.rare")).events(7, SOON);
    for (event, n) in events.iter().zip(0..) {
        assert_eq!((event.payload(), event.index()), (n.into(), 1 + 1001 * n));
    }
}
