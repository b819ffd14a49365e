//! Requests between services, and every way in which they end.

use std::collections::HashMap;
use std::time::Instant;

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::http::{self, Http};
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

fn code(answer: &Value) -> &str {
    assert_eq!(answer["success"], false, "{answer}");
    answer["error"]["code"].as_str().unwrap_or_default()
}

#[test]
fn a_request_reaches_a_provider_and_its_response_comes_back() {
    let node = Node::start(&Options::new());
    let (provider, caller) = (BusClient::connect(node.web), BusClient::connect(node.web));
    provider.register("users_svc", &["users"]);
    let instance = caller.register("orders", &[]);
    // Without an acknowledgement: by an event.
    let request = json!({ "requestId": "r1", "capability": "users", "action": "get", "payload": { "id": 7 } });
    caller.emit("bus:request", &request);
    let asked = provider.event("bus:request");
    let got = &asked.args[0];
    assert_eq!((&got["requestId"], &got["capability"], &got["action"]), (&json!("r1"), &json!("users"), &json!("get")));
    assert_eq!(got["payload"], json!({ "id": 7 }));
    assert_eq!(got["from"], json!({ "service": "orders", "instance": instance }));
    assert!(got["timeout"].as_u64().is_some_and(|left| (29_000..=30_000).contains(&left)), "{got}");
    let response = json!({ "requestId": "r1", "success": true, "data": { "name": "Ñandú" } });
    assert_eq!(provider.ask("bus:response", &response), json!({ "success": true }));
    assert_eq!(caller.event("bus:response").args, [response]);
    // With one: by the acknowledgement, and by nothing else.
    let id = caller.begin("bus:request", &json!({ "requestId": "r2", "capability": "users" }));
    let asked = provider.event("bus:request");
    assert_eq!(asked.args[0]["requestId"], "r2");
    let no = json!({ "requestId": "r2", "success": false, "error": { "code": "E7", "message": "no" } });
    provider.emit("bus:response", &no);
    assert_eq!(caller.acked(id), no);
    // The provider may acknowledge in place of a response.
    let id = caller.begin("bus:request", &json!({ "capability": "users" }));
    let asked = provider.event("bus:request");
    provider.ack(asked.ack.expect("a number"), &json!({ "success": true, "data": 3 }));
    assert_eq!(caller.acked(id)["data"], 3);
    assert!(!caller.hears("bus:response", ms(100)));
}

#[test]
fn a_service_is_reached_by_its_id_too_and_a_capability_comes_first() {
    let node = Node::start(&Options::new());
    let (one, two, caller) = (BusClient::connect(node.web), BusClient::connect(node.web), BusClient::connect(node.web));
    one.register("mail", &[]);
    let id = caller.begin("bus:request", &json!({ "capability": "mail" }));
    one.serve_one(|_| json!("by id"));
    assert_eq!(caller.acked(id)["data"], "by id");
    two.register("smtp", &["mail"]);
    let id = caller.begin("bus:request", &json!({ "capability": "mail" }));
    two.serve_one(|_| json!("by capability"));
    assert_eq!(caller.acked(id)["data"], "by capability");
}

#[test]
fn every_way_to_fail_has_its_own_code() {
    let options = Options::new().env("ROLLBOOK_CALLS__IN_FLIGHT_PER_INSTANCE", "2");
    let node = Node::start(&options);
    let (provider, caller) = (BusClient::connect(node.web), BusClient::connect(node.web));
    let began = Instant::now();
    assert_eq!(code(&caller.request("nobody", &json!(1))), "no_provider");
    assert!(began.elapsed() < ms(500), "at once: {:?}", began.elapsed());
    let register = json!({ "id": "svc", "capabilities": [{ "name": "work", "actions": ["do", "rest"] }] });
    provider.ask("bus:register", &register);
    let request = |action: &str, more: Value| {
        let mut request = json!({ "capability": "work", "action": action });
        request.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        caller.begin("bus:request", &request)
    };
    assert_eq!(code(&caller.acked(request("fly", json!({})))), "no_provider", "nobody offers that action");
    assert_eq!(code(&caller.acked(request("do", json!({ "timeout": 100 })))), "deadline_exceeded");
    // Late: dropped and counted, and the provider is told.
    let asked = provider.event("bus:request");
    let late = json!({ "requestId": asked.args[0]["requestId"], "success": true });
    assert_eq!(code(&provider.ask("bus:response", &late)), "deadline_exceeded");
    let metrics = node.web("GET", "/metrics", "").text();
    assert!(metrics.contains("rollbook_answers_late_total 1"), "{metrics}");
    assert!(metrics.contains("rollbook_requests_total{outcome=\"deadline_exceeded\"} 1"), "{metrics}");
    // Too much.
    let waiting = [request("do", json!({})), request("do", json!({}))];
    assert_eq!(code(&caller.acked(request("do", json!({})))), "overloaded");
    // The provider goes.
    drop(provider);
    for id in waiting {
        assert_eq!(code(&caller.acked(id)), "provider_lost");
    }
    for wrong in [
        json!(1),
        json!([]),
        json!({}),
        json!({ "capability": "" }),
        json!({ "capability": 7 }),
        json!({ "capability": "x".repeat(129) }),
        json!({ "capability": "work", "action": "x".repeat(129) }),
        json!({ "capability": "work", "timeout": 0 }),
        json!({ "capability": "work", "timeout": "1s" }),
        json!({ "capability": "work", "retries": 9 }),
        json!({ "capability": "work", "requestId": "" }),
        json!({ "capability": "work", "requestId": "x".repeat(1000) }),
    ] {
        assert_eq!(code(&caller.ask("bus:request", &wrong)), "bad_request", "{wrong}");
    }
    caller.emit("bus:request", &json!({ "requestId": "r9", "capability": 7 }));
    let told = caller.event("bus:response");
    assert_eq!((&told.args[0]["requestId"], code(&told.args[0])), (&json!("r9"), "bad_request"));
}

#[test]
fn requests_end_with_whoever_asked() {
    let options = Options::new().env("ROLLBOOK_CALLS__IN_FLIGHT_MAX", "80");
    let node = Node::start(&options);
    let provider = BusClient::connect(node.web);
    provider.register("svc", &["work"]);
    let request = |n: usize| json!({ "requestId": format!("r{n}"), "capability": "work", "timeout": 600_000 });
    let in_flight = || node.web("GET", "/api/stats", "").json()["requests"]["in_flight"].clone();
    // Ten times over: what a client leaves behind does not count against those who come.
    for _ in 0..10 {
        let caller = BusClient::connect(node.web);
        (0..10).for_each(|n| caller.emit("bus:request", &request(n)));
        let asked: Vec<String> =
            (0..10).map(|_| provider.event("bus:request").args[0]["requestId"].to_string()).collect();
        assert_eq!(in_flight(), 10);
        let more = caller.ask("bus:request", &request(10));
        assert_eq!((code(&more), asked.len()), ("overloaded", 10), "an eighth for each client");
        drop(caller);
        wait_for("the requests to end", SOON, || (in_flight() == 0).then_some(()));
        for id in asked {
            let response = format!("{{\"requestId\":{id},\"success\":true}}");
            let response: Value = serde_json::from_str(&response).expect("JSON");
            assert_eq!(code(&provider.ask("bus:response", &response)), "cancelled");
        }
    }
    // Over HTTP the connection is the caller, who goes when it breaks; one that only says nothing more may still read.
    let mut http = Http::connect(node.web);
    let headers = [("Content-Type", "application/json"), ("Content-Length", "1"), ("X-Rollbook-Timeout", "10m")];
    let call = [http::head("POST", "/api/call/work/do", &headers), b"\r\n1".to_vec()].concat();
    http.send(&call).expect("a call");
    let asked = provider.event("bus:request").args[0]["requestId"].clone();
    assert_eq!(in_flight(), 1);
    http.reset();
    wait_for("the request to end", SOON, || (in_flight() == 0).then_some(()));
    assert_eq!(code(&provider.ask("bus:response", &json!({ "requestId": asked, "success": true }))), "cancelled");
    let metrics = node.web("GET", "/metrics", "").text();
    assert!(metrics.contains("rollbook_requests_total{outcome=\"abandoned\"} 101"), "{metrics}");
}

#[test]
fn nobody_answers_for_somebody_else_and_nobody_asks_itself() {
    let node = Node::start(&Options::new());
    let (provider, caller, thief) =
        (BusClient::connect(node.web), BusClient::connect(node.web), BusClient::connect(node.web));
    provider.register("svc", &["work"]);
    thief.register("thief", &["steal"]);
    let id = caller.begin("bus:request", &json!({ "requestId": "r1", "capability": "work" }));
    let asked = provider.event("bus:request");
    let forged = json!({ "requestId": "r1", "success": true, "data": "forged" });
    assert_eq!(code(&thief.ask("bus:response", &forged)), "forbidden");
    thief.ack(asked.ack.expect("a number"), &forged);
    assert_eq!(code(&provider.ask("bus:response", &json!({ "requestId": "r2", "success": true }))), "forbidden");
    assert_eq!(code(&provider.ask("bus:response", &json!({ "requestId": "r1" }))), "bad_request", "success is missing");
    provider.emit("bus:response", &json!({ "requestId": "r1", "success": true, "data": "true" }));
    assert_eq!(caller.acked(id)["data"], "true");
    let twice = json!({ "requestId": "r1", "success": true });
    assert_eq!(code(&provider.ask("bus:response", &twice)), "forbidden", "answered before");
    assert_eq!(code(&provider.request("work", &json!(1))), "bad_request", "the only provider is itself");
}

#[test]
fn two_callers_may_use_the_same_id_at_the_same_time() {
    let node = Node::start(&Options::new());
    let provider = BusClient::connect(node.web);
    provider.register("svc", &["work"]);
    let callers = [BusClient::connect(node.web), BusClient::connect(node.web)];
    let ids: Vec<u64> = callers
        .iter()
        .zip(0..)
        .map(|(caller, n)| {
            caller.begin("bus:request", &json!({ "requestId": "1", "capability": "work", "payload": n }))
        })
        .collect();
    let (one, two) = (provider.event("bus:request"), provider.event("bus:request"));
    assert_ne!(one.args[0]["requestId"], two.args[0]["requestId"]);
    for asked in [two, one] {
        let request = &asked.args[0];
        let response = json!({ "requestId": request["requestId"], "success": true, "data": request["payload"] });
        provider.emit("bus:response", &response);
    }
    for (n, (caller, id)) in callers.iter().zip(ids).enumerate() {
        assert_eq!(caller.acked(id), json!({ "requestId": "1", "success": true, "data": n }));
    }
}

#[test]
fn the_provider_with_the_fewest_requests_is_asked_and_a_draining_one_is_not() {
    let node = Node::start(&Options::new());
    let providers = [BusClient::connect(node.web), BusClient::connect(node.web)];
    let names = providers.each_ref().map(|provider| provider.register("svc", &["work"]));
    let caller = BusClient::connect(node.web);
    let ids: Vec<u64> =
        (0..10).map(|n| caller.begin("bus:request", &json!({ "capability": "work", "payload": n }))).collect();
    for provider in &providers {
        (0..5).for_each(|_| drop(provider.serve_one(Value::clone)));
    }
    for (n, id) in ids.into_iter().enumerate() {
        assert_eq!(caller.acked(id)["data"], n);
    }
    let drained = node.web("POST", "/api/services/svc/drain", &json!({ "instance": names[0] }).to_string());
    assert_eq!(drained.status, 200, "{}", drained.text());
    for n in 0..4 {
        let id = caller.begin("bus:request", &json!({ "capability": "work", "payload": n }));
        providers[1].serve_one(Value::clone);
        assert_eq!(caller.acked(id)["data"], n);
    }
    assert_eq!(node.web("POST", "/api/services/svc/drain", "").status, 200);
    assert_eq!(code(&caller.request("work", &json!(1))), "no_provider");
    assert_eq!(node.web("POST", "/api/services/svc/undrain", "").status, 200);
    let id = caller.begin("bus:request", &json!({ "capability": "work" }));
    wait_for("one of them to be asked", SOON, || providers.iter().find(|one| one.hears("bus:request", ms(50))))
        .serve_one(Value::clone);
    assert_eq!(caller.acked(id)["success"], true);
}

#[test]
fn strategies_are_chosen_by_capability() {
    let strategies = "rr=round_robin,key=sticky,any=random";
    let node = Node::start(&Options::new().env("ROLLBOOK_CALLS__STRATEGIES", strategies));
    let providers = [BusClient::connect(node.web), BusClient::connect(node.web), BusClient::connect(node.web)];
    providers.iter().for_each(|provider| drop(provider.register("svc", &["rr", "key", "any"])));
    let caller = BusClient::connect(node.web);
    let asked = |capability: &str, key: &str| {
        let id = caller.begin("bus:request", &json!({ "capability": capability, "key": key }));
        let at = wait_for("a provider to be asked", SOON, || {
            providers.iter().position(|provider| provider.hears("bus:request", ms(10)))
        });
        providers[at].serve_one(Value::clone);
        caller.acked(id);
        at
    };
    let mut turns: Vec<usize> = (0..3).map(|_| asked("rr", "")).collect();
    turns.sort_unstable();
    assert_eq!(turns, [0, 1, 2], "each once");
    let mut of_key = HashMap::new();
    for n in 0..12 {
        let key = format!("k{}", n % 4);
        let at = asked("key", &key);
        assert_eq!(*of_key.entry(key).or_insert(at), at, "a key stays where it is");
    }
    asked("any", "");
}

#[test]
fn a_request_that_may_be_repeated_goes_to_another_provider_when_the_first_is_lost() {
    let node = Node::start(&Options::new());
    let (one, two, caller) = (BusClient::connect(node.web), BusClient::connect(node.web), BusClient::connect(node.web));
    one.register("svc", &["work"]);
    let id = caller.begin("bus:request", &json!({ "capability": "work", "retries": 1 }));
    one.event("bus:request");
    two.register("svc", &["work"]);
    drop(one);
    two.serve_one(|_| json!("second"));
    assert_eq!(caller.acked(id)["data"], "second");
}

#[test]
fn a_provider_that_keeps_failing_is_left_alone_for_a_while() {
    let node = Node::start(&Options::new());
    let (provider, caller) = (BusClient::connect(node.web), BusClient::connect(node.web));
    provider.register("svc", &["work"]);
    let ids: Vec<u64> =
        (0..20).map(|_| caller.begin("bus:request", &json!({ "capability": "work", "timeout": 50 }))).collect();
    for id in ids {
        assert_eq!(code(&caller.acked(id)), "deadline_exceeded");
    }
    let began = Instant::now();
    let refused = caller.request("work", &json!(1));
    assert_eq!(code(&refused), "no_provider", "{refused}");
    assert!(began.elapsed() < ms(500), "at once");
    let shown = node.web("GET", "/api/services/svc", "").json();
    let breaker = &shown["instances"][0]["requests"]["breakers"][0];
    assert_eq!((&breaker["capability"], &breaker["state"]), (&json!("work"), &json!("open")), "{shown}");
}
