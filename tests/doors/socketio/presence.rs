//! Coming, going, being replaced, forgotten heartbeats.

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

fn instances(node: &Node, service: &str) -> Vec<Value> {
    let answer = node.web("GET", &format!("/api/services/{service}"), "");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["instances"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_registration_is_acknowledged_and_announced_to_all() {
    let node = Node::start(&Options::new());
    let watcher = BusClient::connect(node.web);
    let service = BusClient::connect(node.web);
    let register = json!({
        "id": "users_svc", "name": "Users", "type": "platform-app", "port": 3000, "version": "1.0.0",
        "capabilities": [{ "name": "users", "description": "User management" }],
    });
    let answer = service.ask("bus:register", &register);
    assert_eq!((&answer["success"], &answer["id"]), (&json!(true), &json!("users_svc")));
    assert!(answer["instanceId"].as_str().is_some_and(|id| id.starts_with("n1.")), "{answer}");
    for client in [&watcher, &service] {
        assert_eq!(client.event("service:online").args, [json!({ "id": "users_svc", "name": "Users" })]);
    }
    let shown = node.web("GET", "/api/services/users_svc", "").json();
    assert_eq!((&shown["type"], &shown["status"]), (&json!("platform-app"), &json!("online")));
    assert_eq!(shown["capabilities"][0]["description"], "User management");
    drop(service);
    assert_eq!(watcher.event("service:offline").args, [json!({ "id": "users_svc", "name": "Users" })]);
    assert_eq!(node.web("GET", "/api/services/users_svc", "").json()["status"], "offline");
}

#[test]
fn only_the_first_and_the_last_instance_are_announced() {
    let node = Node::start(&Options::new());
    let watcher = BusClient::connect(node.web);
    let (one, two) = (BusClient::connect(node.web), BusClient::connect(node.web));
    one.register("svc", &[]);
    two.register("svc", &[]);
    watcher.event("service:online");
    drop(one);
    wait_for("one instance less", SOON, || (instances(&node, "svc").len() == 1).then_some(()));
    assert_eq!(watcher.heard(), Vec::<String>::new(), "neither a second online nor an offline");
    drop(two);
    watcher.event("service:offline");
    let told: Vec<String> = node.replay("roll.service.>").events(7, SOON).iter().map(|event| event.subject()).collect();
    let expected = ["registered", "connect", "online", "connect", "disconnect", "disconnect", "offline"];
    assert_eq!(told, expected.map(|word| format!("roll.service.{word}")));
}

#[test]
fn registering_again_changes_what_is_known_and_is_no_second_instance() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    client.register("svc", &["a"]);
    let again = json!({ "id": "svc", "name": "New", "version": "2", "capabilities": ["b"] });
    assert_eq!(client.ask("bus:register", &again)["success"], true);
    let shown = node.web("GET", "/api/services/svc", "").json();
    assert_eq!((&shown["name"], &shown["version"]), (&json!("New"), &json!("2")));
    assert_eq!(shown["capabilities"], json!([{ "name": "b", "description": "", "actions": [] }]));
    assert_eq!(shown["instances"].as_array().map(Vec::len), Some(1));
    // As another service: the first one is left.
    assert_eq!(client.ask("bus:register", &json!({ "id": "other" }))["success"], true);
    wait_for("the first service to be left", SOON, || instances(&node, "svc").is_empty().then_some(()));
}

#[test]
fn what_a_client_says_when_it_connects_is_used_where_it_says_nothing_later() {
    let node = Node::start(&Options::new());
    let auth = json!({ "appId": "my_service", "appName": "My Service", "appPort": "3000" });
    let client = BusClient::connect_as(node.web, &auth);
    assert_eq!(client.ask("bus:register", &json!({}))["id"], "my_service");
    let shown = node.web("GET", "/api/services/my_service", "").json();
    assert_eq!((&shown["name"], &shown["instances"][0]["port"]), (&json!("My Service"), &json!(3000)));
}

#[test]
fn the_same_instance_id_replaces_the_older_connection() {
    let node = Node::start(&Options::new());
    let watcher = BusClient::connect(node.web);
    let register = json!({ "id": "svc", "instanceId": "blue" });
    let one = BusClient::connect(node.web);
    assert_eq!(one.ask("bus:register", &register)["instanceId"], "blue");
    watcher.event("service:online");
    let two = BusClient::connect(node.web);
    assert_eq!(two.ask("bus:register", &register)["replaced"], json!({ "node": 1 }), "it is told that it has won");
    let lost = one.event("bus:error").args.remove(0);
    assert_eq!((&lost["event"], &lost["error"]["code"]), (&json!("bus:register"), &json!("replaced")));
    let by = lost["error"]["message"].as_str().unwrap_or_default();
    assert!(by.contains("127.0.0.1:") && by.ends_with("at node 1"), "{by}");
    assert_eq!(one.end(), "sent away", "or it would come back and take the place again");
    drop(one);
    std::thread::sleep(ms(300));
    assert_eq!(watcher.heard(), Vec::<String>::new(), "nobody was offline in between");
    assert_eq!(instances(&node, "svc").len(), 1);
    two.ask("bus:heartbeat", &json!({ "uptime": 1 }));
}

#[test]
fn a_short_absence_is_none_within_the_grace() {
    let node = Node::start(&Options::new().env("ROLLBOOK_ROLL__GRACE", "1500ms"));
    let watcher = BusClient::connect(node.web);
    let one = BusClient::connect(node.web);
    one.register("svc", &[]);
    watcher.event("service:online");
    drop(one);
    wait_for("the instance to leave", SOON, || instances(&node, "svc").is_empty().then_some(()));
    let two = BusClient::connect(node.web);
    two.register("svc", &[]);
    assert!(!watcher.hears("service:offline", ms(2500)), "it came back in time");
    drop(two);
    watcher.event("service:offline");
}

#[test]
fn an_instance_whose_heartbeats_stop_gets_no_requests_and_is_dropped_in_the_end() {
    let options = Options::new();
    let options = options.env("ROLLBOOK_ROLL__HEARTBEAT_TIMEOUT", "1s").env("ROLLBOOK_ROLL__HEARTBEAT_DROP", "4s");
    let node = Node::start(&options);
    let service = BusClient::connect(node.web);
    service.register("svc", &["work"]);
    let quiet = BusClient::connect(node.web);
    quiet.register("quiet", &[]);
    let beat = json!({ "uptime": 12.5, "memory": 48, "cpu": 0.25, "timestamp": 1 });
    assert_eq!(service.ask("bus:heartbeat", &beat), json!({ "success": true }));
    assert_eq!(instances(&node, "svc")[0]["heartbeat"], beat);
    let state = |wanted: &str| {
        wait_for(wanted, SOON, || (instances(&node, "svc")[0]["state"] == wanted).then_some(()));
    };
    state("unhealthy");
    let caller = BusClient::connect(node.web);
    assert_eq!(caller.request("work", &json!(1))["error"]["code"], "no_provider");
    service.ask("bus:heartbeat", &beat);
    state("available");
    assert!(service.end().starts_with("close"), "after heartbeat_drop without one");
    wait_for("it to be off the roll", SOON, || instances(&node, "svc").is_empty().then_some(()));
    assert!(!quiet.has_ended(), "who has never sent one is left alone by default");
}

#[test]
fn after_a_restart_of_the_node_services_are_asked_to_register_until_they_do() {
    let mut node = Node::start(&Options::new());
    let auth = json!({ "appId": "svc" });
    let client = BusClient::connect_as(node.web, &auth);
    client.register("svc", &[]);
    node.kill9();
    client.end();
    node.restart();
    let back = BusClient::connect_as(node.web, &auth);
    let reminder = back.event("bus:reregister-request");
    assert!(reminder.args[0]["reason"].is_string() && reminder.args[0]["timestamp"].is_u64(), "{reminder:?}");
    assert!(instances(&node, "svc").is_empty(), "those of the life before are gone");
    back.register("svc", &[]);
    let mut told = node.replay("roll.service.>");
    let words: Vec<String> =
        told.events(7, SOON).iter().map(|event| event.subject().replace("roll.service.", "")).collect();
    assert_eq!(words, ["registered", "connect", "online", "disconnect", "offline", "connect", "online"]);
}

#[test]
fn a_stop_of_the_node_sends_clients_elsewhere_and_takes_them_off_the_roll() {
    let mut node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    client.register("svc", &[]);
    node.terminate();
    assert_eq!(client.end(), "close Some(1012)", "service restart: come back, to another node perhaps");
    node.restart();
    let words: Vec<String> = node
        .replay("roll.service.>")
        .events(5, SOON)
        .iter()
        .map(|event| event.subject().replace("roll.service.", ""))
        .collect();
    assert_eq!(words, ["registered", "connect", "online", "disconnect", "offline"]);
}

#[test]
fn a_client_that_is_somebody_else_and_itself_again_is_once_on_the_roll() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    client.register("a", &[]);
    for _ in 0..20 {
        // Each is asked for while the one before is on its way.
        let ids: Vec<u64> = ["b", "a", "b", "a"].map(|id| client.begin("bus:register", &json!({ "id": id }))).to_vec();
        for id in ids {
            assert_eq!(client.acked(id)["success"], true);
        }
        let instances = |id: &str| {
            let shown = node.web("GET", &format!("/api/services/{id}/instances"), "").json();
            shown["items"].as_array().map_or(0, Vec::len)
        };
        wait_for("the other one to leave", SOON, || (instances("b") == 0).then_some(()));
        assert_eq!(instances("a"), 1);
    }
    assert_eq!(client.ask("bus:heartbeat", &json!({}))["success"], true);
}

#[test]
fn thousands_of_marks_and_farewells_are_few_entries_of_the_log() {
    const SERVICES: usize = 300;
    let options =
        Options::new().env("ROLLBOOK_ROLL__HEARTBEAT_TIMEOUT", "3s").env("ROLLBOOK_ROLL__HEARTBEAT_DROP", "1h");
    let node = Node::start(&options);
    let clients: Vec<BusClient> = (0..SERVICES)
        .map(|n| {
            let client = BusClient::connect(node.web);
            client.register(&format!("s{n}"), &[]);
            client.ask("bus:heartbeat", &json!({}));
            client
        })
        .collect();
    for client in &clients {
        client.emit("bus:heartbeat", &json!({}));
    }
    let applied = || node.web("GET", "/api/cluster", "").json()["nodes"][0]["applied_index"].as_u64();
    let applied_now = || applied().unwrap_or_else(|| panic!("{}", node.web("GET", "/api/cluster", "").text()));
    let stats = |what: &str| node.web("GET", "/api/stats", "").json()["instances"][what].clone();
    let before = applied_now();
    wait_for("all to be unhealthy", SOON * 2, || (stats("unhealthy") == SERVICES).then_some(()));
    let marks = applied_now() - before;
    assert!(marks < 100, "{marks} entries of the log for {SERVICES} marks");
    let before = applied_now();
    drop(clients);
    wait_for("all to have left", SOON * 2, || (stats("total") == 0).then_some(()));
    let farewells = applied_now() - before;
    assert!(farewells < 100, "{farewells} entries of the log for {SERVICES} farewells");
}
