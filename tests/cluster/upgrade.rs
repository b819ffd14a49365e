//! A cluster whose nodes are upgraded one after the other.

use rollbook_core::level::FeatureLevel;
use serde_json::json;

use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, wait_for};

/// Lets a node say what a release said that knew no levels.
const OLD: (&str, &str) = ("ROLLBOOK_TEST_LEVEL", "1");

const LATEST: u32 = FeatureLevel::LATEST.get();

fn level(node: &Node) -> u32 {
    let metrics = node.web("GET", "/metrics", "").text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("rollbook_feature_level ")).expect("the level");
    line.parse().expect("a number")
}

fn start_old(id: usize, old: &[usize], options: Options) -> Options {
    if old.contains(&id) { options.env(OLD.0, OLD.1) } else { options }
}

#[test]
fn the_level_rises_by_itself_when_the_last_node_was_upgraded_and_then_no_old_node_is_let_in() {
    let mut cluster = Cluster::prepare(Options::new().env("ROLLBOOK_CLUSTER__NODE_TIMEOUT", "1s"));
    cluster.up_with(&[1, 2, 3], |id, options| start_old(id, &[2, 3], options));
    (0..20).for_each(|number| cluster.publish_anywhere("app.x", &number.to_string()));
    cluster.kill(2);
    cluster.publish_anywhere("app.x", "20");
    cluster.up_with(&[2], |id, options| start_old(id, &[3], options));
    (21..30).for_each(|number| cluster.publish_anywhere("app.x", &number.to_string()));
    let levels = |cluster: &Cluster| [1, 2, 3].map(|id| level(cluster.node(id)));
    assert_eq!(levels(&cluster), [1, 1, 1], "node 3 does not know more");
    cluster.terminate(3);
    cluster.publish_anywhere("app.x", "30");
    assert_eq!([1, 2].map(|id| level(cluster.node(id))), [1, 1], "node 3 may come back as it was");
    cluster.up_with(&[3], |_, options| options);
    wait_for("the level rises on all nodes", SOON, || (levels(&cluster) == [LATEST; 3]).then_some(()));
    cluster.publish_anywhere("app.x", "31");
    let wanted: Vec<String> = (0..32).map(|number| number.to_string()).collect();
    for id in 1..=3 {
        assert_eq!(cluster.payloads(id, "app.x", 32), wanted, "node {id}");
    }
    let roll = |id: usize| {
        let events = cluster.node(id).replay("roll.>").events(6, SOON);
        events.iter().map(|event| event.json().to_string()).collect::<Vec<_>>()
    };
    assert!(roll(1) == roll(2) && roll(2) == roll(3), "one history");
    cluster.kill(2);
    let old = start_old(2, &[2], cluster.options_of(2));
    let exit = Node::launch(&old, &cluster.data(2)).err().expect("it must not start");
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains(&format!("the cluster follows level {LATEST}: upgrade node 2")), "{}", exit.stderr);
}

#[test]
fn a_new_node_has_the_newest_rules_from_its_first_event_on() {
    let node = Node::start(&Options::new());
    assert_eq!(level(&node), LATEST);
    let keeps = |name: &str| node.web("GET", &format!("/api/namespaces/{name}"), "").json()["retention"].clone();
    let wanted = json!({"max_age": "168h", "max_bytes": 268_435_456, "max_events": 100_000});
    assert_eq!(keeps("roll"), wanted, "the roll has a bounded past");
    let change = node.web("PATCH", "/api/namespaces/roll", r#"{"retention":{"max_age":null,"max_events":7}}"#);
    assert_eq!(change.status, 200, "{}", change.text());
    assert_eq!(keeps("roll"), json!({"max_age": null, "max_bytes": 268_435_456, "max_events": 7}));
    let cluster = Cluster::start();
    assert_eq!([1, 2, 3].map(|id| level(cluster.node(id))), [LATEST; 3], "as soon as it is ready");
}

/// A member of a durable consumer that takes an event and dies of it, through any node that is there.
fn dies_of(node: &Node) -> Option<String> {
    let query = [
        ("subject", "app.x"),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", "60s"),
        ("redelivery_count", "3"),
        ("consumer", "w"),
    ];
    let mut stream = node.subscribe(&query);
    let event = stream.try_event(SOON)?;
    drop(stream);
    let empty = |item: &serde_json::Value| item["members"].as_array().is_some_and(Vec::is_empty);
    wait_for("the member is gone", SOON, || node.consumer("app", "w").filter(empty));
    Some(event.payload().to_string())
}

#[test]
fn deliveries_are_counted_from_the_raise_on_and_before_it_all_is_as_it_was() {
    const BEFORE: (&str, &str) = ("ROLLBOOK_TEST_LEVEL", "2");
    let mut cluster = Cluster::prepare(Options::new());
    cluster.up_with(&[1, 2, 3], |id, options| if id == 3 { options.env(BEFORE.0, BEFORE.1) } else { options });
    let levels = |cluster: &Cluster| [1, 2, 3].map(|id| level(cluster.node(id)));
    wait_for("level 2", SOON, || (levels(&cluster) == [2, 2, 2]).then_some(()));
    cluster.publish_anywhere("app.x", "poison");
    cluster.publish_anywhere("app.x", "next");
    let poison = dies_of(cluster.node(1)).expect("an event");
    for time in 2..=5 {
        assert_eq!(dies_of(cluster.node(1)).as_ref(), Some(&poison), "time {time} below the level");
    }
    cluster.terminate(3);
    cluster.up_with(&[3], |_, options| options);
    wait_for("the newest level", SOON, || (levels(&cluster) == [LATEST; 3]).then_some(()));
    for id in 1..=3 {
        assert_eq!(dies_of(cluster.node(id)).as_ref(), Some(&poison), "through node {id}");
    }
    let next = dies_of(cluster.node(2)).expect("the next event");
    assert_ne!(next, poison, "counted on whatever node its consumer dies");
    assert_eq!(cluster.node(3).replay("_dead_.app.**").events(1, SOON).len(), 1);
}

#[test]
fn events_have_headers_from_the_raise_on_and_before_it_none_is_stored_with_any() {
    const BEFORE: (&str, &str) = ("ROLLBOOK_TEST_LEVEL", "3");
    const TRACE: (&str, &str) = ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    let mut cluster = Cluster::prepare(Options::new());
    cluster.up_with(&[1, 2, 3], |id, options| if id == 3 { options.env(BEFORE.0, BEFORE.1) } else { options });
    let levels = |cluster: &Cluster| [1, 2, 3].map(|id| level(cluster.node(id)));
    wait_for("level 3", SOON, || (levels(&cluster) == [3, 3, 3]).then_some(()));
    let headed = r#"{"subject":"app.x","headers":{"tenant":"a"},"payload":1}"#;
    let inbox = r#"{"subject":"_bus_.x","headers":{"tenant":"a"}}"#;
    let text = "unavailable: this needs feature level 4 and the cluster is at 3";
    for id in 1..=3 {
        for body in [headed.to_owned(), format!("[{headed}]"), inbox.to_owned()] {
            let refused = cluster.node(id).post(body);
            assert_eq!(
                (refused.status, refused.text().starts_with(text)),
                (503, true),
                "node {id}: {}",
                refused.text()
            );
        }
        // Nobody asked for the context of a trace to be stored.
        let plain = cluster.node(id).http().request("POST", "/", &[TRACE], br#"{"subject":"app.x","payload":0}"#);
        assert_eq!(plain.published().index, i64::try_from(id).expect("a number"));
    }
    cluster.terminate(3);
    cluster.up_with(&[3], |_, options| options);
    wait_for("the newest level", SOON, || (levels(&cluster) == [LATEST; 3]).then_some(()));
    for id in 1..=3 {
        let stored = cluster.node(id).http().request("POST", "/", &[TRACE], headed.as_bytes());
        assert_eq!(stored.published().index, 3 + i64::try_from(id).expect("a number"));
    }
    for id in 1..=3 {
        let events = cluster.node(id).replay("app.x").events(6, SOON);
        let headers = events.iter().map(|event| event.json().get("headers").cloned());
        let both = Some(json!({ "tenant": "a", TRACE.0: TRACE.1 }));
        assert_eq!(headers.collect::<Vec<_>>(), [None, None, None, both.clone(), both.clone(), both], "node {id}");
    }
}
