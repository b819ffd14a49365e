//! Coming, going, and what others are told of it.

use serde_json::json;

use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::socket::Socket;
use crate::harness::{SOON, ms, wait_for};

#[test]
fn nothing_goes_before_the_registration_and_it_is_made_once() {
    let node = Node::start(&Options::new());
    let client = Socket::connect(node.web);
    client.ask("m1", "users:get", &json!(1));
    let refused = client.next("error");
    assert_eq!((&refused["code"], &refused["id"]), (&json!("not_registered"), &json!("m1")));
    client.send(&json!({ "type": "ping" }));
    client.next("pong");
    client.send(&json!({ "type": "register", "name": "users", "version": "2", "methods": ["get", "get"],
        "instance": "users-a", "metadata": { "zone": "eu" }, "unknown": [1] }));
    let registered = client.next("registered");
    assert_eq!((&registered["name"], &registered["instance_id"]), (&json!("users"), &json!("users-a")));
    assert_eq!(client.event("service-connect")["service"]["methods"], json!(["get"]));
    client.send(&json!({ "name": "users", "version": "2" }));
    assert_eq!(client.next("error")["code"], "bad_message", "a document without a type is only the first frame");
    client.send(&json!({ "type": "register", "name": "users", "version": "2" }));
    assert_eq!(client.next("error")["code"], "already_registered");
    let shown = node.web("GET", "/api/services/users", "").json();
    assert_eq!(shown["instances"][0]["metadata"], json!({ "zone": "eu" }), "{shown}");
    assert_eq!(shown["instances"][0]["door"], "websocket");
}

#[test]
fn a_registration_that_cannot_be_is_told_and_ends_the_connection() {
    let node = Node::start(&Options::new());
    let long = "x".repeat(129);
    let many: Vec<String> = (0..1025).map(|n| format!("m{n}")).collect();
    let wrong = [
        json!({}),
        json!({ "name": "a" }),
        json!({ "name": "a", "version": "" }),
        json!({ "name": "a", "version": "1".repeat(65) }),
        json!({ "name": "", "version": "1" }),
        json!({ "name": "-a", "version": "1" }),
        json!({ "name": "a:b", "version": "1" }),
        json!({ "name": "a b", "version": "1" }),
        json!({ "name": long, "version": "1" }),
        json!({ "name": 7, "version": "1" }),
        json!({ "name": "a", "version": 1 }),
        json!({ "name": "a", "version": "1", "methods": "get" }),
        json!({ "name": "a", "version": "1", "methods": [7] }),
        json!({ "name": "a", "version": "1", "methods": [""] }),
        json!({ "name": "a", "version": "1", "methods": ["a:b"] }),
        json!({ "name": "a", "version": "1", "methods": ["a b"] }),
        json!({ "name": "a", "version": "1", "methods": [long] }),
        json!({ "name": "a", "version": "1", "methods": many }),
        json!({ "name": "a", "version": "1", "methods": ["m"], "instance": "" }),
        json!({ "name": "a", "version": "1", "methods": ["m"], "id": long }),
        json!({ "name": "a", "version": "1", "methods": ["m"], "metadata": [1] }),
        json!({ "name": "a", "version": "1", "methods": ["m"], "metadata": { "x": "y".repeat(16 << 10) } }),
    ];
    for document in wrong {
        let client = Socket::connect(node.web);
        client.send(&document);
        assert_eq!(client.next("error")["code"], "bad_registration", "{document}");
        assert_eq!(client.next("disconnect")["code"], 4400, "{document}");
        assert_eq!(client.end(), 4400, "{document}");
    }
    for frame in ["", "nonsense", "[1]", "7", "null", "{\"name\":"] {
        let client = Socket::connect(node.web);
        client.send_text(frame);
        assert_eq!((client.next("error")["code"].clone(), client.end()), (json!("bad_json"), 4400), "{frame}");
    }
    assert_eq!(node.web("GET", "/api/services", "").json()["items"], json!([]));
}

#[test]
fn who_does_not_register_or_gives_no_sign_of_life_is_sent_away() {
    let options = Options::new().env("ROLLBOOK_WEBSOCKET__REGISTER_TIMEOUT", "300ms");
    let options = options.env("ROLLBOOK_WEBSOCKET__PING_INTERVAL", "400ms");
    let node = Node::start(&options.env("ROLLBOOK_WEBSOCKET__SILENCE_MAX", "800ms"));
    let late = Socket::connect(node.web);
    assert_eq!(late.end(), 4408);
    let lively = Socket::consumer(node.web, "lively");
    let mut silent = std::net::TcpStream::connect(node.web).expect("a connection");
    super::rfc6455::upgrade(&mut silent);
    super::rfc6455::send_text(&mut silent, r#"{"name":"silent","version":"1","methods":["x"]}"#);
    // It answers no ping.
    let frames = super::rfc6455::read_to_end(&mut silent);
    assert_eq!(super::rfc6455::close_code(&frames), Some(4408));
    assert!(!lively.hears("disconnect", ms(10)), "who answers pings stays");
}

#[test]
fn online_comes_with_the_first_and_offline_with_the_last_and_consumers_are_nothing() {
    let mut cluster = Cluster::start();
    let watcher = Socket::consumer(cluster.node(3).web, "watcher");
    let one = Socket::service(cluster.node(1).web, "users", &["get"]);
    let two = Socket::service(cluster.node(2).web, "users", &["get", "put"]);
    drop(Socket::consumer(cluster.node(1).web, "passer-by"));
    one.cut();
    wait_for("the first to be gone", SOON, || (watcher.count("service-disconnect") == 1).then_some(()));
    cluster.kill(2);
    let names = || watcher.events().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let wanted = ["connect", "online", "connect", "disconnect", "disconnect", "offline"];
    let wanted = wanted.map(|word| format!("service-{word}"));
    wait_for("all events", SOON, || (names().len() >= wanted.len()).then_some(()));
    assert_eq!(names(), wanted);
    let events = watcher.events();
    let ascends = events.windows(2).all(|pair| pair[0].1 < pair[1].1);
    assert!(ascends, "{events:?}");
    assert_eq!((events[1].1, events[5].1), (events[0].1 + 1, events[4].1 + 1), "online and offline follow at once");
    drop(two);
}

#[test]
fn everybody_sees_the_same_events_under_the_same_index() {
    let cluster = Cluster::start();
    let watchers: Vec<Socket> = (1..=3).map(|id| Socket::consumer(cluster.node(id).web, "watcher")).collect();
    // All at once, on three nodes: one of them is the first.
    std::thread::scope(|scope| {
        for id in 1..=3 {
            let web = cluster.node(id).web;
            scope.spawn(move || {
                let instances: Vec<Socket> = (0..5).map(|_| Socket::service(web, "users", &["get"])).collect();
                drop(instances);
            });
        }
    });
    let whole = |watcher: &Socket| {
        let gone = watcher.events().iter().filter(|(name, _)| name == "service-disconnect").count();
        let (online, offline) = (watcher.count("service-online"), watcher.count("service-offline"));
        (gone == 15 && online == offline && online > 0).then(|| watcher.events())
    };
    let seen: Vec<_> = watchers.iter().map(|watcher| wait_for("all events", SOON, || whole(watcher))).collect();
    assert_eq!(seen[0], seen[1]);
    assert_eq!(seen[1], seen[2]);
}

#[test]
fn a_snapshot_and_the_events_behind_it_are_the_truth_while_others_come_and_go() {
    let node = Node::start(&Options::new());
    let web = node.web;
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let churn = |name: &'static str| {
            let stop = &stop;
            move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    drop(Socket::service(web, name, &["x"]));
                }
            }
        };
        scope.spawn(churn("a"));
        scope.spawn(churn("b"));
        let clients: Vec<(Socket, u64, i64)> = (0..20)
            .map(|_| {
                let client = Socket::connect(web);
                client.send(&json!({ "name": "watcher", "version": "1" }));
                let registered = client.next("registered");
                let there = registered["services"].as_array().expect("a list").iter();
                let count = there.filter_map(|service| service["instances"].as_i64()).sum();
                (client, registered["index"].as_u64().expect("an index"), count)
            })
            .collect();
        std::thread::sleep(ms(300));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        for (client, index, count) in &clients {
            let left = || {
                let delta = |name: &str| i64::try_from(client.count(name)).unwrap_or(i64::MAX);
                count + delta("service-connect") - delta("service-disconnect")
            };
            wait_for("everybody to be gone", SOON, || (left() == 0).then_some(()));
            assert!(client.events().iter().all(|(_, at)| at > index), "nothing that the snapshot has");
        }
    });
}

#[test]
fn the_same_instance_id_replaces_the_older_connection() {
    let node = Node::start(&Options::new());
    let watcher = Socket::consumer(node.web, "watcher");
    let register = json!({ "name": "users", "version": "1", "methods": ["get"], "instance": "blue" });
    let one = Socket::connect(node.web);
    one.send(&register);
    one.next("registered");
    let two = Socket::connect(node.web);
    two.send(&register);
    assert_eq!(two.next("registered")["replaced"], "n1", "it is told that it has won");
    let reason = one.next("disconnect")["reason"].as_str().unwrap_or_default().to_owned();
    assert!(reason.contains("127.0.0.1:") && reason.ends_with("at node 1"), "{reason}");
    assert_eq!(one.end(), 4409, "or it would come back and take the place again");
    wait_for("four events", SOON, || (watcher.events().len() >= 4).then_some(()));
    std::thread::sleep(ms(200));
    let names: Vec<String> = watcher.events().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["service-connect", "service-online", "service-disconnect", "service-connect"]);
    watcher.ask("m", "users:get", &json!(1));
    two.serve_one(|_| json!("two"));
    assert_eq!(watcher.next("response")["payload"], "two");
}

#[test]
fn services_of_other_doors_are_told_of_as_well() {
    let node = Node::start(&Options::new());
    let watcher = Socket::consumer(node.web, "watcher");
    let service = BusClient::connect(node.web);
    let capabilities = json!([{ "name": "users", "actions": ["get"] }, "directory"]);
    let register = json!({ "id": "users", "name": "Users", "version": "3", "capabilities": capabilities });
    assert_eq!(service.ask("bus:register", &register)["success"], true);
    let connected = watcher.event("service-connect");
    let offers = json!([{ "name": "directory", "actions": [] }]);
    let wanted = json!({ "name": "users", "version": "3", "methods": ["get"], "capabilities": offers });
    assert_eq!(connected["service"], wanted);
    // A copy of it at this door is one more instance, and leaves its names as they are.
    let _copy = Socket::service(node.web, "users", &["get"]);
    watcher.event("service-connect");
    assert_eq!(watcher.count("service-online"), 1);
    assert_eq!(node.web("GET", "/api/services/users", "").json()["name"], "Users");
    service.event("service:online");
}

#[test]
fn the_operator_sees_and_removes_them() {
    let node = Node::start(&Options::new());
    let service = Socket::service(node.web, "users", &["get"]);
    let consumer = Socket::consumer(node.web, "shop");
    let connections = node.web("GET", "/api/connections?door=websocket", "").json();
    let names: Vec<&str> =
        connections["items"].as_array().expect("a list").iter().filter_map(|one| one["name"].as_str()).collect();
    assert_eq!(names.len(), 2, "{connections}");
    assert!(names.contains(&"users") && names.contains(&"shop"), "{connections}");
    // A command is acknowledged by its number.
    let web = node.web;
    let pinged = std::thread::spawn(move || {
        let mut http = crate::harness::http::Http::connect(web);
        http.request("POST", "/api/services/users/ping", &[], b"").json()
    });
    let command = service.next("command");
    assert_eq!(command["command"], "ping");
    service.send(&json!({ "type": "done", "id": command["id"] }));
    assert_eq!(pinged.join().expect("an answer")["items"][0]["result"], "acknowledged");
    assert_eq!(node.web("DELETE", "/api/services/users", "").status, 204);
    assert_eq!(service.end(), 4410);
    consumer.event("service-offline");
}
