//! Clients that send what they should not: the documented error, and nothing else is affected.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, ms, wait_for};

#[test]
fn a_registration_that_is_wrong_is_refused_by_name_of_the_field() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    let many: Vec<String> = (0..300).map(|n| format!("c{n}")).collect();
    let cases: [(Value, &str); 14] = [
        (json!(null), "object"),
        (json!("svc"), "object"),
        (json!({}), "id"),
        (json!({ "id": "" }), "service id"),
        (json!({ "id": 7 }), "string"),
        (json!({ "id": " svc" }), "service id"),
        (json!({ "id": "a\u{0}b" }), "service id"),
        (json!({ "id": "x".repeat(129) }), "service id"),
        (json!({ "id": "svc", "port": 70000 }), "port"),
        (json!({ "id": "svc", "port": "eighty" }), "port"),
        (json!({ "id": "svc", "capabilities": "users" }), "list"),
        (json!({ "id": "svc", "capabilities": [{ "description": "no name" }] }), "capability"),
        (json!({ "id": "svc", "capabilities": ["a", "a"] }), "twice"),
        (json!({ "id": "svc", "capabilities": many }), "capabilities"),
    ];
    for (register, word) in cases {
        let answer = client.ask("bus:register", &register);
        let message = answer["error"]["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer["error"]["code"], "bad_request", "{register}: {answer}");
        assert!(message.contains(word), "{register}: {message} does not name {word}");
    }
    // Without an acknowledgement the client hears of it all the same.
    client.emit("bus:register", &json!({}));
    let told = client.event("bus:error");
    assert_eq!(
        (&told.args[0]["event"], &told.args[0]["error"]["code"]),
        (&json!("bus:register"), &json!("bad_request"))
    );
    client.register("svc", &[]);
}

#[test]
fn an_auth_that_is_wrong_is_refused() {
    let node = Node::start(&Options::new());
    for auth in [json!({ "appId": 7 }), json!({ "appPort": 99999 }), json!({ "appName": [] })] {
        let refused = BusClient::try_connect(node.web, &auth).err().unwrap_or_default();
        assert!(refused.starts_with("44{") && refused.contains("bad_request"), "{auth}: {refused}");
    }
}

#[test]
fn what_the_bus_does_not_know_is_answered() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    assert_eq!(client.ask("bus:restart", &json!({}))["error"]["code"], "bad_request");
    assert_eq!(client.ask("anything", &json!({}))["error"]["code"], "bad_request");
    for event in ["bus:heartbeat", "bus:response"] {
        assert_eq!(client.ask(event, &json!({ "requestId": "x", "success": true }))["success"], false, "{event}");
    }
    assert_eq!(client.ask("bus:heartbeat", &json!({}))["error"]["code"], "not_registered");
    client.register("svc", &[]);
    for beat in [json!(1), json!([]), json!({ "note": "x".repeat(5000) })] {
        assert_eq!(client.ask("bus:heartbeat", &beat)["error"]["code"], "bad_request");
    }
    assert_eq!(client.ask("bus:heartbeat", &json!({}))["success"], true);
}

#[test]
fn a_client_that_does_not_read_is_disconnected_and_others_do_not_notice() {
    let options = Options::new();
    let options = options.env("ROLLBOOK_SOCKETIO__QUEUE_BYTES_MAX", "1000000");
    let node = Node::start(&options);
    let (sender, receiver) = (BusClient::connect(node.web), BusClient::connect(node.web));
    let mut deaf = TcpStream::connect(node.web).expect("connect");
    let upgrade = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    deaf.write_all(upgrade.as_bytes()).expect("write");
    let frame = |text: &str| {
        let mut out = vec![0x81, 0x80 | 126];
        out.extend(u16::try_from(text.len()).expect("short").to_be_bytes());
        out.extend([0; 4]);
        out.extend(text.as_bytes());
        out
    };
    deaf.write_all(&frame("40")).expect("write");
    deaf.write_all(&frame("42[\"bus:register\",{\"id\":\"deaf\"}]")).expect("write");
    sender.event("service:online");
    sender.register("sender", &[]);
    receiver.register("receiver", &[]);
    let big = "x".repeat(100_000);
    for n in 0..200 {
        let said = sender.ask("bus:notify", &json!({ "event": "big", "data": [n, big], "volatile": true }));
        assert_eq!(said["success"], true, "{said}");
        receiver.event("big");
        if sender.hears("service:offline", ms(0)) {
            break;
        }
    }
    let told = sender.event("service:offline");
    assert_eq!(told.args[0]["id"], "deaf");
    let metrics = node.web("GET", "/metrics", "").text();
    assert!(metrics.contains("rollbook_clients 2"), "{metrics}");
}

#[test]
fn a_frame_that_announces_too_much_is_never_kept() {
    let node = Node::start(&Options::new());
    let mut bomb = TcpStream::connect(node.web).expect("connect");
    let upgrade = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                   Connection: Upgrade\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    bomb.write_all(upgrade.as_bytes()).expect("write");
    let mut head = vec![0x82, 0x80 | 127];
    head.extend((1_u64 << 40).to_be_bytes());
    head.extend([0; 4]);
    bomb.write_all(&head).expect("write");
    bomb.set_read_timeout(Some(SOON)).expect("a timeout");
    let mut rest = Vec::new();
    // The connection may be reset before the close frame is read.
    drop(bomb.read_to_end(&mut rest));
    let close = rest.windows(4).any(|bytes| bytes == [0x88, 0x02, 0x03, 0xf1]);
    assert!(close, "close code 1009: {:?}", String::from_utf8_lossy(&rest));
}

#[test]
fn handshakes_alone_do_not_take_the_place_of_clients() {
    let node = Node::start(&Options::new().env("ROLLBOOK_SOCKETIO__CONNECTIONS_MAX", "200"));
    let target = "/socket.io/?EIO=4&transport=polling";
    let shake = || node.web("GET", target, "");
    let shaken: Vec<String> = (0..16)
        .map(|_| {
            let open = shake();
            assert_eq!(open.status, 200, "{}", open.text());
            let open: Value = serde_json::from_str(open.text().get(1..).unwrap_or_default()).expect("JSON");
            open["sid"].as_str().expect("an id").to_owned()
        })
        .collect();
    let refused = shake();
    assert_eq!((refused.status, refused.header("Retry-After")), (503, Some("1")), "{}", refused.text());
    let there = BusClient::try_connect(node.web, &json!({}));
    assert!(there.is_err_and(|error| error.contains("503")), "whatever its transport");
    // Each that joins makes room for another.
    for sid in &shaken[..4] {
        assert_eq!(node.web("POST", &format!("{target}&sid={sid}"), "40").status, 200);
    }
    let clients: Vec<BusClient> = (0..20).map(|_| BusClient::connect(node.web)).collect();
    assert_eq!(clients.len(), 20);
    // Those that say nothing at all are soon forgotten.
    let taken = (0..9).take_while(|_| shake().status == 200).count();
    assert_eq!(taken, 4, "one place for each that has joined");
    wait_for("the first ones to be forgotten", SOON * 2, || (shake().status == 200).then_some(()));
}

#[test]
fn a_flood_from_one_client_does_not_stop_another() {
    let node = Node::start(&Options::new());
    let (flood, other) = (BusClient::connect(node.web), BusClient::connect(node.web));
    flood.register("flood", &[]);
    let (provider, caller) = (BusClient::connect(node.web), other);
    provider.register("svc", &["work"]);
    let ids: Vec<u64> = (0..5000).map(|_| flood.begin("bus:request", &json!({ "capability": "work" }))).collect();
    // More than one client may have in flight: refused, not kept.
    let over = flood.acked(ids[4999]);
    assert_eq!(over["error"]["code"], "overloaded", "{over}");
    let id = caller.begin("config:request", &json!(null));
    assert_eq!(caller.acked(id), json!({}));
    assert_eq!(node.web("GET", "/api/stats", "").status, 200);
}

#[test]
fn malformed_packets_cost_only_their_own_connection() {
    let node = Node::start(&Options::new());
    let witness = BusClient::connect(node.web);
    witness.register("witness", &[]);
    for packet in ["4abc", "42{}", "4", "abc", "40", "42/nowhere,[\"x\"]", "451-[\"x\"]\u{1}", "2"] {
        let client = BusClient::connect(node.web);
        client.send_raw(packet);
        if packet.starts_with("451-") {
            client.send_raw("42[\"x\"]");
        }
        client.end();
    }
    assert_eq!(witness.ask("bus:heartbeat", &json!({}))["success"], true);
}
