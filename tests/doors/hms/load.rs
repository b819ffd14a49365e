//! Many docks, and much output. Prints its figures; the bounds are those of a busy machine that also runs the docks.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::client::{Hms, address, frame, kind, message, op, options};
use crate::harness::cluster::Cluster;
use crate::harness::node::Node;
use crate::harness::{SOON, ms, wait_for};

const DOCKS: usize = 500;
const PROCESSES: usize = 20;

/// What a dock with this many processes tells.
fn told(dock: usize) -> Vec<u8> {
    let list: Vec<Value> = (0..PROCESSES)
        .map(|number| {
            json!({
                "id": format!("app{number}"), "status": "running", "started": "2026-11-21T10:00:00.000Z", "pid": 1000 + number,
                "command": ["node", "server.js"], "cwd": "/srv/builds/app", "env": {"SERVICE_NAME": "app", "COLOR": "green"},
                "revision": "v1", "deployed": "2026-11-21T10:00:00.000Z"
            })
        })
        .collect();
    json!({"id": format!("d{dock}"), "list": list}).to_string().into_bytes()
}

/// Docks that do what they are asked, in a few threads.
fn obedient(node: &Node) {
    let address = address(node);
    let threads: Vec<_> = (0..DOCKS)
        .collect::<Vec<_>>()
        .chunks(DOCKS / 10)
        .map(|numbers| {
            let numbers = numbers.to_vec();
            std::thread::spawn(move || {
                let connect = |number: usize| Hms::try_dock(address, &format!("d{number}"), &[]).expect("a dock");
                numbers.into_iter().map(|number| (number, connect(number))).collect::<Vec<_>>()
            })
        })
        .collect();
    for (number, mut dock) in threads.into_iter().flat_map(|thread| thread.join().expect("docks")) {
        let ps = told(number);
        std::thread::Builder::new()
            .stack_size(128 * 1024)
            .spawn(move || {
                while let Some(next) = dock.try_frame() {
                    match next.kind {
                        kind::PING => dock.answer(next.id, b""),
                        kind::REQUEST if next.body[0] == op::PS => dock.answer(next.id, &ps),
                        kind::REQUEST => dock.answer(next.id, b""),
                        _ => {}
                    }
                }
            })
            .expect("a thread");
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[test]
fn five_hundred_docks_tell_and_obey_at_once() {
    let node = Node::start(&options());
    obedient(&node);
    let mut client = Hms::client(&node);
    client.ask(op::ADD, "app1", &json!({"start": "x"})).expect("added");
    let timed = |client: &mut Hms, operation: u8, id: &str| {
        let begun = Instant::now();
        let number = client.request(operation, id, b"");
        let answer = client.answered(number).expect("an answer");
        (begun.elapsed(), answer)
    };
    let (_, first) = timed(&mut client, op::PS, "");
    let docks: Value = serde_json::from_slice(&first).expect("JSON");
    let processes: usize =
        docks.as_array().into_iter().flatten().map(|dock| dock["list"].as_array().map_or(0, Vec::len)).sum();
    assert_eq!(processes, DOCKS * PROCESSES);
    let ps = median((0..5).map(|_| timed(&mut client, op::PS, "").0).collect());
    let restart = median((0..5).map(|_| timed(&mut client, op::RESTART, "app1").0).collect());
    eprintln!("{DOCKS} docks with {PROCESSES} processes: ps {ps:?}, restart on all {restart:?}");
    assert!(ps < Duration::from_secs(3), "ps takes {ps:?}");
    assert!(restart < Duration::from_secs(3), "restart takes {restart:?}");
}

/// Follows everything until an exit: lines, notices of drops, and how long that took.
fn read_to_exit(mut client: Hms) -> (usize, usize, Duration) {
    let (mut lines, mut notices, begun) = (0, 0, Instant::now());
    loop {
        let heard = client.heard();
        match heard.op {
            op::STDOUT => lines += heard.payload.iter().filter(|byte| **byte == b'\n').count(),
            op::STDERR => notices += 1,
            op::EXIT => return (lines, notices, begun.elapsed()),
            _ => {}
        }
    }
}

/// Sends so many lines at so many a second, and then an exit.
fn say(dock: &mut Hms, lines: usize, per_second: u64) -> Duration {
    // As docks do: what has come since the last look is one message.
    let line = "2026-11-21T10:00:00.000Z info request 12345 GET /orders 200 in 12 ms\n";
    let piece = line.repeat(20);
    let body = frame(kind::MESSAGE, 0, &message(op::STDOUT, "app1@d1", piece.as_bytes()));
    let begun = Instant::now();
    for round in 0..lines / 20 {
        dock.send(&body);
        let due = Duration::from_micros(u64::try_from(round).expect("a number") * 20_000_000 / per_second);
        if let Some(early) = due.checked_sub(begun.elapsed()) {
            std::thread::sleep(early);
        }
    }
    dock.tell(op::EXIT, "app1@d1", b"0");
    begun.elapsed()
}

#[test]
fn a_hundred_thousand_lines_a_second_come_through_one_node() {
    let node = Node::start(&options());
    let mut dock = Hms::dock(&node, "d1", &[]);
    let mut client = Hms::client(&node);
    client.do_(op::SUBSCRIBE, "*").expect("subscribed");
    let reader = std::thread::spawn(move || read_to_exit(client));
    let sent = say(&mut dock, 200_000, 130_000);
    let (lines, notices, took) = reader.join().expect("read");
    eprintln!("200000 lines sent in {sent:?}, read in {took:?}, notices of drops: {notices}");
    assert_eq!((lines, notices), (200_000, 0));
    assert!(took < Duration::from_secs(4), "much less than 100,000 lines a second: {took:?}");
}

#[test]
fn twenty_thousand_lines_a_second_come_across_two_nodes() {
    let cluster = Cluster::start_with(options());
    let mut dock = Hms::dock(cluster.node(1), "d1", &[]);
    let mut client = Hms::client(cluster.node(2));
    client.do_(op::SUBSCRIBE, "*").expect("subscribed");
    wait_for("the interest at the other node", SOON, || {
        dock.tell(op::SPAWN, "probe@x", b"1");
        (!client.is_quiet(ms(50))).then_some(())
    });
    let reader = std::thread::spawn(move || read_to_exit(client));
    let sent = say(&mut dock, 60_000, 25_000);
    let (lines, notices, took) = reader.join().expect("read");
    eprintln!("60000 lines across two nodes sent in {sent:?}, read in {took:?}, notices of drops: {notices}");
    assert_eq!((lines, notices), (60_000, 0));
    assert!(took < Duration::from_secs(6), "much less than 20,000 lines a second: {took:?}");
}
