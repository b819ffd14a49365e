//! The bytes of a stream: head, first comment, frames, line breaks, pings, take-over, slow readers.

use std::time::Instant;

use crate::harness::node::{Node, Options, target};
use crate::harness::sse::{End, Sse};
use crate::harness::{SOON, ms};

#[test]
fn the_head_and_the_first_bytes_come_before_any_event() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut stream = node.subscribe(&[("subject", &format!("{ns}.x"))]);
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-cache, no-transform"),
        ("x-accel-buffering", "no"),
        ("transfer-encoding", "chunked"),
    ] {
        stream.head.want(name, value).expect("head of a stream");
    }
    stream.head.cors().expect("CORS headers");
    let id = stream.consumer_id();
    let rest = id.strip_prefix("c_").expect("c_ and 20 characters");
    assert!(rest.len() == 20 && rest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'v').contains(&b)), "{id}");
    let first = stream.next_frame(SOON).expect("the first comment");
    assert_eq!(first.raw, format!(": consumer {id}\n\n"));
    // Nothing was published: whoever comes back begins here.
    let begin = stream.next_frame(SOON).expect("where the stream begins");
    assert_eq!(begin.raw, "id: e_vvvvvvo0000000000000\n\n");
    assert_eq!(stream.raw(), format!("{}{}", first.raw, begin.raw));
}

#[test]
fn a_frame_is_id_event_data_and_nothing_else() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut live = node.subscribe(&[("subject", &format!("{ns}.x"))]);
    let made = node.publish(&format!("{ns}.x"), "{\"a\": 1}");
    let (id, at) = (&made.id, &made.created_at);
    let want = format!(
        "id: {id}\nevent: msg\ndata: {{\"id\":\"{id}\",\"subject\":\"{ns}.x\",\"created_at\":\"{at}\",\"payload\":{{\"a\": 1}},\"index\":1}}\n\n"
    );
    assert_eq!(live.next_event(SOON).raw, want, "live");
    assert_eq!(node.replay(&format!("{ns}.x")).next_event(SOON).raw, want, "replayed");
    let begin = "id: e_vvvvvvo0000000000000\n\n";
    assert_eq!(live.raw(), format!(": consumer {}\n\n{begin}{want}", live.consumer_id()));
}

#[test]
fn line_breaks_in_a_payload_become_data_lines() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let mut live = node.subscribe(&[("subject", &subject)]);
    for (payload, lines) in [
        ("{\n  \"a\": 1\n}", 3),
        ("[1,\r\n2]", 2),
        ("[1,\r2]", 2),
        ("[1,\n\n\n2]", 4),
        ("[1,\r\r\n\n2]", 4),
        ("[\n]", 2),
    ] {
        node.publish(&subject, payload);
        let event = live.next_event(SOON);
        assert!(!event.raw.contains('\r'), "raw CR in {:?}", event.raw);
        let found = event.raw.lines().filter(|line| line.starts_with("data: ")).count();
        assert_eq!(found, lines, "data lines of {payload:?}: {:?}", event.raw);
        let want: serde_json::Value = serde_json::from_str(payload).expect("valid JSON");
        assert_eq!(event.payload(), want, "{payload:?}");
    }
    let replayed = node.replay(&subject).events(6, SOON);
    let all: String = replayed.iter().map(|event| event.raw.as_str()).collect();
    assert!(live.raw().ends_with(&all), "replay and live bytes are the same");
}

#[test]
fn a_stream_is_not_compressed() {
    let node = Node::shared();
    let ns = node.namespace();
    let query = target(&[("subject", &format!("{ns}.x"))]);
    let mut stream = Sse::open(node.log, &query, &[("Accept-Encoding", "gzip, zstd, br, deflate")]);
    assert_eq!(stream.head.header("content-encoding"), None);
    node.publish(&format!("{ns}.x"), "1");
    assert_eq!(stream.next_event(SOON).payload(), 1);
}

#[test]
fn every_connection_gets_a_consumer_id_of_its_own() {
    let node = Node::shared();
    let first = node.subscribe(&[("subject", "a.b")]).consumer_id();
    let second = node.subscribe(&[("subject", "a.b")]).consumer_id();
    assert_ne!(first, second);
    let chosen = node.subscribe(&[("subject", "a.b"), ("consumer_id", "c_my-own_1")]);
    assert_eq!(chosen.consumer_id(), "c_my-own_1");
}

#[test]
fn the_same_consumer_id_takes_the_stream_over() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let query = [("subject", subject.as_str()), ("consumer_id", "c_taken-over")];
    let mut old = node.subscribe(&query);
    node.publish(&subject, "1");
    assert_eq!(old.next_event(SOON).payload(), 1);
    let mut new = node.subscribe(&query);
    assert_eq!(old.end(SOON), End::Clean, "the old stream ends cleanly");
    node.publish(&subject, "2");
    assert_eq!(new.next_event(SOON).payload(), 2);
    assert!(!old.raw().contains("\"payload\":2"), "delivered twice");
    // And once more: the survivor of a take-over can be taken over.
    let mut third = node.subscribe(&query);
    assert_eq!(new.end(SOON), End::Clean);
    node.publish(&subject, "3");
    assert_eq!(third.next_event(SOON).payload(), 3);
}

#[test]
fn a_ping_comes_after_silence_and_each_write_restarts_the_clock() {
    let node = Node::start(&Options::new().env("ROLLBOOK_SSE__KEEP_ALIVE", "1s"));
    node.publish("app.y", "0");
    let mut stream = node.subscribe(&[("subject", "app.x")]);
    stream.next_frame(SOON).expect("the first comment");
    stream.next_frame(SOON).expect("where the stream begins");
    let opened = Instant::now();
    let ping = stream.next_frame(SOON).expect("a ping");
    assert_eq!(ping.raw, ": ping\n\n");
    let first = opened.elapsed();
    assert!(first > ms(700) && first < ms(3000), "first ping after {first:?}");
    // Writes every 400 ms keep the pings away.
    for n in 0..4 {
        std::thread::sleep(ms(400));
        node.publish("app.x", &n.to_string());
        let frame = stream.next_frame(SOON).expect("an event");
        assert_eq!(frame.kind.as_deref(), Some("msg"), "{:?}", frame.raw);
    }
    let written = Instant::now();
    assert_eq!(stream.next_frame(SOON).expect("a ping").raw, ": ping\n\n");
    let again = written.elapsed();
    assert!(again > ms(700) && again < ms(3000), "ping {again:?} after the last event");
}

#[test]
fn no_ping_and_no_retry_line_comes_by_default() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut stream = node.subscribe(&[("subject", &format!("{ns}.x"))]);
    stream.next_frame(SOON).expect("the first comment");
    stream.next_frame(SOON).expect("where the stream begins");
    assert!(stream.next_frame(ms(2500)).is_none(), "{:?}", stream.raw());
}

#[test]
fn a_slow_reader_is_served_at_its_own_pace() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let mut slow = node.subscribe(&[("subject", &subject)]);
    let mut fast = node.subscribe(&[("subject", &subject)]);
    let payload = format!("\"{}\"", "x".repeat(40_000));
    let item = format!("{{\"subject\":\"{subject}\",\"payload\":{payload}}}");
    // 40 MB, far more than sockets and rings hold.
    for _ in 0..10 {
        let batch = vec![item.as_str(); 100].join(",");
        assert_eq!(node.post(format!("[{batch}]")).status, 202);
        fast.events(100, SOON);
    }
    for want in 1..=1000 {
        assert_eq!(slow.next_event(SOON).index(), want);
    }
}

#[test]
fn a_subscriber_that_goes_away_is_forgotten() {
    let node = Node::shared();
    let ns = node.namespace();
    for _ in 0..100 {
        drop(node.replay(&format!("{ns}.x")));
    }
    node.publish(&format!("{ns}.x"), "1");
    assert_eq!(node.replay(&format!("{ns}.x")).next_event(SOON).payload(), 1);
}

#[test]
fn a_hundred_subscribers_all_get_every_event() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let mut streams: Vec<Sse> = (0..100).map(|_| node.subscribe(&[("subject", &subject)])).collect();
    for n in 1..=20 {
        assert_eq!(node.publish(&subject, "1").index, n);
    }
    for stream in &mut streams {
        let indexes: Vec<i64> = stream.events(20, SOON).iter().map(|event| event.index()).collect();
        assert_eq!(indexes, (1..=20).collect::<Vec<i64>>());
    }
}
