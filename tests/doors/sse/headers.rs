//! Headers of events: how each door takes them, and that they go wherever their event goes.

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::node::{Node, Options, rollbook, run_command};
use crate::harness::socket::Socket;
use crate::harness::sse::Frame;
use crate::harness::{SOON, ms};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn headers_of(events: &[Frame]) -> Vec<Value> {
    events.iter().map(|event| event.json().get("headers").cloned().unwrap_or_default()).collect()
}

#[test]
fn headers_come_with_an_event_in_their_order_and_without_any_there_is_no_member() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!(
        "{{\"subject\":\"{ns}.x\",\"headers\":{{\"Tenant\":\"a\",\"tag\":[\"1\",\"2\"],\"TENANT\":\"ü\"}},\"payload\":1}}"
    );
    node.post(body).published();
    node.publish(&format!("{ns}.x"), "2");
    let batch = format!(
        "[{{\"subject\":\"{ns}.x\",\"headers\":{{\"n\":\"3\"}}}},{{\"subject\":\"{ns}.x\",\"headers\":{{}}}},{{\"subject\":\"{ns}.x\",\"headers\":null}}]"
    );
    assert_eq!(node.post(batch).status, 202);
    let events = node.replay(&format!("{ns}.x")).events(5, SOON);
    assert!(
        events[0].text().contains(r#","headers":{"Tenant":["a","ü"],"tag":["1","2"]},"payload":1,"#),
        "{}",
        events[0].text()
    );
    let all = headers_of(&events);
    assert_eq!(all[1..], [Value::Null, json!({ "n": "3" }), Value::Null, Value::Null]);
    assert!(!events[1].text().contains("headers"));
}

#[test]
fn headers_of_a_request_are_for_all_its_events_that_have_none_of_the_name() {
    let node = Node::shared();
    let ns = node.namespace();
    let state = format!("a={}", "x".repeat(600));
    let common = [
        ("Bus-Header-Tenant", "acme"),
        ("bus-header-tag", "1"),
        ("BUS-HEADER-TAG", "2 é"),
        ("traceparent", TRACE),
        ("tracestate", "a=b"),
        ("Tracestate", "c=d"),
    ];
    let batch = format!(
        "[{{\"subject\":\"{ns}.x\"}},{{\"subject\":\"{ns}.x\",\"headers\":{{\"TENANT\":\"own\",\"traceparent\":\"mine\"}}}}]"
    );
    assert_eq!(node.http().request("POST", "/", &common, batch.as_bytes()).status, 202);
    let single = format!("{{\"subject\":\"{ns}.x\"}}");
    for list in [
        &[("traceparent", "nonsense"), ("tracestate", "a=b")][..],
        &[("tracestate", "a=b")],
        &[("traceparent", TRACE), ("tracestate", state.as_str())],
    ] {
        assert_eq!(node.http().request("POST", "/", list, single.as_bytes()).status, 202);
    }
    let all = headers_of(&node.replay(&format!("{ns}.x")).events(5, SOON));
    let trace = json!({ "traceparent": TRACE });
    let wanted = [
        json!({ "tenant": "acme", "tag": ["1", "2 é"], "traceparent": TRACE, "tracestate": "a=b,c=d" }),
        json!({ "TENANT": "own", "traceparent": "mine", "tag": ["1", "2 é"] }),
        Value::Null,
        Value::Null,
        trace,
    ];
    assert_eq!(all, wanted);
}

#[test]
fn headers_that_cannot_be_are_refused_and_nothing_is_stored() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = |headers: &str| format!("{{\"subject\":\"{ns}.x\",\"headers\":{headers}}}");
    let many: Vec<String> = (0..65).map(|n| format!("\"h{n}\":\"\"")).collect();
    for headers in [
        "7".to_owned(),
        "[]".to_owned(),
        "{\"a\":7}".to_owned(),
        "{\"a b\":\"x\"}".to_owned(),
        "{\"a\":\"x\\ny\"}".to_owned(),
        format!("{{{}}}", many.join(",")),
        format!("{{\"a\":\"{}\"}}", "x".repeat(8192)),
    ] {
        let answer = node.post(body(&headers));
        assert_eq!(answer.status, 400, "{headers}");
        assert!(answer.text().starts_with("invalid headers: "), "{}", answer.text());
        let answer = node.post(format!("[{}]", body(&headers)));
        assert_eq!(answer.status, 400, "{headers}");
        assert!(answer.text().starts_with("invalid batch: "), "{}", answer.text());
    }
    let long = "x".repeat(5000);
    let own = body(&format!("{{\"a\":\"{long}\"}}"));
    let answer = node.http().request("POST", "/", &[("Bus-Header-b", &long)], own.as_bytes());
    assert_eq!((answer.status, answer.text().starts_with("invalid headers: ")), (400, true), "{}", answer.text());
    // A small body of many events does not become a large one.
    let items = vec![format!("{{\"subject\":\"{ns}.x\"}}"); 20_000].join(",");
    let answer = node.http().request("POST", "/", &[("Bus-Header-b", &long)], format!("[{items}]").as_bytes());
    assert_eq!((answer.status, answer.text().starts_with("request body too large")), (413, true), "{}", answer.text());
    assert_eq!(node.publish(&format!("{ns}.x"), "1").index, 1);
}

#[test]
fn headers_go_along_with_messages_of_inboxes_redeliveries_and_dead_letters() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut inbox = node.subscribe(&[("subject", &format!("_bus_.{ns}"))]);
    let letter = |subject: &str| format!("{{\"subject\":\"{subject}\",\"headers\":{{\"a\":[\"1\",\"2\"]}}}}");
    node.post(letter(&format!("_bus_.{ns}"))).published();
    let wanted = json!({ "a": ["1", "2"] });
    assert_eq!(inbox.next_event(SOON).json()["headers"], wanted);
    let subject = format!("{ns}.x");
    node.post(letter(&subject)).published();
    let query = [
        ("subject", subject.as_str()),
        ("start", "oldest"),
        ("ack", "manual"),
        ("redelivery", "100ms"),
        ("redelivery_count", "2"),
        ("consumer", "c"),
    ];
    let mut stream = node.subscribe(&query);
    assert_eq!(headers_of(&stream.events(2, SOON)), [wanted.clone(), wanted.clone()]);
    stream.quiet(ms(300));
    let dead = node.replay(&format!("_dead_.{ns}.**")).next_event(SOON).json();
    assert_eq!((&dead["payload"]["event"]["headers"], dead.get("headers")), (&wanted, None));
}

#[test]
fn headers_come_in_and_go_out_by_both_doors_for_sockets() {
    let node = Node::start(&Options::new());
    let client = Socket::consumer(node.web, "client");
    let frame =
        |id: &str, headers: Value| json!({ "type": "publish", "id": id, "subject": "app.x", "headers": headers });
    client.send(&frame("p1", json!({ "Tenant": ["a", "b"], "n": "1" })));
    assert_eq!(client.next("published")["id"], "p1");
    client.send(&frame("p2", json!({ "n": 1 })));
    let refused = client.next("error");
    assert_eq!((&refused["id"], &refused["code"]), (&json!("p2"), &json!("bad_message")), "{refused}");
    assert!(refused["message"].as_str().is_some_and(|text| text.starts_with("headers: ")), "{refused}");
    let bus = BusClient::connect(node.web);
    bus.register("shop", &[]);
    let published = bus.ask("book:publish", &json!({ "subject": "app.x", "headers": { "n": "2" } }));
    assert_eq!(published["index"], 2, "{published}");
    let refused = bus.ask("book:publish", &json!({ "subject": "app.x", "headers": { "a b": "2" } }));
    assert_eq!(refused["error"]["code"], "bad_request", "{refused}");
    client.send(&json!({ "type": "subscribe", "id": "s", "subject": "app.>", "start": "oldest" }));
    let delivered: Vec<Value> = (0..2).map(|_| client.next("delivery")["event"]["headers"].clone()).collect();
    assert_eq!(delivered, [json!({ "Tenant": ["a", "b"], "n": "1" }), json!({ "n": "2" })]);
}

#[test]
fn the_command_line_publishes_shows_dumps_and_restores_headers() {
    let node = Node::start(&Options::new());
    let run = |node: &Node, args: &[&str], input: &str| {
        let mut command = rollbook();
        command.args(args).args(["--log-url", &format!("http://{}", node.log)]);
        command.args(["--web-url", &format!("http://{}", node.web)]);
        let exit = run_command(command, input.as_bytes(), SOON);
        assert_eq!(exit.code, Some(0), "{args:?}: {}", exit.stderr);
        exit.stdout
    };
    run(&node, &["publish", "app.x", "1", "-H", "Tenant: acme", "--header", "tag:1", "-H", "tag: 2"], "");
    let seen = run(&node, &["subscribe", "app.>", "--start", "oldest", "--count", "1"], "");
    let event: Value = serde_json::from_str(&seen).expect("JSON");
    assert_eq!(event["headers"], json!({ "Tenant": "acme", "tag": ["1", "2"] }));
    let quotes = "\\\"".repeat(4000);
    node.post(format!("{{\"subject\":\"app.y\",\"headers\":{{\"q\":\"{quotes}\"}}}}")).published();
    let dump = run(&node, &["dump", "app"], "");
    let other = Node::start(&Options::new());
    run(&other, &["restore"], &dump);
    assert!(run(&other, &["dump", "app"], "") == dump, "the same headers, in the same order");
}
