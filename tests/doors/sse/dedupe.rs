//! The dedupe key: refused the second time, durable, never burnt by a publish that failed.

use serde_json::{Value, json};

use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

fn keyed(subject: &str, key: &str, payload: u32) -> String {
    format!("{{\"subject\":\"{subject}\",\"key\":\"{key}\",\"payload\":{payload}}}")
}

#[test]
fn the_second_publish_with_a_key_is_refused() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let first = node.post(keyed(&subject, "k", 1)).published();
    for _ in 0..2 {
        let again = node.post(keyed(&subject, "k", 2)).repeats("key was processed before");
        assert_eq!(again, first, "a repetition is told where the first one is");
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
    let first = node.post(&body).published();
    assert_eq!((first.id.as_str(), first.index), ("i", 1));
    assert_eq!(node.post(&body).repeats("key was processed before"), first);
    let named = format!("{{\"subject\":\"{ns}.y\",\"id\":\"i\"}}");
    assert_eq!(node.post(named).repeats("event id already exists"), first);
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
    let (by_key, by_id) = (node.post(&keyed).published(), node.post(named).published());
    for graceful in [true, false, true] {
        if graceful {
            node.terminate();
        }
        node.restart();
        assert_eq!(node.post(&keyed).repeats("key was processed before"), by_key);
        assert_eq!(node.post(named).repeats("event id already exists"), by_id);
    }
    assert_eq!(node.publish("app.x", "1").index, 3);
}

#[test]
fn keys_are_remembered_for_a_time_however_many_there_are() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let items = |range: std::ops::Range<u32>| {
        let items: Vec<String> = range.map(|n| keyed(&subject, &format!("k{n}"), n)).collect();
        format!("[{}]", items.join(","))
    };
    for first in (0..20_000).step_by(5000) {
        assert_eq!(node.post(items(first..first + 5000)).status, 202);
    }
    for n in [0, 1, 4999, 5000, 19_999] {
        let again = node.post(keyed(&subject, &format!("k{n}"), n)).repeats("key was processed before");
        assert_eq!(again.index, i64::from(n) + 1);
    }
}

#[test]
fn a_namespace_says_how_long_and_nothing_is_left_of_what_is_over() {
    let node = Node::shared();
    let ns = node.namespace();
    let (subject, path) = (format!("{ns}.x"), format!("/api/namespaces/{ns}"));
    let items: Vec<String> = (0..5000).map(|n| keyed(&subject, &format!("k{n}"), n)).collect();
    assert_eq!(node.post(format!("[{}]", items.join(","))).status, 202);
    let shown = || node.web("GET", &path, "").json()["dedupe"].clone();
    assert_eq!(shown(), json!({ "window": "2m", "keys": 5000, "evicted": 0 }));
    for wrong in ["999ms", "25h", "soon", "-1s"] {
        let body = format!("{{\"retention\":{{\"dedupe_window\":\"{wrong}\"}}}}");
        assert_eq!(node.web("PATCH", &path, &body).status, 400, "{wrong}");
    }
    let patched = node.web("PATCH", &path, "{\"retention\":{\"dedupe_window\":\"1s\"}}").json();
    assert_eq!((&patched["retention"]["dedupe_window"], &patched["dedupe"]["window"]), (&json!("1s"), &json!("1s")));
    std::thread::sleep(ms(1100));
    assert_eq!(node.post(keyed(&subject, "k4999", 0)).published().index, 5001, "its time is over");
    // The namespace goes quiet: what publishes would have removed is removed all the same.
    wait_for("all keys to go", SOON * 3, || (shown()["keys"] == 0).then_some(()));
    let patched = node.web("PATCH", &path, "{\"retention\":{\"dedupe_window\":null}}").json();
    assert_eq!((&patched["retention"]["dedupe_window"], &patched["dedupe"]["window"]), (&Value::Null, &json!("2m")));
}
