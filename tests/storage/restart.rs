//! Stops and starts: SIGTERM drains, streams end cleanly, everything is there again.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::http::Http;
use crate::harness::node::{Node, Options, target};
use crate::harness::sse::{End, Frame, Sse};
use crate::harness::{SOON, ms};

/// The milliseconds of a `retry:` line at the end of a stream.
fn last_retry(raw: &str) -> u64 {
    let line = raw.trim_end_matches('\n').lines().last().unwrap_or_default();
    let millis = line.strip_prefix("retry: ").and_then(|text| text.parse().ok());
    millis.unwrap_or_else(|| panic!("the stream ends without a retry line: {raw:?}"))
}

#[test]
fn streams_end_cleanly_with_a_retry_hint_when_the_node_stops() {
    let mut node = Node::start(&Options::new());
    node.publish("app.x", "1");
    let mut streams: Vec<Sse> = (0..5).map(|_| node.replay("app.>")).collect();
    streams.push(node.subscribe(&[("subject", "app.x"), ("start", "oldest"), ("ack", "manual")]));
    streams.push(node.subscribe(&[("subject", "app.x"), ("start", "oldest"), ("group", "g")]));
    streams.push(node.subscribe(&[("subject", "_bus_.x")]));
    for stream in streams.iter_mut().take(7) {
        assert_eq!(stream.next_event(SOON).payload(), 1);
    }
    let asked = Instant::now();
    node.signal_term();
    let mut hints = Vec::new();
    for stream in &mut streams {
        assert_eq!(stream.end(SOON), End::Clean, "{}", stream.raw());
        let hint = last_retry(&stream.raw());
        assert!((500..=3000).contains(&hint), "retry: {hint}");
        hints.push(hint);
    }
    node.stopped();
    assert!(asked.elapsed() < SOON, "the stop took {:?}", asked.elapsed());
    hints.sort_unstable();
    hints.dedup();
    assert!(hints.len() > 1, "clients should come back spread out: {hints:?}");
}

#[test]
fn an_idle_keep_alive_connection_does_not_hold_up_the_stop() {
    let mut node = Node::start(&Options::new());
    let mut idle: Vec<Http> = (0..10).map(|_| node.http()).collect();
    for http in idle.iter_mut().take(5) {
        http.post("{\"subject\":\"app.x\"}").published();
    }
    let asked = Instant::now();
    node.terminate();
    assert!(asked.elapsed() < SOON, "the stop took {:?}", asked.elapsed());
}

#[test]
fn publishes_during_a_stop_are_stored_or_refused_but_never_lost() {
    let mut node = Node::start(&Options::new());
    let stop = AtomicBool::new(false);
    let results: Vec<(String, Option<i64>)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (address, stop) = (node.log, &stop);
                scope.spawn(move || publish_until(address, writer, stop))
            })
            .collect();
        std::thread::sleep(ms(300));
        node.terminate();
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().flat_map(|writer| writer.join().expect("a writer")).collect()
    });
    node.restart();
    let last = node.publish("app.end", "1").index;
    let count = usize::try_from(last).expect("a count");
    let events = node.replay("app.>").events(count, SOON);
    let stored: Vec<String> = events.iter().map(|event| event.payload().to_string()).collect();
    for (payload, index) in &results {
        let places: Vec<usize> = (0..count).filter(|place| stored.get(*place) == Some(payload)).collect();
        match index {
            Some(0) => assert_eq!(places, [0_usize; 0], "{payload} was refused and is stored"),
            Some(index) => {
                let place = usize::try_from(index - 1).expect("an index");
                assert_eq!(places, [place], "{payload} was acknowledged as {index}");
            }
            None => assert!(places.len() < 2, "{payload} is stored twice"),
        }
    }
    assert!(results.iter().filter(|(_, index)| index.is_some_and(|index| index > 0)).count() > 10);
}

/// Payload and index of each publish; index 0 if refused, none if there was no answer.
fn publish_until(address: SocketAddr, writer: u32, stop: &AtomicBool) -> Vec<(String, Option<i64>)> {
    let mut results = Vec::new();
    let mut http = None;
    for n in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let payload = format!("\"{writer}-{n}\"");
        let body = format!("{{\"subject\":\"app.x\",\"payload\":{payload}}}");
        let connection = match &mut http {
            Some(open) => open,
            None => match Http::try_connect(address) {
                Ok(open) => http.insert(open),
                Err(_) => break,
            },
        };
        match connection.try_request("POST", "/", &[], body.as_bytes()) {
            Ok(answer) if answer.status == 202 => results.push((payload, Some(answer.published().index))),
            Ok(answer) => {
                assert_eq!(answer.status, 503, "{}", answer.text());
                results.push((payload, Some(0)));
            }
            Err(_) => {
                results.push((payload, None));
                http = None;
            }
        }
    }
    results
}

#[test]
fn everything_is_there_again_after_a_stop_and_after_a_kill() {
    let mut node = Node::start(&Options::new());
    let mut made = Vec::new();
    for round in 0..4 {
        for n in 0..5 {
            made.push(node.publish(&format!("app.s{n}"), &format!("[{round},{n}, 1.0]")));
        }
        let before: Vec<String> = raw_frames(&node, made.len());
        if round % 2 == 0 {
            node.terminate();
        }
        node.restart();
        assert_eq!(raw_frames(&node, made.len()), before, "byte for byte, round {round}");
    }
    for (event, want) in node.replay("app.>").events(made.len(), SOON).iter().zip(&made) {
        assert_eq!((event.event_id(), event.index()), (want.id.clone(), want.index));
        assert_eq!(event.json()["created_at"], want.created_at.as_str());
    }
}

fn raw_frames(node: &Node, count: usize) -> Vec<String> {
    let events = node.replay("app.>").events(count, SOON);
    events.into_iter().map(|event: Frame| event.raw).collect()
}

#[test]
fn a_client_resumes_after_a_restart_with_last_event_id_and_misses_nothing() {
    let mut node = Node::start(&Options::new());
    node.publish("app.x", "1");
    let mut stream = node.subscribe(&[("subject", "app.x"), ("start", "oldest")]);
    let last = stream.next_event(SOON).event_id();
    node.publish("app.x", "2");
    node.restart();
    node.publish("app.x", "3");
    let query = target(&[("subject", "app.x")]);
    let mut stream = Sse::open(node.log, &query, &[("Last-Event-ID", &last)]);
    let payloads: Vec<_> = stream.events(2, SOON).iter().map(Frame::payload).collect();
    assert_eq!(payloads, [2, 3]);
}

#[test]
fn a_start_on_an_empty_directory_creates_it() {
    let keep = tempfile::tempdir().expect("temporary directory");
    let data = keep.path().join("not/yet/there");
    let node = Node::start_at(&Options::new(), &data);
    node.publish("app.x", "1");
    assert!(data.is_dir());
}

#[test]
fn the_ready_lines_name_each_open_door() {
    let node = Node::start(&Options::new());
    let (log, web) = (node.log, node.web);
    let lines: Vec<String> = node.stdout().lines().map(str::to_owned).collect();
    let token = lines.get(2).cloned().unwrap_or_default();
    assert!(token.starts_with("root token in ") && token.contains("root.token; keep it"), "{lines:?}");
    let want = [format!("sse   http://{log}/"), format!("web   http://{web}/"), token, "ready".to_owned()];
    assert_eq!(lines, want);
}

#[test]
fn a_stop_right_after_ready_is_clean() {
    let keep = tempfile::tempdir().expect("temporary directory");
    let data = keep.path().join("data");
    let mut node = Node::start_at(&Options::new(), &data);
    node.publish("app.x", "1");
    node.restart();
    let began = Instant::now();
    node.terminate();
    assert!(began.elapsed() < Duration::from_secs(3), "nobody is there to be waited for: {:?}", began.elapsed());
    node.restart();
    assert_eq!(node.publish("app.x", "2").index, 2);
}
