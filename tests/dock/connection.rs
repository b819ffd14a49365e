//! The connection to the hub.

use std::time::Duration;

use rollbook::doors::hms::wire::frame::{Frame, FrameKind};
use rollbook::doors::hms::wire::op::Op;
use rustix::process::Signal;
use serde_json::json;

use crate::dock::agent::{Agent, is_alive, signal, wait_for};
use crate::dock::hub::Hub;

#[test]
fn the_dock_opens_like_a_stock_dock_and_says_who_it_is() {
    let hub = Hub::new();
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "t0ken\n").unwrap();
    let agent = Agent::start(&[&hub], &["--tag", "web", "--token-file", token.to_str().unwrap()]);
    let mut dock = hub.accept();
    assert!(dock.head.starts_with(&format!("CONNECT / HTTP/1.1\r\norigin: {}\r\n", agent.id)), "{}", dock.head);
    assert!(dock.head.contains("\r\nAuthorization: Bearer t0ken\r\n"));
    let expected = json!({"type": "dock", "version": "0.4.4", "id": agent.id, "tags": ["web"], "default": true,
        "protocol": 1, "token": "t0ken", "agent": "rollbook"});
    for (key, value) in expected.as_object().unwrap() {
        assert_eq!(&dock.handshake[key], value, "{key}");
    }
    assert!(!dock.handshake["hostname"].as_str().unwrap().is_empty());
    let mut ping = bytes::BytesMut::new();
    Frame { kind: FrameKind::Ping, id: 77, body: "ignored".into() }.encode(&mut ping).unwrap();
    dock.write(&ping);
    assert_eq!(dock.next_frame(), Frame { kind: FrameKind::Response, id: 77, body: bytes::Bytes::new() });
}

#[test]
fn subscriptions_that_come_before_the_handshake_is_answered_count() {
    let hub = Hub::new();
    let _agent = Agent::start(&[&hub], &[]);
    let mut dock = hub.accept_without_handshake();
    let id = dock.send(Op::Subscribe, "*", "");
    // The answer to the handshake has the id 0 too, so the order of the two shows which is which.
    dock.shake_hands();
    dock.answer(Op::Subscribe, id).unwrap();
    dock.run("app", json!({"start": "sh -c 'echo hello; sleep 1000'"}));
    dock.read_until("app", "hello\n");
}

#[test]
fn a_dock_goes_to_another_node_and_tells_what_happened_meanwhile() {
    let (first, second) = (Hub::new(), Hub::new());
    let agent = Agent::start(&[&first, &second], &[]);
    let (mut dock, other) = Hub::accept_at_one(first, second);
    dock.request(Op::Subscribe, "app", "").unwrap();
    let script = "n=0; while true; do n=$((n+1)); echo line $n; sleep 0.01; done";
    dock.run("app", json!({"start": format!("sh -c '{script}'")}));
    dock.run("job", json!({"start": "sleep 1000", "restart": "never"}));
    let (app, job) = (dock.spawned("app"), dock.spawned("job"));
    let before = dock.read_until("app", "0\n");
    drop(dock);
    signal(job, Signal::KILL);
    let mut dock = other.accept();
    dock.request(Op::Subscribe, "app", "").unwrap();
    let mut exited = false;
    let mut after = String::new();
    while !exited || after.lines().count() < 50 {
        let event = dock.next_event();
        match event.op {
            Op::Exit => exited = event.id == "job",
            Op::Stdout => after.push_str(&String::from_utf8_lossy(&event.payload)),
            _ => {}
        }
    }
    assert!(is_alive(app));
    let number = |line: Option<&str>| line.unwrap().trim_start_matches("line ").parse::<u32>().unwrap();
    let numbers: Vec<u32> = after.lines().map(|line| number(Some(line))).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1), "the output has no gap: {numbers:?}");
    // What was under way when the connection ended may be lost, and is little. A busy machine may take seconds to end it.
    assert!(numbers[0] <= number(before.lines().last()) + 500, "{} {}", before, numbers[0]);
    assert_eq!(dock.ps("app")["pid"], app);
    drop(agent);
}

#[test]
fn a_hub_that_is_paused_is_noticed_and_left() {
    let (paused, other) = (Hub::new(), Hub::new());
    let agent = Agent::start(&[&paused, &other], &["--ping-interval", "200ms", "--ping-timeout", "300ms"]);
    let (mut dock, other) = Hub::accept_at_one(paused, other);
    dock.run("app", json!({"start": "sleep 1000"}));
    let pid = dock.spawned("app");
    // Nobody reads from `dock` any more, so no ping is answered.
    let mut second = other.accept();
    assert_eq!(second.ps("app")["pid"], pid);
    assert_eq!(second.spawned("app"), pid, "an event that the paused hub may not have read is told again");
    drop((dock, agent));
}

#[test]
fn a_node_that_refuses_or_talks_nonsense_is_passed_over() {
    use std::io::Write as _;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        let answers: [&[u8]; 3] = [
            b"HTTP/1.1 403 Forbidden\r\n\r\nno",
            b"HTTP/1.1 101 Swiching Protocols\r\n\r\n\x03\0\0\x07\0\0\0refused",
            b"HTTP/1.1 101 Swiching Protocols\r\n\r\n\x02\0\0\xff\xff\xff\xff",
        ];
        for answer in answers.iter().cycle() {
            let Ok((mut stream, _)) = listener.accept() else { return };
            stream.write_all(answer).ok();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let mut hub = Hub::new();
    let real = hub.address.clone();
    hub.address = format!("{address},{address},{address},{real}");
    let _agent = Agent::start(&[&hub], &[]);
    hub.address = real;
    let mut dock = hub.accept();
    dock.run("app", json!({"start": "sleep 1000"}));
    wait_for("the service runs", || (dock.ps("app")["status"] == "running").then_some(()));
}
