//! The dedupe key: refused the second time, durable, never burnt by a publish that failed.

use crate::harness::SOON;
use crate::harness::node::{Node, Options};

fn keyed(subject: &str, key: &str, payload: u32) -> String {
    format!("{{\"subject\":\"{subject}\",\"key\":\"{key}\",\"payload\":{payload}}}")
}

#[test]
fn the_second_publish_with_a_key_is_refused() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.post(keyed(&subject, "k", 1)).published();
    for _ in 0..2 {
        let refused = node.post(keyed(&subject, "k", 2));
        refused.refusal(409, "key was processed before").expect("same key and subject");
    }
    assert_eq!(node.post(keyed(&format!("{ns}.y"), "k", 3)).published().index, 2);
    assert_eq!(node.post(keyed(&subject, "K", 4)).published().index, 3);
    // An empty key is no key.
    assert_eq!(node.post(keyed(&subject, "", 5)).published().index, 4);
    assert_eq!(node.post(keyed(&subject, "", 6)).published().index, 5);
    let events = node.replay(&format!("{ns}.>")).events(5, SOON);
    let payloads: Vec<i64> = events.iter().filter_map(|event| event.payload().as_i64()).collect();
    assert_eq!(payloads, [1, 3, 4, 5, 6]);
}

#[test]
fn a_key_that_is_taken_is_reported_before_an_id_that_is_taken() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!("{{\"subject\":\"{ns}.x\",\"key\":\"k\",\"id\":\"i\"}}");
    node.post(&body).published();
    node.post(&body).refusal(409, "key was processed before").expect("both taken");
}

#[test]
fn of_many_publishes_at_once_with_one_key_one_is_stored() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = keyed(&format!("{ns}.x"), "race", 1);
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let tasks: Vec<_> = (0..8).map(|_| scope.spawn(|| node.post(&body).status)).collect();
        tasks.into_iter().map(|task| task.join().expect("a publisher")).collect()
    });
    let count = |status| statuses.iter().filter(|own| **own == status).count();
    assert_eq!((count(202), count(409)), (1, 7), "{statuses:?}");
    assert_eq!(node.publish(&format!("{ns}.x"), "2").index, 2);
}

#[test]
fn a_publish_that_fails_does_not_burn_its_key() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    node.post(format!("{{\"subject\":\"{subject}\",\"id\":\"taken\"}}")).published();
    let fails = [
        format!("{{\"subject\":\"{subject}\",\"key\":\"k\",\"payload\":tru}}"),
        format!("{{\"subject\":\"{subject}\",\"key\":\"k\",\"id\":\"a b\"}}"),
        format!("{{\"subject\":\"{subject}\",\"key\":\"k\",\"id\":\"taken\"}}"),
        format!("[{{\"subject\":\"{subject}\",\"key\":\"k\"}},{{\"subject\":\"{subject}\",\"id\":\"taken\"}}]"),
    ];
    for body in fails {
        let status = node.post(&body).status;
        assert!(status == 400 || status == 409, "{body}: {status}");
    }
    assert_eq!(node.post(keyed(&subject, "k", 1)).published().index, 2);
}

#[test]
fn keys_and_ids_survive_a_stop_and_a_kill() {
    let mut node = Node::start(&Options::new());
    let keyed = keyed("app.x", "k", 1);
    let named = "{\"subject\":\"app.x\",\"id\":\"mine\"}";
    node.post(&keyed).published();
    node.post(named).published();
    for graceful in [true, false, true] {
        if graceful {
            node.terminate();
        }
        node.restart();
        node.post(&keyed).refusal(409, "key was processed before").expect("key after a restart");
        node.post(named).refusal(409, "event id already exists").expect("id after a restart");
    }
    assert_eq!(node.publish("app.x", "1").index, 3);
}

#[test]
fn the_newest_thousand_keys_of_a_subject_are_remembered() {
    let node = Node::shared();
    let ns = node.namespace();
    let items = |range: std::ops::Range<u32>| {
        let items: Vec<String> = range.map(|n| keyed(&format!("{ns}.x"), &format!("k{n}"), n)).collect();
        format!("[{}]", items.join(","))
    };
    assert_eq!(node.post(items(0..500)).status, 202);
    // Keys of other subjects do not push these out.
    let other: Vec<String> = (0..2000).map(|n| keyed(&format!("{ns}.y"), &format!("o{n}"), n)).collect();
    assert_eq!(node.post(format!("[{}]", other.join(","))).status, 202);
    assert_eq!(node.post(items(500..1000)).status, 202);
    for n in [0, 1, 499, 500, 999] {
        let refused = node.post(keyed(&format!("{ns}.x"), &format!("k{n}"), n));
        let refused = refused.refusal(409, "key was processed before");
        refused.unwrap_or_else(|problem| panic!("key k{n}: {problem}"));
    }
}
