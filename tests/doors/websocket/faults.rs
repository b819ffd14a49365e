//! Loss, overload, slowness, nonsense.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use super::{asked, rfc6455};
use crate::harness::bus::BusClient;
use crate::harness::cluster::Cluster;
use crate::harness::node::{Node, Options};
use crate::harness::socket::Socket;
use crate::harness::{SOON, ms, proc, wait_for};

/// Bytes of memory that a process has.
pub(super) fn resident(pid: u32) -> u64 {
    proc::status(pid, "VmRSS") * 1024
}

#[test]
fn a_provider_that_is_lost_in_the_middle_is_one_error() {
    let node = Node::start(&Options::new());
    let (users, shop) = asked(node.web);
    let began = Instant::now();
    users.cut();
    let error = shop.next("error");
    assert_eq!(
        (&error["code"], &error["id"], &error["retryable"]),
        (&json!("instance_lost"), &json!("m"), &json!(true))
    );
    assert!(began.elapsed() < SOON, "long before its deadline");
    assert!(!shop.hears("error", ms(200)) && !shop.hears("unhandled", ms(10)), "once");
}

#[test]
fn a_node_that_is_lost_in_the_middle_is_one_error_at_each_sender() {
    let mut cluster = Cluster::start();
    let users = Socket::service(cluster.node(2).web, "users", &["get"]);
    let shop = Socket::consumer(cluster.node(1).web, "shop");
    let web = BusClient::connect(cluster.node(3).web);
    wait_for("the service to be known", SOON, || {
        cluster.node(3).web("GET", "/api/services", "").text().contains("users").then_some(())
    });
    shop.ask("m", "users:get", &json!(1));
    let id = web.begin("bus:request", &json!({ "capability": "users", "action": "get" }));
    users.next("message");
    users.next("message");
    cluster.kill(2);
    assert_eq!(shop.next("error")["code"], "instance_lost");
    assert_eq!(web.acked(id)["error"]["code"], "provider_lost");
    assert!(!shop.hears("error", ms(300)), "once");
    shop.event("service-offline");
    shop.ask("n", "users:get", &json!(1));
    assert_eq!(shop.next("unhandled")["reason"], "no_service");
}

#[test]
fn a_sender_that_is_lost_is_not_answered() {
    let node = Node::start(&Options::new());
    let (users, shop) = asked(node.web);
    shop.cut();
    drop(shop);
    std::thread::sleep(ms(100));
    users.send(&json!({ "type": "response", "id": "m", "payload": 1 }));
    // Whether that is told depends on what came first; it harms nobody.
    users.send(&json!({ "type": "ping" }));
    users.next("pong");
}

#[test]
fn without_a_majority_nobody_registers_and_who_is_there_is_sent_elsewhere() {
    let mut cluster = Cluster::start();
    let shop = Socket::consumer(cluster.node(1).web, "shop");
    cluster.kill(2);
    cluster.kill(3);
    wait_for("the node to see it", SOON, || (cluster.node(1).web("GET", "/readyz", "").status == 503).then_some(()));
    let late = Socket::connect(cluster.node(1).web);
    late.send(&json!({ "name": "late", "version": "1", "methods": ["x"] }));
    assert_eq!((&late.next("error")["code"], late.end()), (&json!("unavailable"), 1013));
    assert_eq!(shop.end(), 1001);
}

#[test]
fn a_node_that_stops_says_so_and_lets_requests_end() {
    let mut node = Node::start(&Options::new());
    let (users, shop) = asked(node.web);
    node.signal_term();
    let farewell = users.next("disconnect");
    assert_eq!((&farewell["code"], &farewell["reason"]), (&json!(1001), &json!("node stopping")));
    users.send(&json!({ "type": "response", "id": "m", "payload": "in time" }));
    assert_eq!(shop.next("response")["payload"], "in time");
    assert_eq!((users.end(), shop.end()), (1001, 1001));
    assert!(!users.hears("disconnect", ms(0)), "it is told once");
    node.stopped();
}

#[test]
fn a_node_that_stops_waits_for_answers_as_long_as_drain_timeout_promises() {
    let mut node = Node::start(&Options::new());
    let (users, shop) = asked(node.web);
    node.signal_term();
    users.next("disconnect");
    // Later than HTTP listeners are waited for, within the ten seconds of websocket.drain_timeout.
    std::thread::sleep(Duration::from_secs(8));
    users.send(&json!({ "type": "response", "id": "m", "payload": "in time" }));
    assert_eq!(shop.next("response")["payload"], "in time");
    assert_eq!((users.end(), shop.end()), (1001, 1001));
    node.stopped();
}

#[test]
fn a_node_that_stops_ends_who_is_too_late_with_a_close_frame() {
    let mut node = Node::start(&Options::new().env("ROLLBOOK_WEBSOCKET__DRAIN_TIMEOUT", "6s"));
    let (users, shop) = asked(node.web);
    let began = Instant::now();
    node.signal_term();
    assert_eq!((users.end(), shop.end()), (1001, 1001));
    assert!(began.elapsed() > Duration::from_secs(5), "{:?}", began.elapsed());
    node.stopped();
}

#[test]
fn a_connection_that_leaves_ends_as_soon_as_its_last_request_is_over_by_its_deadline() {
    let node = Node::start(&Options::new());
    let users = Socket::service(node.web, "users", &["get"]);
    let shop = Socket::consumer(node.web, "shop");
    shop.send(&json!({
        "type": "message", "id": "m", "destination": "users:get", "responder": "cb", "payload": 1, "timeout_ms": 1000,
    }));
    users.next("message");
    let began = Instant::now();
    users.send(&json!({ "type": "disconnect" }));
    assert_eq!(users.end(), 1000);
    let took = began.elapsed();
    assert!(took > ms(500) && took < Duration::from_secs(5), "it left after {took:?}");
}

#[test]
fn what_is_too_large_ends_the_connection_and_memory_stays_flat() {
    let node = Node::start(&Options::new().env("ROLLBOOK_WEBSOCKET__MESSAGE_BYTES_MAX", "1000"));
    let exact = format!("{{\"type\":\"ping\",\"x\":\"{}\"}}", "x".repeat(1000 - 22));
    let client = Socket::consumer(node.web, "exact");
    client.send_text(&exact);
    client.next("pong");
    client.send_text(&format!("{exact} "));
    assert_eq!(client.end(), 1009);
    let before = resident(node.pid());
    for length in [1 << 30, 1 << 40, 1 << 62] {
        let mut tcp = TcpStream::connect(node.web).expect("a connection");
        rfc6455::upgrade(&mut tcp);
        let mut header = vec![0x81, 0xff];
        header.extend(u64::to_be_bytes(length));
        header.extend([1, 2, 3, 4]);
        tcp.write_all(&header).expect("written");
        // The payload never comes.
        assert_eq!(rfc6455::close_code(&rfc6455::read_to_end(&mut tcp)), Some(1009), "{length}");
    }
    let mut tcp = TcpStream::connect(node.web).expect("a connection");
    rfc6455::upgrade(&mut tcp);
    for first in [0x01].into_iter().chain(std::iter::repeat_n(0x00, 10)) {
        rfc6455::send(&mut tcp, first, &[b'x'; 200]);
    }
    assert_eq!(rfc6455::close_code(&rfc6455::read_to_end(&mut tcp)), Some(1009), "fragments count together");
    let grown = resident(node.pid()).saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes");
}

#[test]
fn what_comes_behind_nonsense_is_read_and_forgotten() {
    let node = Node::start(&Options::new());
    let before = resident(node.pid());
    let mut tcp = TcpStream::connect(node.web).expect("a connection");
    rfc6455::upgrade(&mut tcp);
    // An opcode that there is not: farewell is said, and its answer waited for.
    rfc6455::send(&mut tcp, 0x83, b"");
    let (chunk, began) = (vec![0; 1 << 20], Instant::now());
    let mut grown = 0;
    while began.elapsed() < Duration::from_secs(1) && tcp.write_all(&chunk).is_ok() {
        grown = grown.max(resident(node.pid()).saturating_sub(before));
    }
    assert!(grown < 8 << 20, "{grown} bytes");
    drop(tcp.shutdown(std::net::Shutdown::Write));
    assert_eq!(rfc6455::close_code(&rfc6455::read_to_end(&mut tcp)), Some(1002));
}

#[test]
fn a_flood_of_pings_costs_nothing_but_time() {
    let node = Node::start(&Options::new());
    let other = Socket::consumer(node.web, "other");
    let mut tcp = TcpStream::connect(node.web).expect("a connection");
    rfc6455::upgrade(&mut tcp);
    let ping = rfc6455::frame(0x89, &[b'p'; 125]);
    let many = ping.repeat(2000);
    let before = resident(node.pid());
    tcp.set_write_timeout(Some(ms(500))).expect("an option");
    // Not one of the answers is read.
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) && tcp.write_all(&many).is_ok() {}
    let grown = resident(node.pid()).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    other.send(&json!({ "type": "ping" }));
    other.next("pong");
}

#[test]
fn a_client_that_never_reads_is_sent_away_and_disturbs_nobody() {
    let options = Options::new().env("ROLLBOOK_WEBSOCKET__QUEUE_BYTES_MAX", "2000000");
    let node = Node::start(&options.env("ROLLBOOK_WEBSOCKET__MESSAGE_BYTES_MAX", "1000000"));
    let mut stuck = TcpStream::connect(node.web).expect("a connection");
    rfc6455::upgrade(&mut stuck);
    rfc6455::send_text(&mut stuck, r#"{"name":"users","version":"1","methods":["get"],"instance":"stuck"}"#);
    let shop = Socket::consumer(node.web, "shop");
    wait_for("the service", SOON, || node.web("GET", "/api/services", "").text().contains("users").then_some(()));
    // Requests wait for it until its queue is full; then there is nobody who could take them.
    let payload = json!("x".repeat(100_000));
    let mut sent = 0;
    let full = (0..200).any(|n| {
        shop.ask(&format!("m{n}"), "users:get", &payload);
        sent = n;
        shop.hears("unhandled", ms(30))
    });
    assert!(full, "{sent} requests of 100 kB were taken");
    assert_eq!(shop.next("unhandled")["reason"], "overloaded");
    // Another instance takes them at once.
    let good = Socket::service(node.web, "users", &["get"]);
    shop.ask("good", "users:get", &json!(1));
    good.serve_one(|_| json!(2));
    shop.take_where("the response", |frame| frame["id"] == "good");
    // A broadcast is skipped; an event of the roll cannot be.
    shop.send(&json!({ "type": "broadcast", "payload": 1 }));
    good.next("broadcast");
    let _comes = Socket::service(node.web, "more", &["x"]);
    wait_for("it to be sent away", SOON, || {
        (node.web("GET", "/api/services/users", "").json()["instances"].as_array().map(Vec::len) == Some(1))
            .then_some(())
    });
    let metrics = node.web("GET", "/metrics", "").text();
    assert!(metrics.contains("rollbook_clients_slow_total 1"), "{metrics}");
    assert!(!metrics.contains("rollbook_notifications_skipped_total 0"), "{metrics}");
    // When it reads in the end, it finds out why.
    assert_eq!(rfc6455::close_code(&rfc6455::read_to_end(&mut stuck)), Some(4429));
    shop.send(&json!({ "type": "ping" }));
    shop.next("pong");
}

#[test]
fn more_messages_than_may_be_on_their_way_are_refused() {
    let node = Node::start(&Options::new().env("ROLLBOOK_WEBSOCKET__IN_FLIGHT_MAX", "3"));
    let users = Socket::service(node.web, "users", &["get"]);
    let shop = Socket::consumer(node.web, "shop");
    (0..4).for_each(|n| shop.ask(&format!("m{n}"), "users:get", &json!(n)));
    let refused = shop.next("error");
    assert_eq!(
        (&refused["code"], &refused["id"], &refused["retryable"]),
        (&json!("overloaded"), &json!("m3"), &json!(true))
    );
    users.serve_one(|_| json!(1));
    shop.next("response");
    shop.ask("again", "users:get", &json!(1));
    assert!(!shop.hears("error", ms(100)));
}

#[test]
fn what_the_web_server_is_asked_beside_an_upgrade_is_answered() {
    let node = Node::start(&Options::new().env("ROLLBOOK_WEBSOCKET__CONNECTIONS_MAX", "1"));
    let plain = node.web("GET", "/ws", "");
    assert_eq!((plain.status, plain.header("upgrade")), (426, Some("websocket")));
    let post = node.web("POST", "/ws", "{}");
    assert_eq!((post.status, post.header("allow")), (405, Some("GET")));
    let upgrade = |more: &[(&str, &str)]| {
        let mut headers = vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        for (name, value) in more {
            headers.retain(|(known, _)| known != name);
            headers.push((name, value));
        }
        let mut http = crate::harness::http::Http::connect(node.web);
        let mut head = crate::harness::http::head("GET", "/ws", &headers);
        head.extend(b"\r\n");
        http.send(&head).expect("written");
        http.read_head().expect("an answer")
    };
    let accepted = upgrade(&[("Sec-WebSocket-Protocol", "other, rollbook.v1, bearer.secret")]);
    assert_eq!((accepted.status, accepted.header("sec-websocket-protocol")), (101, Some("rollbook.v1")));
    assert_eq!(accepted.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    assert_eq!(upgrade(&[("Origin", "http://evil.example")]).status, 403);
    wait_for("room", SOON, || (upgrade(&[]).status == 101).then_some(()));
    let old = upgrade(&[("Sec-WebSocket-Version", "8")]);
    assert_eq!((old.status, old.header("sec-websocket-version")), (426, Some("13")));
    assert_eq!(upgrade(&[("Sec-WebSocket-Key", "")]).status, 400);
    let _one = Socket::consumer(node.web, "one");
    assert_eq!(upgrade(&[]).status, 503);
}

#[test]
fn binary_frames_are_not_taken_and_any_garbage_ends_only_its_own_connection() {
    let node = Node::start(&Options::new());
    let other = Socket::consumer(node.web, "other");
    let client = Socket::consumer(node.web, "client");
    client.send_message(Message::binary(vec![1, 2, 3]));
    assert_eq!(client.end(), 1003);
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_secs());
    eprintln!("seed {seed}");
    let mut state = seed | 1;
    for _ in 0..100 {
        let mut tcp = TcpStream::connect(node.web).expect("a connection");
        rfc6455::upgrade(&mut tcp);
        let bytes: Vec<u8> = (0..512)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 33) as u8
            })
            .collect();
        drop(tcp.write_all(&bytes));
        drop(tcp.shutdown(std::net::Shutdown::Write));
        drop(tcp.read_to_end(&mut Vec::new()));
    }
    other.send(&json!({ "type": "ping" }));
    other.next("pong");
}
