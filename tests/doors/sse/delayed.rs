//! Events that wait for their time: `delay` and `at`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::http::Response;
use crate::harness::node::{Node, Options};
use crate::harness::sse::Frame;
use crate::harness::{SOON, ms, report, wait_for};

/// The id under which an event waits, of the answer to its publish.
fn waits(response: &Response) -> String {
    assert_eq!(response.status, 202, "{}", response.text());
    assert!(response.header("x-bus-delayed-until").is_some_and(|time| time.ends_with('Z')), "{}", response.text());
    assert!(response.header("x-bus-event-id").is_none() && response.header("x-bus-event-index").is_none());
    response.header("x-bus-delayed-id").expect("an id").to_owned()
}

fn listed(node: &Node, namespace: &str) -> Vec<Value> {
    let answer = node.web("GET", &format!("/api/delayed?namespace={namespace}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["items"].as_array().expect("a list").clone()
}

/// An array of events that wait for so long, with the numbers of `range` as payloads.
fn batch(subject: &str, delay: &str, range: std::ops::Range<u32>) -> String {
    let events: Vec<Value> =
        range.map(|number| json!({ "subject": subject, "delay": delay, "payload": number })).collect();
    Value::from(events).to_string()
}

#[test]
fn an_event_is_not_there_before_its_time_and_there_from_then_on() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let mut stream = node.subscribe(&[("subject", &format!("{ns}.>")), ("start", "oldest")]);
    let began = Instant::now();
    let id = waits(&node.post(json!({ "subject": subject, "delay": "1s", "payload": 7 }).to_string()));
    assert_eq!(node.publish(&subject, "1").index, 1, "the waiting event has no index");
    let first = stream.next_event(SOON);
    assert_eq!(first.payload(), 1);
    let items = listed(&node, &ns);
    assert_eq!((items.len(), &items[0]["id"], &items[0]["subject"]), (1, &json!(id), &json!(subject)));
    assert!(items[0]["bytes"].as_u64().is_some_and(|bytes| bytes > 20) && items[0]["namespace"] == ns.as_str());
    assert_eq!(node.web("GET", &format!("/api/namespaces/{ns}"), "").json()["events"], 1);
    let event = stream.next_event(SOON);
    assert!(began.elapsed() >= ms(999), "early, after {:?}", began.elapsed());
    assert_eq!((event.payload(), event.index()), (json!(7), 2));
    let created_at = |event: &Frame| event.json()["created_at"].as_str().expect("a time").to_owned();
    // Nearly a second lies between them, so the texts sort as the times.
    assert!(created_at(&event) > created_at(&first), "its time is that at which it was due");
    assert!(listed(&node, &ns).is_empty());
    stream.quiet(ms(300));
}

#[test]
fn an_array_waits_as_one_and_a_time_that_has_come_is_now() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let past = json!({ "subject": subject, "at": "2001-01-01T00:00:00Z", "payload": 1 }).to_string();
    let published = node.post(past).published();
    assert_eq!(published.index, 1);
    assert_eq!(node.post(json!({ "subject": subject, "delay": "0s" }).to_string()).published().index, 2);
    assert_eq!(node.post(json!({ "subject": subject, "delay": null, "at": null }).to_string()).published().index, 3);
    waits(&node.post(batch(&subject, "300ms", 0..50)));
    let events = node.subscribe(&[("subject", &format!("{ns}.>")), ("start", "oldest")]).events(53, SOON);
    let payloads: Vec<i64> = events[3..].iter().filter_map(|event| event.payload().as_i64()).collect();
    assert!(payloads.into_iter().eq(0..50), "in their order");
}

#[test]
fn a_request_may_say_for_all_its_events_how_long_they_wait() {
    let node = Node::shared();
    let ns = node.namespace();
    let post = |target: &str, headers: &[(&str, &str)], body: &str| {
        node.http().request("POST", target, headers, body.as_bytes())
    };
    let cloud = format!(r#"{{"specversion":"1.0","id":"a","source":"/s","type":"{ns}.made","data":1}}"#);
    let kind = [("Content-Type", "application/cloudevents+json")];
    let target = format!("/?subject={ns}.made&delay=1h");
    let id = waits(&post(&target, &kind, &cloud));
    let own = json!([{ "subject": format!("{ns}.x"), "delay": "2h" }, { "subject": format!("{ns}.x"), "delay": "2h" }]);
    waits(&post("/?delay=1h", &[], &own.to_string()));
    let items = listed(&node, &ns);
    assert_eq!((items.len(), &items[0]["id"]), (3, &json!(id)));
    assert!(items[1]["due"].as_str() > items[0]["due"].as_str(), "what an event says itself comes first");
}

#[test]
fn a_wait_that_cannot_be_is_refused_and_says_why() {
    let node = Node::shared();
    let ns = node.namespace();
    let of = |more: &str| format!(r#"{{"subject":"{ns}.x",{more}}}"#);
    let rows = [
        (of(r#""delay":"1s","at":"2030-01-01T00:00:00Z""#), "delay and at: only one of them"),
        (of(r#""delay":"soon""#), "invalid delay"),
        (of(r#""delay":"-1s""#), "invalid delay"),
        (of(r#""at":"tomorrow""#), "invalid at: not a time of RFC 3339"),
        (of(r#""at":7"#), "expected string"),
        (of(r#""delay":"8785h""#), "an event waits for 366 days at most"),
        (of(r#""at":"9999-01-01T00:00:00Z""#), "an event waits for 366 days at most"),
        (r#"{"subject":"_bus_.x","delay":"1s"}"#.to_owned(), "cannot wait"),
        (
            format!(r#"[{{"subject":"{ns}.x","delay":"1s"}},{{"subject":"{ns}.x","delay":"2s"}}]"#),
            "all events in batch must wait for the same time; item 2 of the array",
        ),
        (
            format!(r#"[{{"subject":"{ns}.x"}},{{"subject":"{ns}.x","delay":"2s"}}]"#),
            "all events in batch must wait for the same time; item 2 of the array",
        ),
    ];
    let mut failures = Vec::new();
    for (body, text) in rows {
        let answer = node.post(&body);
        if answer.status != 400 || !answer.text().contains(text) {
            failures.push(format!("{body}: {} {}", answer.status, answer.text()));
        }
    }
    report("waits", &failures);
    let restored = node.http().request("POST", "/?restore=true", &[], of(r#""delay":"1s""#).as_bytes());
    assert_eq!(restored.status, 400, "{}", restored.text());
    for query in ["delay=x", "delay=1s&at=2030-01-01T00:00:00Z", "at=x"] {
        let answer = node.http().request("POST", &format!("/?{query}"), &[], of(r#""payload":1"#).as_bytes());
        assert_eq!(answer.status, 400, "{query}: {}", answer.text());
    }
    assert!(listed(&node, &ns).is_empty());
}

#[test]
fn a_waiting_event_can_be_cancelled_and_its_key_tells_of_it() {
    let node = Node::shared();
    let ns = node.namespace();
    let keyed = json!({ "subject": format!("{ns}.x"), "key": "k", "id": "order-1", "delay": "1h" }).to_string();
    let id = waits(&node.post(&keyed));
    for body in [keyed.clone(), json!({ "subject": format!("{ns}.x"), "key": "k" }).to_string()] {
        let again = node.post(body);
        assert_eq!((again.status, again.header("x-bus-delayed-id")), (409, Some(id.as_str())), "{}", again.text());
        assert!(again.header("x-bus-delayed-until").is_some() && again.header("x-bus-event-id").is_none());
    }
    let named = node.post(json!({ "subject": format!("{ns}.y"), "id": "order-1" }).to_string());
    assert_eq!((named.status, named.header("x-bus-delayed-id")), (409, Some(id.as_str())), "{}", named.text());
    let target = format!("/api/delayed/{id}");
    assert_eq!(node.web("DELETE", &target, "").status, 204);
    for target in [target.as_str(), "/api/delayed/d_1_2_3", "/api/delayed/x"] {
        let gone = node.web("DELETE", target, "");
        assert_eq!((gone.status, &gone.json()["code"]), (404, &json!("delayed_not_found")), "{target}");
    }
    let again = waits(&node.post(&keyed));
    assert_ne!(again, id, "key and id are free again");
}

#[test]
fn the_list_has_pages_in_the_order_of_the_times() {
    let node = Node::shared();
    let ns = node.namespace();
    for hours in [3, 1, 2] {
        waits(&node.post(batch(&format!("{ns}.h{hours}"), &format!("{hours}h"), 0..40)));
    }
    let (mut cursor, mut seen) = (String::new(), Vec::new());
    loop {
        let page = node.web("GET", &format!("/api/delayed?namespace={ns}&limit=50{cursor}"), "").json();
        seen.extend(page["items"].as_array().expect("items").iter().cloned());
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    let subjects: Vec<&str> = seen.iter().filter_map(|item| item["subject"].as_str()).collect();
    let wanted: Vec<String> = [1, 2, 3].iter().flat_map(|hours| vec![format!("{ns}.h{hours}"); 40]).collect();
    assert_eq!(subjects, wanted);
    let ids: BTreeSet<&str> = seen.iter().filter_map(|item| item["id"].as_str()).collect();
    assert_eq!(ids.len(), 120);
    assert!(node.metric("rollbook_delayed_events") >= 120 && node.metric("rollbook_delayed_bytes") >= 120 * 20);
    assert_eq!(node.web("DELETE", &format!("/api/namespaces/{ns}"), "").status, 204);
    assert!(node.metric("rollbook_delayed_dropped_total") >= 120);
}

#[test]
fn what_waits_is_there_after_a_kill_and_comes_once() {
    let mut node = Node::start(&Options::new());
    waits(&node.post(batch("app.early", "1500ms", 0..200)));
    waits(&node.post(batch("app.late", "1h", 0..10)));
    waits(&node.post(batch("app.gone", "500ms", 200..300)));
    wait_for("the first are due", SOON, || (listed(&node, "app").len() <= 210).then_some(()));
    node.kill9();
    node.restart();
    let mut stream = node.replay("app.>");
    let events = stream.events(300, SOON);
    let numbers: BTreeSet<i64> = events.iter().filter_map(|event| event.payload().as_i64()).collect();
    assert!(numbers.into_iter().eq(0..300));
    stream.quiet(ms(200));
    assert_eq!(listed(&node, "app").len(), 10);
    node.terminate();
    node.restart();
    assert_eq!(listed(&node, "app").len(), 10);
    assert_eq!(node.replay("app.>").events(300, SOON).len(), 300);
}

#[test]
fn ten_thousand_events_of_one_moment_leave_at_once() {
    let node = Node::start(&Options::new());
    let began = Instant::now();
    let wait = ms(4000);
    let mut last = began;
    for part in 0..10 {
        last = Instant::now();
        let left = wait.saturating_sub(began.elapsed()).as_millis();
        waits(&node.post(batch("app.x", &format!("{left}ms"), part * 1000..(part + 1) * 1000)));
    }
    assert!(began.elapsed() < wait, "they were not published in time: {:?}", began.elapsed());
    let mut stream = node.subscribe(&[("subject", "app.>"), ("start", "oldest")]);
    let events = stream.events(10_000, Duration::from_secs(30));
    let took = began.elapsed().saturating_sub(wait);
    assert!(began.elapsed() >= wait.saturating_sub(last.elapsed()), "early");
    // Within one second with a release build; this one is slower, and its machine has other things to do.
    assert!(took < Duration::from_secs(8), "the last of them came {took:?} after their time");
    let numbers: BTreeSet<i64> = events.iter().filter_map(|event| event.payload().as_i64()).collect();
    assert_eq!(numbers.len(), 10_000);
    stream.quiet(ms(200));
}
