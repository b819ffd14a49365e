//! Batches: all or nothing, in array order, with contiguous indexes.

use crate::harness::node::Node;
use crate::harness::{SOON, ms};

#[test]
fn a_batch_is_answered_by_202_without_event_headers() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!("[{{\"subject\":\"{ns}.a\",\"payload\":1}},{{\"subject\":\"{ns}.b\",\"payload\":2}}]");
    let answer = node.post(body);
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert!(answer.body.is_empty());
    answer.want("content-length", "0").expect("length");
    answer.cors().expect("CORS headers");
    for name in ["X-BUS-EVENT-ID", "X-BUS-EVENT-CREATED-AT", "X-BUS-EVENT-INDEX"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[test]
fn batch_items_keep_their_order_with_contiguous_indexes() {
    let node = Node::shared();
    let ns = node.namespace();
    node.publish(&format!("{ns}.first"), "0");
    let items: Vec<String> = (0..500)
        .map(|n| format!("{{\"subject\":\"{ns}.s{}\",\"payload\":{n},\"trace_id\":\"t{n}\"}}", n % 7))
        .collect();
    let answer = node.post(format!("[{}]", items.join(",")));
    assert_eq!(answer.status, 202, "{}", answer.text());
    assert_eq!(node.publish(&format!("{ns}.last"), "0").index, 502);
    let events = node.replay(&format!("{ns}.>")).events(502, SOON);
    let mut ids = Vec::new();
    for (n, event) in events.iter().enumerate() {
        let json = event.json();
        assert_eq!(json["index"], n + 1);
        if (1..=500).contains(&n) {
            assert_eq!(json["payload"], n - 1);
            assert_eq!(json["trace_id"], format!("t{}", n - 1));
            assert!(json["created_at"].as_str().is_some_and(|at| at.ends_with('Z')), "{json}");
        }
        ids.push(event.event_id());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 502, "every item has its own id");
}

#[test]
fn batches_of_many_writers_do_not_mix() {
    let node = Node::shared();
    let ns = node.namespace();
    std::thread::scope(|scope| {
        for writer in 0..4 {
            let (node, ns) = (&node, &ns);
            scope.spawn(move || {
                let mut http = node.http();
                for batch in 0..20 {
                    let items: Vec<String> = (0..25)
                        .map(|n| format!("{{\"subject\":\"{ns}.x\",\"payload\":[{writer},{batch},{n}]}}"))
                        .collect();
                    assert_eq!(http.post(format!("[{}]", items.join(","))).status, 202);
                }
            });
        }
    });
    let events = node.replay(&format!("{ns}.x")).events(2000, SOON);
    for batch in events.chunks(25) {
        let first = batch.first().expect("a batch").payload();
        for (n, event) in batch.iter().enumerate() {
            let payload = event.payload();
            assert_eq!((&payload[0], &payload[1]), (&first[0], &first[1]), "batches mixed");
            assert_eq!(payload[2], n);
        }
    }
}

#[test]
fn a_batch_with_a_key_that_is_taken_stores_nothing() {
    let node = Node::shared();
    let ns = node.namespace();
    let taken = format!("{{\"subject\":\"{ns}.x\",\"key\":\"k\",\"payload\":1}}");
    node.post(&taken).published();
    let batch = format!("[{{\"subject\":\"{ns}.x\",\"key\":\"fresh\",\"payload\":2}},{taken}]");
    let refused = node.post(batch).refusal(409, "key was processed before: item 2 of the batch, index 1");
    refused.expect("key of a stored event");
    let twice = format!(
        "[{{\"subject\":\"{ns}.x\",\"key\":\"new\"}},{{\"subject\":\"{ns}.x\"}},{{\"subject\":\"{ns}.x\",\"key\":\"new\"}}]"
    );
    let refused = node.post(twice).refusal(409, "key was processed before: item 3 of the batch");
    refused.expect("key twice inside the batch");
    // Nothing stored, and the fresh keys of the refused batches are still free.
    for (key, index) in [("fresh", 2), ("new", 3)] {
        let body = format!("{{\"subject\":\"{ns}.x\",\"key\":\"{key}\"}}");
        assert_eq!(node.post(body).published().index, index, "key {key}");
    }
}

#[test]
fn a_batch_may_use_one_key_on_two_subjects() {
    let node = Node::shared();
    let ns = node.namespace();
    let batch = format!("[{{\"subject\":\"{ns}.x\",\"key\":\"k\"}},{{\"subject\":\"{ns}.y\",\"key\":\"k\"}}]");
    assert_eq!(node.post(batch).status, 202, "a key counts per subject");
}

#[test]
fn a_batch_with_one_client_id_twice_stores_nothing() {
    let node = Node::shared();
    let ns = node.namespace();
    let item = format!("{{\"id\":\"same\",\"subject\":\"{ns}.x\"}}");
    let refused = node.post(format!("[{item},{item}]")).refusal(409, "event id already exists: item 2 of the batch");
    refused.expect("id twice inside the batch");
    assert_eq!(node.post(item).published().index, 1, "the id is still free");
}

#[test]
fn a_live_subscriber_sees_a_batch_whole_and_in_order() {
    let node = Node::shared();
    let ns = node.namespace();
    node.publish(&format!("{ns}.x"), "\"old\"");
    let mut stream = node.subscribe(&[("subject", &format!("{ns}.x"))]);
    let items: Vec<String> = (0..3).map(|n| format!("{{\"subject\":\"{ns}.x\",\"payload\":{n}}}")).collect();
    assert_eq!(node.post(format!("[{}]", items.join(","))).status, 202);
    for (event, want) in stream.events(3, SOON).iter().zip(0..) {
        assert_eq!(event.payload(), want);
    }
    stream.quiet(ms(150));
}
