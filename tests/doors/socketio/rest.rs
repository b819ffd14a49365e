//! REST over services: what the operator sees and does, on any node.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

fn ids(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().cloned().unwrap_or_default();
    items.iter().map(|item| item["id"].as_str().unwrap_or_default().to_owned()).collect()
}

#[test]
fn services_are_listed_in_pages_and_filtered() {
    let node = Node::start(&Options::new());
    let clients: Vec<BusClient> = (0..5).map(|_| BusClient::connect(node.web)).collect();
    for (n, client) in clients.iter().enumerate() {
        let kind = if n < 2 { "worker" } else { "app" };
        let register = json!({ "id": format!("s{n}"), "name": format!("Service {n}"), "type": kind, "capabilities": [format!("c{}", n % 2)] });
        assert_eq!(client.ask("bus:register", &register)["success"], true);
    }
    let get = |query: &str| node.web("GET", &format!("/api/services{query}"), "").json();
    assert_eq!(ids(&get("")), ["s0", "s1", "s2", "s3", "s4"]);
    let first = get("?limit=2");
    assert_eq!(ids(&first), ["s0", "s1"]);
    let last = get(&format!("?limit=3&cursor={}", first["next_cursor"].as_str().expect("a cursor")));
    assert_eq!(
        (ids(&last), &last["next_cursor"]),
        (vec!["s2".to_owned(), "s3".to_owned(), "s4".to_owned()], &json!(null))
    );
    assert_eq!(ids(&get("?type=worker")), ["s0", "s1"]);
    assert_eq!(ids(&get("?capability=c1")), ["s1", "s3"]);
    assert_eq!(ids(&get("?q=SERVICE%204")), ["s4"]);
    assert_eq!(ids(&get("?status=offline")), Vec::<String>::new());
    for wrong in ["?limit=0", "?limit=1001", "?status=odd", "?colour=red"] {
        let answer = node.web("GET", &format!("/api/services{wrong}"), "");
        assert_eq!((answer.status, answer.header("content-type")), (400, Some("application/problem+json")), "{wrong}");
    }
    assert_eq!(node.web("GET", "/api/services/none", "").json()["code"], "service_not_found");
    assert_eq!(node.web("POST", "/api/services/s0", "").status, 405);
}

#[test]
fn metadata_is_merged_under_its_revision() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    client.register("svc", &[]);
    let put = |headers: &[(&str, &str)], body: &str| node.web_with("PUT", "/api/services/svc", headers, body);
    let answer = put(&[], r#"{"owner":"ops","tags":{"a":1,"b":2}}"#);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = put(&[], r#"{"tags":{"a":null}}"#);
    assert_eq!(answer.json()["metadata"], json!({ "owner": "ops", "tags": { "b": 2 } }));
    let tag = answer.header("etag").expect("an ETag").to_owned();
    assert_eq!(put(&[("If-Match", "\"1\"")], "{}").status, 412);
    assert_eq!(put(&[("If-Match", &tag)], "{}").status, 200);
    assert_eq!(put(&[], "[]").status, 400);
    assert_eq!(put(&[], &json!({ "x": "y".repeat(20_000) }).to_string()).status, 400);
    drop(client);
    wait_for("the service to be offline", SOON, || {
        let shown = node.web("GET", "/api/services/svc", "").json();
        (shown["status"] == "offline" && shown["metadata"]["owner"] == "ops").then_some(())
    });
    assert_eq!(node.web("DELETE", "/api/services/svc", "").status, 204);
    assert_eq!(node.web("DELETE", "/api/services/svc", "").status, 404);
}

#[test]
fn commands_say_what_became_of_them_for_each_instance() {
    let node = Node::start(&Options::new());
    let (polite, mute) = (BusClient::connect(node.web), BusClient::connect(node.web));
    let names = [polite.register("svc", &[]), mute.register("svc", &[])];
    let post = |path: &str, body: &str| node.web("POST", path, body);
    let result = |list: &Value, instance: &str| {
        let items = list["items"].as_array().cloned().unwrap_or_default();
        items.iter().find(|item| item["instance"] == instance).map(|item| item["result"].clone()).unwrap_or_default()
    };
    let answer = std::thread::scope(|scope| {
        let asked = scope.spawn(|| post("/api/services/svc/restart", r#"{"reason":"deploy"}"#).json());
        let told = polite.event("bus:restart");
        assert_eq!(told.args[0]["reason"], "deploy");
        assert!(told.args[0]["timestamp"].as_u64().is_some_and(|at| at > 1_600_000_000_000));
        polite.ack(told.ack.expect("a number"), &json!({}));
        asked.join().expect("an answer")
    });
    assert_eq!((result(&answer, &names[0]), result(&answer, &names[1])), (json!("acknowledged"), json!("delivered")));
    mute.event("bus:restart");
    // One of them, and one that is not there.
    post("/api/services/svc/shutdown", &json!({ "instance": names[1] }).to_string());
    mute.event("bus:shutdown");
    assert!(!polite.hears("bus:shutdown", ms(100)));
    assert_eq!(post("/api/services/svc/ping", r#"{"instance":"none"}"#).status, 404);
    assert_eq!(post("/api/services/none/ping", "").status, 404);
    assert_eq!(post("/api/services/svc/ping", "{").status, 400);
    // A program may say that nothing there takes it.
    let answer = std::thread::scope(|scope| {
        let asked =
            scope.spawn(|| post("/api/services/svc/restart", &json!({ "instance": names[0] }).to_string()).json());
        polite.ack(polite.event("bus:restart").ack.expect("a number"), &json!({ "handled": false }));
        asked.join().expect("an answer")
    });
    assert_eq!(result(&answer, &names[0]), "unhandled");
    // The same key: the same answer, and no second command.
    let key = [("Idempotency-Key", "k1")];
    let one = node.web_with("POST", "/api/services/restart-all", &key, "").text();
    polite.event("bus:restart");
    assert_eq!(node.web_with("POST", "/api/services/restart-all", &key, "").text(), one);
    assert!(!polite.hears("bus:restart", ms(100)));
    drop((polite, mute));
    let shown = |path: &str| node.web("GET", path, "").json();
    wait_for("all to leave", SOON, || (shown("/api/services/svc")["status"] == "offline").then_some(()));
    for path in ["/api/services/svc/restart", "/api/services/svc/ping", "/api/services/restart-all"] {
        let refused = post(path, "");
        assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("no_instance")), "{path}");
    }
}

#[test]
fn a_service_shows_what_it_registered_with_and_may_have_any_name() {
    let node = Node::start(&Options::new());
    let (one, two) = (BusClient::connect(node.web), BusClient::connect(node.web));
    let register = |port: u16, actions: Value| {
        let work = json!({ "name": "work", "description": "does it", "actions": actions });
        json!({ "id": "restart-all", "port": port, "capabilities": [work] })
    };
    assert_eq!(one.ask("bus:register", &register(3000, json!(["do"])))["success"], true);
    let path = "/api/services/restart-all";
    let shown = node.web("GET", path, "").json();
    assert_eq!((&shown["id"], &shown["port"]), (&json!("restart-all"), &json!(3000)));
    assert_eq!(shown["capabilities"], json!([{ "name": "work", "description": "does it", "actions": ["do"] }]));
    std::thread::sleep(ms(5));
    assert_eq!(two.ask("bus:register", &register(3001, json!(["rest", "do"])))["success"], true);
    let shown = node.web("GET", path, "").json();
    let mut actions: Vec<&str> =
        shown["capabilities"][0]["actions"].as_array().expect("actions").iter().filter_map(Value::as_str).collect();
    actions.sort_unstable();
    assert_eq!((&shown["port"], &*actions), (&json!(3001), &["do", "rest"][..]), "the newest port, all actions once");
    assert_eq!(node.web("DELETE", path, "").status, 204);
    assert_eq!(node.web("GET", path, "").status, 404);
    assert_eq!(node.web("PATCH", path, "{}").status, 405);
}

#[test]
fn acknowledgements_have_small_numbers() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    client.register("svc", &["svc"]);
    let caller = BusClient::connect(node.web);
    for number in [0, 2, 4] {
        let id = caller.begin("bus:request", &json!({ "capability": "svc" }));
        let asked = client.event("bus:request").ack;
        assert_eq!(asked, Some(number), "clients read them into 32 bits");
        client.ack(number, &json!({ "success": true, "data": number }));
        assert_eq!(caller.acked(id)["data"], number);
        std::thread::scope(|scope| {
            let asked = scope.spawn(|| node.web("POST", "/api/services/svc/ping", "").json());
            let ping = client.event("bus:ping").ack.expect("a number");
            assert_eq!(ping, number + 1);
            client.ack(ping, &json!({}));
            assert_eq!(asked.join().expect("an answer")["items"][0]["result"], "acknowledged");
        });
    }
}

#[test]
fn a_connection_that_has_ended_is_not_found() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    let path = format!("/api/connections/{}", client.sid);
    assert_eq!(node.web("DELETE", &path, "").status, 204);
    assert_eq!(client.end(), "sent away");
    wait_for("the connection to go", SOON, || (node.web("GET", &path, "").status == 404).then_some(()));
    assert_eq!(node.web("DELETE", &path, "").status, 404);
    let listed = node.web("GET", "/api/connections", "").json();
    assert_eq!((&listed["items"], &listed["unanswered_nodes"]), (&json!([]), &json!([])));
    let stats = node.web("GET", "/api/stats", "").json();
    assert_eq!((&stats["connections"], &stats["unanswered_nodes"]), (&json!(0), &json!([])));
}

#[test]
fn a_command_with_a_key_is_given_once_through_whatever_nodes() {
    let cluster = Cluster::start();
    let client = BusClient::connect(cluster.node(1).web);
    client.register("svc", &[]);
    wait_for("all nodes to know it", SOON, || {
        let known = |id| cluster.node(id).web("GET", "/api/services/svc", "").status == 200;
        (1..=3).all(known).then_some(())
    });
    let path = "/api/services/svc/restart";
    let post = |id: usize, key: &str| cluster.node(id).web_with("POST", path, &[("Idempotency-Key", key)], "");
    let first = post(2, "k").text();
    client.event("bus:restart");
    for id in [1, 3, 2] {
        assert_eq!(post(id, "k").text(), first, "node {id}");
    }
    assert!(!client.hears("bus:restart", ms(200)));
    // Asked at the same moment: given at most once, and who was too early tries again.
    for round in 0..10 {
        let key = format!("round {round}");
        let together = std::sync::Barrier::new(3);
        let answers = std::thread::scope(|scope| {
            let ask = |id| {
                let (together, key) = (&together, &key);
                move || {
                    together.wait();
                    post(id, key)
                }
            };
            let asked = [1, 2, 3].map(|id| scope.spawn(ask(id)));
            asked.map(|asked| asked.join().expect("an answer"))
        });
        let statuses = answers.map(|answer| answer.status);
        assert!(statuses.iter().all(|status| [200, 409].contains(status)), "{statuses:?}");
        wait_for("the key to be free or done", SOON, || (post(1, &key).status == 200).then_some(()));
        client.event("bus:restart");
        assert!(!client.hears("bus:restart", ms(50)), "round {round}: {statuses:?}");
    }
}

#[test]
fn a_call_over_http_is_answered_by_a_provider() {
    let node = Node::start(&Options::new());
    let provider = BusClient::connect(node.web);
    provider.register("users", &["users"]);
    let answer = |body: &str, response: Value| {
        std::thread::scope(|scope| {
            let call = scope.spawn(|| node.web("POST", "/api/call/users/get", body));
            let asked = provider.event("bus:request");
            let mut response = response;
            response["requestId"] = asked.args[0]["requestId"].clone();
            provider.emit("bus:response", &response);
            (asked.args[0].clone(), call.join().expect("an answer"))
        })
    };
    let (asked, got) = answer(r#"{"id":7}"#, json!({ "success": true, "data": [1, 2] }));
    assert_eq!((&asked["action"], &asked["payload"]), (&json!("get"), &json!({ "id": 7 })));
    assert_eq!((got.status, got.text().as_str()), (200, "[1,2]"));
    let (_, got) = answer("", json!({ "success": false, "error": { "code": "E7" } }));
    assert_eq!((got.status, &got.json()["error"]), (422, &json!({ "code": "E7" })));
    let late = node.web_with("POST", "/api/call/users/get", &[("X-Rollbook-Timeout", "50ms")], "");
    assert_eq!((late.status, &late.json()["code"]), (504, &json!("deadline_exceeded")));
    assert_eq!(node.web("POST", "/api/call/nobody/get", "").status, 404);
    assert_eq!(node.web("POST", "/api/call/users/get", "{").status, 400);
    let wrong = node.web_with("POST", "/api/call/users/get", &[("X-Rollbook-Timeout", "soon")], "");
    assert_eq!(wrong.status, 400);
    drop(provider);
    wait_for("nobody to be there", SOON, || {
        (node.web("POST", "/api/call/users/get", "").json()["code"] == "no_provider").then_some(())
    });
}

#[test]
fn the_history_of_a_service_comes_from_the_book() {
    let node = Node::start(&Options::new());
    let (one, other) = (BusClient::connect(node.web), BusClient::connect(node.web));
    one.register("svc", &[]);
    other.register("other", &[]);
    drop(one);
    let words = || -> Vec<String> {
        let items = node.web("GET", "/api/services/svc/history", "").json()["items"].as_array().cloned();
        let word = |item: &Value| item["subject"].as_str().unwrap_or_default().replace("roll.service.", "");
        items.unwrap_or_default().iter().map(word).collect()
    };
    let newest_first = ["offline", "disconnect", "online", "connect", "registered"];
    wait_for("the whole story", SOON, || (words() == newest_first).then_some(()));
    let two = node.web("GET", "/api/services/svc/history?limit=2", "").json();
    assert_eq!(two["items"].as_array().map(Vec::len), Some(2));
}

#[test]
fn any_node_shows_and_commands_the_whole_cluster() {
    let cluster = Cluster::start();
    let clients: Vec<BusClient> = (1..=3).map(|id| BusClient::connect(cluster.node(id).web)).collect();
    clients.iter().for_each(|client| drop(client.register("svc", &["work"])));
    for id in 1..=3 {
        let node = cluster.node(id);
        let shown = node.web("GET", "/api/services/svc", "").json();
        let nodes: BTreeSet<u64> =
            shown["instances"].as_array().into_iter().flatten().filter_map(|one| one["node"].as_u64()).collect();
        assert_eq!(nodes, BTreeSet::from([1, 2, 3]), "{shown}");
        assert!(shown["instances"][0]["address"].is_string(), "what only the other nodes know: {shown}");
        assert_eq!(node.web("GET", "/api/connections", "").json()["items"].as_array().map(Vec::len), Some(3));
        let stats = node.web("GET", "/api/stats", "").json();
        assert_eq!((&stats["services"]["online"], &stats["connections"]), (&json!(1), &json!(3)), "{stats}");
    }
    let restart = cluster.node(1).web("POST", "/api/services/svc/restart", "").json();
    assert_eq!(restart["items"].as_array().map(Vec::len), Some(3));
    clients.iter().for_each(|client| drop(client.event("bus:restart")));
    // A connection is ended from another node, and stays away.
    let path = format!("/api/connections/{}", clients[2].sid);
    assert_eq!(cluster.node(1).web("GET", &path, "").json()["node"], 3);
    assert_eq!(cluster.node(1).web("DELETE", &path, "").status, 204);
    assert_eq!(clients[2].end(), "sent away");
    wait_for("it to be gone everywhere", SOON, || (cluster.node(2).web("GET", &path, "").status == 404).then_some(()));
    // So is a whole service.
    assert_eq!(cluster.node(3).web("DELETE", "/api/services/svc", "").status, 204);
    clients[..2].iter().for_each(|client| assert_eq!(client.end(), "sent away"));
}

#[test]
fn a_node_that_does_not_answer_is_named() {
    let cluster = Cluster::start();
    let client = BusClient::connect(cluster.node(3).web);
    client.register("svc", &[]);
    let get = |path: &str| cluster.node(1).web("GET", &format!("{path}?consistency=stale"), "").json();
    let paths = ["/api/connections", "/api/stats", "/api/services/svc", "/api/services/svc/instances"];
    wait_for("the service to be known", SOON, || (get(paths[2])["id"] == "svc").then_some(()));
    for path in paths {
        assert_eq!(get(path)["unanswered_nodes"], json!([]), "{path}");
    }
    let send = |signal: &str| {
        let sent = std::process::Command::new("kill").args([signal, &cluster.node(3).pid().to_string()]).status();
        assert!(sent.expect("run kill").success(), "{signal}");
    };
    send("-STOP");
    // Asked at once: a node that is silent for long is taken off the roll, and is asked no more.
    let silent = std::thread::scope(|scope| {
        let asked = paths.map(|path| scope.spawn(move || (path, get(path)["unanswered_nodes"].clone())));
        asked.map(|asked| asked.join().expect("an answer"))
    });
    send("-CONT");
    for (path, silent) in silent {
        assert_eq!(silent, json!([3]), "{path}");
    }
}

#[test]
fn a_page_of_another_origin_may_read_the_refusal_and_change_nothing() {
    let node = Node::start(&Options::new());
    for (origin, status) in [("https://evil.example", 403), ("null", 403), ("http://localhost", 200)] {
        let answer = node.web_with("POST", "/api/config", &[("Origin", origin)], "{}");
        assert_eq!(answer.status, status, "{origin}: {}", answer.text());
    }
    assert_eq!(node.web("GET", "/api/config/history", "").json()["items"].as_array().map(Vec::len), Some(1));
}

#[test]
fn the_description_names_what_there_is() {
    let node = Node::start(&Options::new());
    let described = node.web("GET", "/openapi.json", "").json();
    assert_eq!(described["openapi"], "3.1.0");
    let paths = described["paths"].as_object().expect("paths").clone();
    assert!(paths.len() >= 25, "{}", paths.len());
    for (path, methods) in paths {
        // What is not taken is refused with what is.
        let target = path.replace(['{', '}'], "");
        let answer = node.web("TRACE", &target, "");
        let mut allowed: BTreeSet<String> =
            answer.header("allow").unwrap_or_default().split(", ").map(str::to_lowercase).collect();
        assert_eq!((answer.status, allowed.remove("options")), (405, true), "{path}");
        assert_eq!(allowed.remove("head"), allowed.contains("get"), "{path}");
        let named: BTreeSet<String> = methods.as_object().expect("methods").keys().cloned().collect();
        // There may also be a service that is called as this command is.
        let complete = if path.ends_with("/restart-all") { named.is_subset(&allowed) } else { named == allowed };
        assert!(complete, "{path}: {named:?} are described, {allowed:?} are taken");
        for (method, operation) in methods.as_object().expect("methods") {
            let said = operation["summary"].as_str().or(operation["description"].as_str()).unwrap_or_default();
            assert!(said.len() > 10, "{method} {path} has no sentence");
            let text = operation.to_string();
            // Processes of Xbus and dead letters are `done` indeed.
            let inside = ["super::", "crate::", "\"done\""].into_iter().find(|part| text.contains(part));
            let has_done = path.starts_with("/api/xbus/") || path.starts_with("/api/dead-letter");
            let inside = inside.filter(|part| !(has_done && part.contains("done")));
            assert_eq!(inside, None, "{method} {path}");
        }
    }
    let page = node.web("GET", "/docs/", "");
    assert!(page.status == 200 && !page.text().contains("https://"), "nothing from elsewhere: {}", page.text());
}
