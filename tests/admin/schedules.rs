//! Schedules: set, shown, changed, held, run and deleted; what they publish, and what is refused.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

const PATH: &str = "/api/schedules/beat";

fn set(node: &Node, body: &Value) -> Value {
    let answer = node.web("PUT", PATH, &body.to_string());
    assert_eq!(answer.status, 200, "{body}: {}", answer.text());
    answer.json()
}

fn shown(node: &Node) -> Value {
    node.web("GET", PATH, "").json()
}

#[test]
fn each_tick_is_one_event_that_says_which_tick_it_is() {
    let node = Node::start(&Options::new());
    let payload = r#"{"n":1.50,"big":12345678901234567890123}"#;
    let body = format!(r#"{{"subject":"app.beat","payload":{payload},"headers":{{"team":"billing"}},"every":"1s"}}"#);
    let answer = node.web("PUT", PATH, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.text().contains(payload), "numbers stay as they were written: {}", answer.text());
    let mut stream = node.replay("app.beat");
    let events = stream.events(3, SOON);
    assert!(events.iter().all(|event| event.text().contains(payload)), "{}", events[0].text());
    let ticks: Vec<String> = events
        .iter()
        .map(|event| {
            let event = event.json();
            assert_eq!(
                (&event["headers"]["team"], &event["headers"]["rollbook-schedule"]),
                (&json!("billing"), &json!("beat"))
            );
            let tick = event["headers"]["rollbook-tick"].as_str().expect("a tick").to_owned();
            assert_eq!(event["key"], format!("beat@{tick}"));
            assert!(tick.ends_with('Z') && !tick.contains('.'), "a whole second: {tick}");
            tick
        })
        .collect();
    assert_eq!(ticks.iter().collect::<BTreeSet<_>>().len(), 3, "{ticks:?}");
    let now = shown(&node);
    assert_eq!(now["next_ticks"].as_array().map(Vec::len), Some(5), "{now}");
    assert!(now["fired"].as_u64() >= Some(3) && now["failed"] == 0 && now["missed_ticks"] == 0, "{now}");
    assert_eq!((node.metric("rollbook_schedules"), node.metric("rollbook_schedules_next_seconds") > 1), (1, true));
    assert!(node.metric("rollbook_schedule_ticks_total{outcome=\"fired\"}") >= 3);
}

#[test]
fn a_schedule_survives_a_restart_and_its_ticks_while_the_node_was_down_are_made_up_for() {
    let mut node = Node::start(&Options::new());
    set(&node, &json!({ "subject": "app.beat", "every": "1s" }));
    let first = node.replay("app.beat").events(2, SOON);
    node.kill9();
    std::thread::sleep(ms(3000));
    node.restart();
    let ticks = |count: usize| -> Vec<u64> {
        let seconds = |text: &str| text.parse::<jiff::Timestamp>().expect("a time").as_second();
        let events = node.replay("app.beat").events(count, SOON);
        let of = |value: &Value| u64::try_from(seconds(value["headers"]["rollbook-tick"].as_str().unwrap_or_default()));
        events.iter().map(|event| of(&event.json()).expect("after 1970")).collect()
    };
    let all = ticks(first.len() + 5);
    assert!(all.windows(2).all(|pair| pair[1] == pair[0] + 1), "a tick is missing or came twice: {all:?}");
    assert_eq!(shown(&node)["missed_ticks"], 0, "ticks that are less than a minute late are not missed");
}

#[test]
fn a_schedule_that_is_held_publishes_nothing_and_goes_on_with_one_event_or_none_for_the_pause() {
    let node = Node::start(&Options::new());
    for (missed, events) in [("once", 1), ("skip", 0)] {
        let subject = format!("app.{missed}");
        set(&node, &json!({ "subject": subject, "every": "1s", "missed": missed }));
        let mut stream = node.replay(&subject);
        stream.events(1, SOON);
        let paused = node.web("PATCH", PATH, r#"{"paused":true}"#).json();
        assert_eq!(
            (&paused["paused"], &paused["next_tick"], &paused["next_ticks"]),
            (&json!(true), &Value::Null, &json!([]))
        );
        let missed_before = paused["missed_ticks"].as_u64().expect("a number");
        while stream.try_event(ms(1500)).is_some() {}
        std::thread::sleep(ms(2000));
        let resumed = node.web("PATCH", PATH, r#"{"paused":false}"#);
        assert_eq!(resumed.status, 200, "{}", resumed.text());
        let next = stream.next_event(SOON).json();
        let stands_for: Option<u64> = next["headers"]["rollbook-missed"].as_str().and_then(|count| count.parse().ok());
        assert_eq!(stands_for.is_some(), events == 1, "{next}");
        let missed_now = shown(&node)["missed_ticks"].as_u64().expect("a number") - missed_before;
        assert!(missed_now >= 2, "{missed_now} of the pause");
        assert!(stands_for.is_none_or(|count| count == missed_now), "{next}: {missed_now}");
        // The ticks behind the pause have events of their own.
        assert_eq!(stream.next_event(SOON).json()["headers"]["rollbook-missed"], Value::Null);
        assert_eq!(node.web("DELETE", PATH, "").status, 204);
    }
}

#[test]
fn a_run_is_one_event_that_is_no_tick() {
    let node = Node::start(&Options::new());
    set(&node, &json!({ "subject": "app.run", "payload": { "n": 1 }, "cron": "0 0 29 2 *", "paused": true }));
    let before = shown(&node);
    let ran = node.web("POST", &format!("{PATH}/run"), "");
    assert_eq!(ran.status, 200, "{}", ran.text());
    let event = node.replay("app.run").next_event(SOON);
    assert_eq!((event.event_id(), event.index()), (ran.json()["id"].as_str().unwrap_or_default().to_owned(), 1));
    let event = event.json();
    assert_eq!((&event["headers"], &event["payload"]), (&json!({ "rollbook-schedule": "beat" }), &json!({ "n": 1 })));
    assert_eq!(event["key"], Value::Null);
    assert_eq!(shown(&node), before, "it counts as nothing");
    assert_eq!(node.web("POST", "/api/schedules/none/run", "").json()["code"], "schedule_not_found");
}

#[test]
fn changes_are_conditional_and_keep_what_they_do_not_name() {
    let node = Node::start(&Options::new());
    let body = json!({ "subject": "app.x", "payload": { "a": 1 }, "headers": { "h": ["1", "2"] }, "cron": "0 3 * * *", "time_zone": "Europe/Berlin", "jitter": "90s", "missed": "skip" });
    let put = |condition: (&str, &str)| node.web_with("PUT", PATH, &[condition], &body.to_string());
    assert_eq!(put(("if-match", "*")).status, 412, "there is none yet");
    let made = put(("if-none-match", "*"));
    assert_eq!(made.status, 200, "{}", made.text());
    assert_eq!(put(("if-none-match", "*")).status, 412);
    let tag = made.header("etag").expect("an ETag").to_owned();
    assert_eq!(node.web_with("GET", PATH, &[("if-none-match", &tag)], "").status, 304);
    for (name, value) in body.as_object().expect("an object") {
        let expected = if name == "jitter" { &json!("1m30s") } else { value };
        assert_eq!(&made.json()[name], expected, "{name}");
    }
    let patch = |body: &Value| node.web_with("PATCH", PATH, &[("if-match", &tag)], &body.to_string());
    let changed = patch(&json!({ "payload": { "b": 2 }, "headers": { "h": null, "g": "x" }, "jitter": null }));
    assert_eq!(changed.status, 200, "{}", changed.text());
    let now = changed.json();
    assert_eq!(
        (&now["payload"], &now["headers"], &now["jitter"]),
        (&json!({ "a": 1, "b": 2 }), &json!({ "g": ["x"] }), &json!("0s"))
    );
    assert_eq!(
        (&now["cron"], &now["time_zone"], &now["next_tick"]),
        (&json!("0 3 * * *"), &json!("Europe/Berlin"), &made.json()["next_tick"])
    );
    assert_eq!(patch(&json!({ "paused": true })).status, 412, "somebody was faster");
    let other = node.web("PATCH", PATH, r#"{"cron":null,"time_zone":null,"every":"1h"}"#);
    assert_eq!((other.status, &other.json()["every"]), (200, &json!("1h")), "{}", other.text());
    let list = node.web("GET", "/api/schedules", "").json();
    assert_eq!((&list["items"][0]["name"], &list["items"][0]["payload"]), (&json!("beat"), &Value::Null));
    assert_eq!(node.web_with("DELETE", PATH, &[("if-match", &tag)], "").status, 412);
    assert_eq!(node.web("DELETE", PATH, "").status, 204);
    for (method, body) in [("GET", ""), ("DELETE", ""), ("PATCH", "{}")] {
        let gone = node.web(method, PATH, body);
        assert_eq!((gone.status, gone.json()["code"].clone()), (404, json!("schedule_not_found")), "{method}");
    }
}

#[test]
fn what_cannot_be_a_schedule_is_refused_with_what_is_wrong() {
    let node = Node::start(&Options::namespaces("app"));
    let long = "x".repeat(70_000);
    for (body, text) in [
        (json!({ "every": "1s" }), "subject"),
        (json!({ "subject": "app.x" }), "either cron or every"),
        (json!({ "subject": "app.x", "cron": "@daily", "every": "1s" }), "either cron or every"),
        (json!({ "subject": "app.x", "every": "999ms" }), "every: from 1s"),
        (json!({ "subject": "app.x", "every": "9000h" }), "every: from 1s"),
        (json!({ "subject": "app.x", "cron": "0 0 30 2 *" }), "matches no day"),
        (json!({ "subject": "app.x", "cron": "61 * * * *" }), "in the field minute"),
        (json!({ "subject": "app.x", "cron": "* * *" }), "5 fields"),
        (json!({ "subject": "app.x", "cron": "@daily", "time_zone": "Mars/Base" }), "time_zone"),
        (json!({ "subject": "app.x", "cron": "@daily", "time_zone": "../../etc/passwd" }), "time_zone"),
        (json!({ "subject": "app.x", "cron": "@daily", "jitter": "25h" }), "jitter: at most 24h"),
        (json!({ "subject": "app.x", "cron": "@daily", "missed": "all" }), "missed"),
        (json!({ "subject": "app.x", "cron": "@daily", "headers": { "a": "b\nc" } }), "line break"),
        (json!({ "subject": "app.x", "cron": "@daily", "headers": { "Rollbook-Tick": "x" } }), "one that the bus adds"),
        (json!({ "subject": "app.x", "cron": "@daily", "payload": long }), "payload: at most"),
        (json!({ "subject": "app.*", "cron": "@daily" }), "subject"),
        (json!({ "subject": "roll.x", "cron": "@daily" }), "reserved"),
        (json!({ "subject": "_bus_.x", "cron": "@daily" }), "namespace"),
        (json!({ "subject": "other.x", "cron": "@daily" }), "namespace not found"),
        (json!({ "subject": "app.x", "cron": "@daily", "next_tick": "now" }), "next_tick"),
    ] {
        let refused = node.web("PUT", PATH, &body.to_string());
        assert!(
            matches!(refused.status, 400 | 409) && refused.text().contains(text),
            "{body}: {} {}",
            refused.status,
            refused.text()
        );
    }
    for name in ["a%20b", "a%2Fb", &"x".repeat(65), "%00"] {
        let refused = node.web("PUT", &format!("/api/schedules/{name}"), r#"{"subject":"app.x","cron":"@daily"}"#);
        assert!((400..500).contains(&refused.status), "{name}: {}", refused.text());
    }
    assert_eq!(node.web("GET", "/api/schedules", "").json()["items"], json!([]));
}

#[test]
fn a_schedule_whose_event_is_refused_says_why_and_goes_on() {
    let node = Node::start(&Options::namespaces("app"));
    assert_eq!(node.web("POST", "/api/namespaces", r#"{"name":"made"}"#).status, 201);
    set(&node, &json!({ "subject": "made.x", "every": "1s" }));
    node.replay("made.x").events(1, SOON);
    assert_eq!(node.web("DELETE", "/api/namespaces/made", "").status, 204);
    let failed =
        wait_for("a refused event", SOON, || Some(shown(&node)).filter(|now| now["failed"].as_u64() >= Some(2)));
    assert_eq!(failed["last_failure"], "namespace not found: made", "{failed}");
    assert_eq!(node.web("POST", "/api/namespaces", r#"{"name":"made"}"#).status, 201);
    node.subscribe(&[("subject", "made.x"), ("start", "newest")]).events(1, SOON);
}
