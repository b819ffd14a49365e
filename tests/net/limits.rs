//! Input that is too much, too deep, too slow or not HTTP at all: bounded, and the node stays fine.

use std::io::Write;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::harness::http::{Http, Response};
use crate::harness::node::{Node, Options};
use crate::harness::sse::{Sse, is_timeout};
use crate::harness::{SOON, ms, proc, report};

/// The default limit of a request body.
const BODY: usize = 8 * 1024 * 1024;

/// A single event whose body has exactly that many bytes.
fn event_of(subject: &str, length: usize) -> String {
    let empty = format!("{{\"subject\":\"{subject}\",\"payload\":\"\"}}");
    let pad = "x".repeat(length - empty.len());
    format!("{{\"subject\":\"{subject}\",\"payload\":\"{pad}\"}}")
}

/// Sends without minding a server that stops reading, then reads the answer.
fn send_and_read(http: &mut Http, bytes: &[u8]) -> Response {
    let sent = http.send(bytes);
    let answer = http.read_response(false);
    answer.unwrap_or_else(|error| panic!("no answer: {error}; sending: {sent:?}"))
}

/// Resident memory of a process in KiB.
fn resident(node: &Node) -> u64 {
    proc::status(node.pid(), "VmRSS")
}

#[test]
fn a_body_of_exactly_the_limit_is_stored_and_one_byte_more_is_not() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let most = event_of(&subject, BODY);
    assert_eq!(node.post(&most).published().index, 1);
    let refused = send_and_read(&mut node.http(), &raw_post(&event_of(&subject, BODY + 1)));
    refused.refusal(413, "request body too large").expect("one byte over the limit");
    let event = node.replay(&subject).next_event(SOON);
    assert!(event.text().len() > BODY - 100, "{} bytes came back", event.text().len());
}

fn raw_post(body: &str) -> Vec<u8> {
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body.as_bytes()].concat()
}

#[test]
fn an_announced_gigabyte_is_refused_before_it_is_sent() {
    let node = Node::shared();
    let before = resident(&node);
    for length in ["1073741824", "8388609", "18446744073709551615"] {
        let mut http = node.http();
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
        let started = Instant::now();
        let answer = send_and_read(&mut http, head.as_bytes());
        answer.refusal(413, "request body too large").unwrap_or_else(|problem| panic!("{length}: {problem}"));
        assert!(started.elapsed() < Duration::from_secs(3), "{length}: waited for the body");
    }
    let grown = resident(&node).saturating_sub(before);
    assert!(grown < 200_000, "memory grew by {grown} KiB");
}

#[test]
fn a_chunked_body_is_cut_off_at_the_limit() {
    let node = Node::shared();
    let mut http = node.http();
    let mut sent = http.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n".as_slice(), &vec![b'['; 0x10000], b"\r\n"].concat();
    for _ in 0..200 {
        if sent.is_err() {
            break;
        }
        sent = http.send(&chunk);
    }
    // The answer may be lost when the server resets a connection it no longer reads.
    match http.read_response(false) {
        Ok(answer) => answer.refusal(413, "request body too large").expect("13 MB in chunks"),
        Err(error) => assert!(sent.is_err(), "no answer and no reset: {error}"),
    }
    node.publish("a.after", "1");
}

#[test]
fn a_client_that_expects_100_continue_is_told_413_at_once() {
    let node = Node::shared();
    let mut http = node.http();
    let head = "POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1073741824\r\n\r\n";
    let answer = send_and_read(&mut http, head.as_bytes());
    answer.refusal(413, "request body too large").expect("413 instead of 100");
    let mut http = node.http();
    let body = "{\"subject\":\"a.expected\"}";
    let head = format!("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {}\r\n\r\n", body.len());
    http.send(head.as_bytes()).expect("send the head");
    std::thread::sleep(ms(50));
    http.send(body.as_bytes()).expect("send the body");
    http.read_response(false).expect("an answer").published();
}

#[test]
fn nesting_bombs_are_answered_and_never_crash() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut failures = Vec::new();
    for depth in [100, 10_000, 200_000, 4_000_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let objects = (depth < 1_000_000).then(|| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth)));
        let bodies = [
            Some(open.clone()),
            Some(format!("{open}{close}")),
            Some(format!("{{\"subject\":\"{ns}.x\",\"payload\":{open}{close}}}")),
            Some(format!("{{\"subject\":\"{ns}.x\",\"payload\":{open}")),
            Some(format!("[{{\"subject\":\"{ns}.x\",\"payload\":{open}{close}}}]")),
            Some(format!("{{\"ignored\":{open}{close},\"subject\":\"{ns}.x\"}}")),
            objects.map(|objects| format!("{{\"subject\":\"{ns}.x\",\"payload\":{objects}}}")),
        ];
        for (nth, body) in bodies.iter().flatten().enumerate() {
            let answer = node.http().try_request("POST", "/", &[], body.as_bytes());
            match answer {
                Ok(answer) if matches!(answer.status, 202 | 400 | 413) => {}
                other => failures.push(format!("depth {depth}, body {nth}: {other:?}")),
            }
        }
    }
    report("nesting", &failures);
    // What was accepted comes out again, and the node is alive.
    let last = node.publish(&format!("{ns}.x"), "\"last\"").index;
    let mut stream = node.replay(&format!("{ns}.x"));
    for want in 1..=last {
        let event = stream.next_event(SOON);
        assert!(event.text().ends_with(&format!(",\"index\":{want}}}")), "event {want}");
    }
}

#[test]
fn a_body_that_dribbles_is_cut_off_in_time() {
    let node = Node::start(&Options::new().env("ROLLBOOK_SSE__BODY_TIMEOUT", "1s"));
    let started = Instant::now();
    let mut slow = node.http();
    slow.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n{").expect("send");
    let mut status = None;
    slow.set_read_timeout(ms(200));
    while started.elapsed() < SOON {
        if slow.send(b" ").is_err() {
            break;
        }
        match slow.read_response(false) {
            Ok(answer) => {
                status = Some(answer.status);
                break;
            }
            Err(error) if is_timeout(&error) => {}
            Err(_) => break,
        }
    }
    let waited = started.elapsed();
    assert!(waited > ms(700) && waited < SOON, "cut off after {waited:?}");
    assert!(matches!(status, None | Some(400 | 408)), "{status:?}");
    node.publish("app.x", "1");
}

#[test]
fn slow_heads_do_not_keep_others_out_and_are_closed() {
    let node = Node::start(&Options::new());
    let mut slow: Vec<Http> = (0..200).map(|_| node.http()).collect();
    for http in &mut slow {
        http.send(b"POST / HTTP/1.1\r\nHost: x\r\nX-Slow: ").expect("send half a head");
    }
    let started = Instant::now();
    for n in 1..=20 {
        assert_eq!(node.publish("app.x", "1").index, n);
    }
    assert!(started.elapsed() < Duration::from_secs(5), "others had to wait");
    // A closed connection reads as an answer (408) or as its end.
    let mut open = 0;
    for http in &mut slow {
        let left = Duration::from_secs(40).saturating_sub(started.elapsed());
        http.set_read_timeout(left.max(ms(10)));
        match http.read_response(false) {
            Err(error) if is_timeout(&error) => {
                open += 1;
            }
            _ => {}
        }
    }
    assert_eq!(open, 0, "connections without a whole head after 40 s");
}

#[test]
fn heads_that_are_too_large_or_no_http_are_refused() {
    let node = Node::shared();
    let long_header = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Long: {}\r\n\r\n", "x".repeat(2_000_000));
    let many_headers = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X-A: b\r\n".repeat(5_000));
    let long_target = format!("GET /?subject=a.{} HTTP/1.1\r\nHost: x\r\n\r\n", "x".repeat(2_000_000));
    let cases: [&[u8]; 12] = [
        long_header.as_bytes(),
        many_headers.as_bytes(),
        long_target.as_bytes(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello \r\n\r\n",
        b"hello\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{\"a\":",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    ];
    for bytes in cases {
        let shown = bytes[..bytes.len().min(60)].escape_ascii().to_string();
        let mut http = node.http();
        if http.send(bytes).is_ok() {
            match http.read_response(false) {
                Ok(answer) => {
                    assert!((400..600).contains(&answer.status) && answer.status != 500, "{shown}: {}", answer.status)
                }
                Err(error) => {
                    assert!(!is_timeout(&error), "{shown}: neither answered nor closed");
                }
            }
        }
    }
    node.publish("a.after", "1");
}

#[test]
fn connections_that_break_off_in_the_middle_harm_nothing() {
    let node = Node::shared();
    let ns = node.namespace();
    let whole = raw_post(&event_of(&format!("{ns}.x"), 2000));
    for cut in (1..whole.len()).step_by(97) {
        let mut stream = TcpStream::connect(node.log).expect("connect");
        stream.write_all(&whole[..cut]).expect("send a part");
    }
    let made = node.publish(&format!("{ns}.x"), "1");
    assert_eq!(made.index, 1, "a publish that was cut off was stored");
}

#[test]
fn five_hundred_idle_streams_cost_little_and_all_get_the_event() {
    let node = Node::start(&Options::new());
    node.publish("app.x", "0");
    let warm = node.subscribe(&[("subject", "app.x")]);
    let before = resident(&node);
    let mut streams: Vec<Sse> = (0..500).map(|_| node.subscribe(&[("subject", "app.x")])).collect();
    let each = resident(&node).saturating_sub(before) / 500;
    assert!(each <= 20, "{each} KiB per idle stream");
    let made = node.publish("app.x", "1");
    for stream in &mut streams {
        assert_eq!(stream.next_event(SOON).event_id(), made.id);
    }
    drop((warm, streams));
}

#[test]
fn more_connections_than_allowed_are_refused_and_room_comes_back() {
    let options = Options::new().env("ROLLBOOK_SSE__CONNECTIONS_MAX", "20");
    let node = Node::start(&options);
    node.publish("app.x", "1");
    let held: Vec<Http> = (0..60).map(|_| node.http()).collect();
    drop(held);
    let started = Instant::now();
    let again = loop {
        let answer = Http::try_connect(node.log).and_then(|mut http| {
            http.set_read_timeout(ms(1000));
            http.try_request("POST", "/", &[], b"{\"subject\":\"app.x\"}")
        });
        match answer {
            Ok(answer) if answer.status == 202 => break true,
            _ if started.elapsed() > SOON => break false,
            _ => std::thread::sleep(ms(50)),
        }
    };
    assert!(again, "no publish possible after the crowd has gone");
}
