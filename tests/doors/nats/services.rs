//! Responders of the services API of NATS as services of the roll. That every door calls them is in
//! `tests/doors/websocket/across.rs`.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::client::{Nats, address, options};
use super::responder::{Responder, call};
use crate::harness::examples::clients;
use crate::harness::http::Http;
use crate::harness::node::Node;
use crate::harness::{SOON, ms, wait_for};

/// The instances of a service, as REST shows them.
fn instances(node: &Node, service: &str) -> Vec<Value> {
    let answer = node.web("GET", &format!("/api/services/{service}"), "");
    answer.json()["instances"].as_array().cloned().unwrap_or_default()
}

fn until_registered(node: &Node, service: &str) -> Value {
    wait_for(service, SOON, || instances(node, service).first().cloned())
}

/// The status and the body of a call over REST.
fn post(node: &Node, target: &str, payload: &str) -> (u16, Value) {
    let answer = node.web("POST", &format!("/api/call/{target}"), payload);
    (answer.status, answer.json())
}

#[test]
fn a_responder_is_on_the_roll_for_as_long_as_its_subscription_lives() {
    let node = Node::start(&options());
    let mut responder = Responder::start(address(&node), "math", "I1", &["add"]);
    let instance = until_registered(&node, "math");
    assert_eq!(
        (&instance["id"], &instance["door"], &instance["version"]),
        (&json!("I1"), &json!("nats"), &json!("1.0.0"))
    );
    assert_eq!(instance["capabilities"][0]["actions"], json!(["add"]), "{instance}");
    // Other endpoints come and go.
    responder.client.send("SUB other 9\r\n");
    responder.tell();
    responder.client.send("UNSUB info.math.I1\r\n");
    wait_for("the end of the instance", SOON, || instances(&node, "math").is_empty().then_some(()));
    assert_eq!(call(address(&node), "math", "add", "1"), Err("no_provider".to_owned()));
    responder.client.flush();
}

#[test]
fn a_request_has_the_bytes_of_the_call_and_an_answer_may_be_any_bytes() {
    let node = Node::start(&options());
    let mut responder = Responder::start(address(&node), "any", "I1", &["get"]);
    until_registered(&node, "any");
    for (sent, got, said, answered) in [
        ("null", "", "text", json!("text")),
        ("{\"$base64\":\"aGkh\"}", "hi!", "", Value::Null),
        ("{\"a\": 1}", "{\"a\": 1}", "[1, 2]", json!([1, 2])),
        ("\"text\"", "\"text\"", "1.5", json!(1.5)),
    ] {
        std::thread::scope(|scope| {
            let asking = scope.spawn(|| post(&node, "any/get", sent));
            let request = responder.request();
            assert_eq!((&*request.payload, &*request.subject), (got, "any.get"));
            responder.client.publish(&request.reply.expect("a reply subject"), "", "", said);
            assert_eq!(asking.join().expect("no panic"), (200, answered), "{sent}");
        });
    }
    // An error with data.
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| post(&node, "any/get", "1"));
        let request = responder.request();
        let headers = "Nats-Service-Error: not there\r\nNats-Service-Error-Code: 404\r\n";
        responder.client.publish(&request.reply.expect("a reply subject"), "", headers, "{\"id\":7}");
        let error = json!({ "code": "404", "message": "not there", "data": { "id": 7 } });
        let (status, problem) = asking.join().expect("no panic");
        assert_eq!((status, &problem["error"]), (422, &error));
    });
    // No endpoint of that name; no answer in time; an answer that comes too late harms nobody.
    assert_eq!(post(&node, "any/other", "1").0, 503);
    let late = || {
        let headers = [("X-Rollbook-Timeout", "200ms")];
        Http::connect(node.web).request("POST", "/api/call/any/get", &headers, b"1").status
    };
    std::thread::scope(|scope| {
        let asking = scope.spawn(late);
        let request = responder.request();
        assert_eq!(asking.join().expect("no panic"), 504);
        responder.client.publish(&request.reply.expect("a reply subject"), "", "", "1");
        responder.client.flush();
    });
}

#[test]
fn a_connection_has_several_responders_and_each_gets_its_share() {
    let node = Node::start(&options());
    let mut first = Responder::start(address(&node), "many", "I1", &["get"]);
    let mut second = Responder::start(address(&node), "many", "I2", &["get"]);
    wait_for("both", SOON, || (instances(&node, "many").len() == 2).then_some(()));
    // What one connection offers beside.
    let client = Nats::connect_at(address(&node), "\"echo\":false");
    let more = Responder::start_as(client, "more", "I1", &["get"]);
    let mut more = Responder::start_as(more.client, "again", "I1", &["get"]);
    until_registered(&node, "more");
    until_registered(&node, "again");
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2).map(|_| scope.spawn(|| post(&node, "many/get", "1").0)).collect();
        first.serve_one(|payload| payload);
        second.serve_one(|payload| payload);
        asking.into_iter().for_each(|asking| assert_eq!(asking.join().expect("no panic"), 200));
        let asking = scope.spawn(|| post(&node, "more/get", "7"));
        assert_eq!(more.serve_one(|payload| payload).subject, "more.get");
        assert_eq!(asking.join().expect("no panic"), (200, json!(7)));
    });
    assert_eq!(node.actors("nats_service"), 4);
    drop(more);
    wait_for("the end of the responders", SOON, || (node.actors("nats_service") == 2).then_some(()));
}

#[test]
fn a_wrong_description_is_no_service_and_the_connection_goes_on() {
    let node = Node::start(&options());
    let mut client = Nats::connect(&node);
    for (turn, wrong) in ["", "{}", "[]", "\"x\"", &format!("\"{}\"", "x".repeat(300_000))].into_iter().enumerate() {
        client.send(&format!("SUB $SRV.INFO.bad.I{turn} info{turn}\r\n"));
        let asked = client.message();
        client.publish(&asked.reply.expect("a reply subject"), "", "", wrong);
    }
    client.flush();
    // Nobody else can describe a responder: its inbox has a name that nobody knows.
    let mut other = Nats::connect(&node);
    other.send("SUB $SRV.INFO.bad.I9 9\r\n");
    let inbox = other.message().reply.expect("a reply subject");
    assert!(inbox.len() > 40, "{inbox}");
    std::thread::sleep(ms(200));
    assert!(instances(&node, "bad").is_empty());
    client.flush();
}

#[test]
fn more_responders_than_a_connection_may_have_are_plain_subscriptions() {
    let node = Node::start(&options());
    let mut client = Nats::connect(&node);
    for turn in 0..70 {
        client.send(&format!("SUB $SRV.INFO.lots.I{turn} {turn}\r\n"));
    }
    client.flush_and_take();
    wait_for("the responders", SOON, || (node.actors("nats_service") == 64).then_some(()));
    client.send("PUB $SRV.INFO.lots.I69 0\r\n\r\n");
    wait_for("the message", SOON, || client.flush_and_take().iter().any(|message| message.sid == "69").then_some(()));
}

/// Runs the script of a stock client that serves, asks it by REST and NATS, and stops it.
fn stock(node: &Node, mut command: Command) {
    let mut program = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().expect("the client starts");
    let instance = until_registered(node, "calculator");
    assert_eq!(instance["version"], "1.2.3", "{instance}");
    wait_for("both endpoints", SOON, || {
        let actions = instances(node, "calculator").first()?["capabilities"][0]["actions"].clone();
        (actions.as_array()?.len() == 2).then_some(())
    });
    for turn in 1..=20 {
        assert_eq!(post(node, "calculator/double", &turn.to_string()), (200, json!(2 * turn)));
    }
    let (status, error) = post(node, "calculator/fail", "1");
    assert_eq!((status, &error["error"]["code"], &error["error"]["message"]), (422, &json!("418"), &json!("no tea")));
    assert_eq!(call(address(node), "calculator", "double", "21"), Ok(json!(42)));
    // The script ends with its input.
    drop(program.stdin.take());
    let ended = wait_for("the end of the client", SOON, || program.try_wait().expect("a child"));
    assert!(ended.success(), "{ended}");
    wait_for("the end of the instance", SOON, || instances(node, "calculator").is_empty().then_some(()));
}

#[test]
fn services_of_nats_py_are_called_by_other_doors() {
    let Some(clients) = clients() else { return };
    let node = Node::start(&options());
    let mut command = Command::new(clients.python());
    command.arg(clients.script("nats_service.py")).arg(format!("nats://{}", address(&node)));
    stock(&node, command);
}

#[test]
fn services_of_the_npm_package_are_called_by_other_doors() {
    let Some(clients) = clients() else { return };
    let node = Node::start(&options());
    let mut command = Command::new("node");
    command.arg(clients.script("nats_service.js")).arg(format!("nats://{}", address(&node)));
    command.env("NODE_PATH", clients.modules());
    stock(&node, command);
}

#[tokio::test(flavor = "multi_thread")]
async fn services_of_async_nats_are_called_by_other_doors() {
    use async_nats::service::ServiceExt as _;
    use futures_util::StreamExt as _;

    let node = Node::start(&options());
    let client = async_nats::connect(format!("nats://{}", address(&node))).await.expect("a connection");
    let service = client.service_builder().start("rusty", "1.2.3").await.expect("a service");
    let mut endpoint = service.endpoint("double").await.expect("an endpoint");
    let serving = tokio::spawn(async move {
        while let Some(request) = endpoint.next().await {
            let number: u64 = std::str::from_utf8(&request.message.payload).expect("text").parse().expect("a number");
            request.respond(Ok((2 * number).to_string().into())).await.expect("an answer");
        }
    });
    let (node, answer) = tokio::task::spawn_blocking(move || {
        until_registered(&node, "rusty");
        let answer = post(&node, "rusty/double", "21");
        (node, answer)
    })
    .await
    .expect("no panic");
    assert_eq!(answer, (200, json!(42)));
    serving.abort();
    // Its task has a handle of the connection: dropping ours ends nothing.
    service.stop().await.expect("an end");
    let gone = move || wait_for("the end", SOON, || instances(&node, "rusty").is_empty().then_some(()));
    tokio::task::spawn_blocking(gone).await.expect("no panic");
}
