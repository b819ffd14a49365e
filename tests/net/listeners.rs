//! HTTP as clients speak it, at both listeners: hosts, bounds, pipelines, old and odd clients, compressed bodies.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::harness::http::{Http, Response};
use crate::harness::node::{Node, Options};
use crate::harness::sse::{End, Sse};
use crate::harness::{SOON, ms, proc, report, wait_for};

const EVENT: &str = "{\"subject\":\"app.x\",\"payload\":1}";

/// Sends bytes as they are and reads one answer.
fn exchange(address: SocketAddr, bytes: &[u8]) -> Response {
    let mut http = Http::connect(address);
    let sent = http.send(bytes);
    let shown = bytes[..bytes.len().min(80)].escape_ascii();
    http.read_response(false).unwrap_or_else(|error| panic!("{shown}: no answer: {error}; sent: {sent:?}"))
}

/// All bytes that come until the connection ends.
fn everything(address: SocketAddr, bytes: &[u8], half_closed: bool) -> String {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(SOON)).expect("set the read timeout");
    stream.write_all(bytes).expect("send");
    if half_closed {
        stream.shutdown(Shutdown::Write).expect("say that this was all");
    }
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("read to the end");
    String::from_utf8_lossy(&all).into_owned()
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// The value of a metric whose line begins like that; 0 when it has never been counted.
fn metric(node: &Node, line: &str) -> u64 {
    let page = node.web("GET", "/metrics", "").text();
    let found = page.lines().find_map(|own| own.strip_prefix(line));
    found.and_then(|value| value.trim().parse().ok()).unwrap_or(0)
}

fn events(node: &Node, namespace: &str) -> i64 {
    let head = node.web("GET", &format!("/api/namespaces/{namespace}"), "").json();
    head["next_index"].as_i64().expect("a namespace") - 1
}

#[test]
fn a_page_whose_name_was_pointed_at_this_machine_gets_nothing() {
    let node = Node::start(&Options::new().env("ROLLBOOK_NODE__HOSTS", "bus.example.com, *.svc.test"));
    node.publish("app.x", "1");
    let evil = |line: &str, more: &str| {
        format!("{line} HTTP/1.1\r\nHost: evil.example:7440\r\nOrigin: http://evil.example:7440\r\n{more}\r\n")
    };
    let body = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", EVENT.len());
    let upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (address, request) in [
        (node.log, evil("POST /", &body) + EVENT),
        (node.log, evil("GET /?subject=app.x&start=oldest", "")),
        (node.log, evil("OPTIONS /", "")),
        (node.web, evil("POST /api/config", &body) + EVENT),
        (node.web, evil("DELETE /api/namespaces/app", "")),
        (node.web, evil("GET /api/config", "")),
        (node.web, evil("GET /ws", upgrade)),
        (node.web, evil("GET /socket.io/?EIO=4&transport=websocket", upgrade)),
        (node.web, evil("GET /socket.io/?EIO=4&transport=polling", "")),
        (node.web, "GET http://evil.example/api/config HTTP/1.1\r\nHost: localhost\r\n\r\n".to_owned()),
    ] {
        let answer = exchange(address, request.as_bytes());
        assert_eq!(answer.status, 421, "{request}: {}", answer.text());
        assert!(answer.text().contains("node.hosts"), "{}", answer.text());
    }
    assert_eq!(events(&node, "app"), 1, "a refused publish was stored");
    assert_eq!(metric(&node, "rollbook_http_refused_total{listener=\"sse\",reason=\"host\"}"), 3);
    for host in
        ["localhost:1", "127.0.0.1", "10.1.2.3:7440", "[::1]:7440", "node1:7440", "bus.example.com", "a.svc.test:80"]
    {
        let request = format!("GET /readyz HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(exchange(node.web, request.as_bytes()).status, 200, "{host}");
        let request = format!("HEAD /?subject=app.x HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert!(everything(node.log, request.as_bytes(), false).starts_with("HTTP/1.1 200"), "{host}");
    }
    assert!(
        everything(node.web, b"GET /metrics HTTP/1.0\r\n\r\n", false).starts_with("HTTP/1.0 200"),
        "no name at all"
    );
}

#[test]
fn origins_of_the_event_log_can_be_named() {
    let node = Node::start(&Options::new().env("ROLLBOOK_SSE__ORIGINS", "https://shop.example"));
    let mut http = node.http();
    let mut ask = |origin: &str| http.request("POST", "/", &[("Origin", origin)], EVENT.as_bytes());
    for (origin, status, allowed) in [
        ("https://shop.example", 202, Some("https://shop.example")),
        ("http://localhost", 202, Some("http://localhost")),
        ("https://other.example", 403, None),
        ("null", 403, None),
    ] {
        let answer = ask(origin);
        assert_eq!(answer.status, status, "{origin}: {}", answer.text());
        assert_eq!(answer.header("access-control-allow-origin"), allowed, "{origin}");
        answer.want("vary", "Origin").expect("not for every page");
    }
    assert_eq!(node.post(EVENT).status, 202, "from no page");
    assert_eq!(events(&node, "app"), 3);
}

#[test]
fn requests_that_are_sent_all_at_once_are_all_answered() {
    let node = Node::start(&Options::new());
    let count = 3000;
    let all = post(EVENT).repeat(count);
    let mut sender = TcpStream::connect(node.log).expect("connect");
    let mut reader = sender.try_clone().expect("a second handle");
    let sending = std::thread::spawn(move || {
        sender.write_all(all.as_bytes()).expect("send");
        sender.shutdown(Shutdown::Write).expect("say that this was all");
    });
    reader.set_read_timeout(Some(Duration::from_secs(60))).expect("set the read timeout");
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).expect("read to the end");
    sending.join().expect("everything was sent");
    let text = String::from_utf8(bytes).expect("answers");
    assert_eq!(text.matches("HTTP/1.1 202 Accepted\r\n").count(), count);
    let indexes: Vec<usize> =
        text.lines().filter_map(|line| line.strip_prefix("x-bus-event-index: ")?.parse().ok()).collect();
    assert!(indexes.iter().copied().eq(1..=count), "in their order");
    assert_eq!(events(&node, "app"), i64::try_from(count).expect("a small number"));
}

#[test]
fn what_people_type_into_a_url_works() {
    let node = Node::shared();
    let ns = node.namespace();
    let made = node.publish(&format!("{ns}.x"), "1");
    for query in [format!("subject={ns}.>&start=oldest"), format!("subject={ns}.x&start=oldest&x=\"a|b\"^{{`é}}")] {
        let mut stream = Sse::open(node.log, &format!("/?{query}"), &[]);
        assert_eq!(stream.next_event(SOON).event_id(), made.id, "{query}");
    }
    let mut http = node.http();
    for (query, text) in [
        (format!("subject={ns}.a b"), "subject should not have spaces"),
        (
            format!("subject={ns}.\"a\""),
            "subject should have only letters, digits, dots, _, -, and in a pattern * and >",
        ),
    ] {
        let answer = http.request("GET", &format!("/?{query}"), &[], b"");
        answer.refusal(400, text).unwrap_or_else(|problem| panic!("{query}: {problem}"));
    }
    let answer = Http::connect(node.web).request("GET", "/api/namespaces/a>b", &[], b"");
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[test]
fn what_is_no_request_is_told_why_in_words_and_is_no_error_of_the_node() {
    let mut node = Node::start(&Options::new());
    let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: {}\r\n\r\n", "x".repeat(200_000));
    let many = format!("GET / HTTP/1.1\r\nHost: localhost\r\n{}\r\n", "X-A: b\r\n".repeat(500));
    let target = format!("GET /?subject={} HTTP/1.1\r\nHost: localhost\r\n\r\n", "x".repeat(200_000));
    let cases: &[(&[u8], u16, &str)] = &[
        (long.as_bytes(), 431, "longer than"),
        (many.as_bytes(), 431, "headers"),
        (target.as_bytes(), 414, "target"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "http://"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
        (b"hello\r\n\r\n", 400, "METHOD TARGET"),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505, "HTTP/1.1"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "Host"),
        (b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "control"),
        (b"GET /a HTTP/1.1 /b HTTP/1.1\r\nHost: x\r\n\r\n", 400, "METHOD TARGET"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nno header\r\n\r\n", 400, "no header"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "Content-Length"),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{\"a\":", 400, "twice"),
        (
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
            "twice",
        ),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n", 400, "chunked"),
        (b"POST / HTTP/1.0\r\nHost: x\r\n\r\n", 400, "Content-Length"),
    ];
    let mut failures = Vec::new();
    for (bytes, status, word) in cases {
        let shown = bytes[..bytes.len().min(60)].escape_ascii();
        for address in [node.log, node.web] {
            let answer = exchange(address, bytes);
            let fits = answer.status == *status && answer.text().contains(word);
            let shaped = if address == node.log {
                answer.refusal_headers()
            } else {
                answer.want("content-type", "application/problem+json")
            };
            if !fits || shaped.is_err() {
                failures.push(format!("{shown}: {} {:?} {shaped:?}", answer.status, answer.text()));
            }
        }
    }
    report("requests that are none", &failures);
    // What was asked behind one that is none is not carried out: nobody knows where it begins.
    let smuggled = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{}",
        post(EVENT)
    );
    assert_eq!(everything(node.log, smuggled.as_bytes(), true).matches("HTTP/1.1 ").count(), 1);
    assert_eq!(node.publish("app.x", "1").index, 1);
    node.signal_term();
    let exit = node.ended(SOON);
    assert!(!exit.stderr.contains("ERROR") && !exit.stderr.contains("WARN"), "{}", exit.stderr);
}

#[test]
fn a_client_that_has_said_all_still_gets_its_answer() {
    let node = Node::start(&Options::new());
    for index in 1..=3 {
        let answer = everything(node.log, post(EVENT).as_bytes(), true);
        assert!(
            answer.starts_with("HTTP/1.1 202") && answer.contains(&format!("x-bus-event-index: {index}\r\n")),
            "{answer}"
        );
    }
    let ready = everything(node.web, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n", true);
    assert!(ready.starts_with("HTTP/1.1 200"), "{ready}");
    // A stream ends: its client has left.
    let stream = everything(node.log, b"GET /?subject=app.x&start=oldest HTTP/1.1\r\nHost: localhost\r\n\r\n", true);
    assert!(stream.starts_with("HTTP/1.1 200"), "{stream}");
    wait_for("the end of the stream", SOON, || (metric(&node, "rollbook_subscriptions ") == 0).then_some(()));
}

#[test]
fn a_client_of_http_1_0_gets_no_chunks() {
    let mut node = Node::start(&Options::new());
    node.publish("app.x", "\"hello\"");
    let log = node.log;
    let stream = std::thread::spawn(move || {
        everything(log, b"GET /?subject=app.x&start=oldest HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false)
    });
    for path in ["/metrics", "/readyz", "/api/namespaces"] {
        let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
        let answer = everything(node.web, request.as_bytes(), false);
        assert!(answer.starts_with("HTTP/1.0 ") && !answer.to_lowercase().contains("transfer-encoding"), "{answer}");
    }
    std::thread::sleep(ms(300));
    node.terminate();
    let stream = stream.join().expect("a stream that ends with its connection");
    let (head, body) = stream.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.0 200") && !head.to_lowercase().contains("transfer-encoding"), "{head}");
    assert!(body.starts_with(": consumer c_") && body.contains("\n\nid: e_") && body.contains("\"hello\""), "{body}");
}

#[test]
fn a_wish_for_another_protocol_is_passed_over() {
    let node = Node::start(&Options::new());
    for wish in ["h2c", "websocket", "TLS/1.0, HTTP/1.1"] {
        let mut http = node.http();
        let upgrade =
            [("Connection", "Upgrade, HTTP2-Settings"), ("Upgrade", wish), ("HTTP2-Settings", "AAMAAABkAARAAAAA")];
        for _ in 0..2 {
            let answer = http.request("POST", "/", &upgrade, EVENT.as_bytes());
            assert_eq!(answer.status, 202, "{wish}: {}", answer.text());
        }
        http.request("GET", "/", &upgrade, b"").refusal(400, "missing subject in query string").expect(wish);
        let mut web = Http::connect(node.web);
        for _ in 0..2 {
            let answer = web.request("GET", "/readyz", &upgrade, b"");
            assert_eq!(answer.status, 200, "{wish}");
            if wish == "websocket" {
                break;
            }
        }
    }
}

/// Peak of resident memory, KiB.
fn peak(node: &Node) -> u64 {
    proc::status(node.pid(), "VmHWM")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::best());
    out.write_all(bytes).expect("compress");
    out.finish().expect("compress")
}

#[test]
fn a_compressed_body_is_taken_up_to_its_limit_and_no_further() {
    let node = Node::start(&Options::new());
    let event = gzip(EVENT.as_bytes());
    let send = |coding: &str, body: &[u8]| node.http().request("POST", "/", &[("Content-Encoding", coding)], body);
    assert_eq!(send("gzip", &event).published().index, 1);
    assert_eq!(send("zstd", &zstd::encode_all(EVENT.as_bytes(), 3).expect("compress")).published().index, 2);
    assert_eq!(send("identity", EVENT.as_bytes()).published().index, 3);
    let answer = send("br", &event);
    assert_eq!(answer.status, 415, "{}", answer.text());
    answer.want("accept-encoding", "gzip, deflate, zstd").expect("what is understood");
    let answer = send("gzip", EVENT.as_bytes());
    assert!(answer.status == 400 && answer.text().contains("gzip"), "{} {}", answer.status, answer.text());
    let json = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    let answer = Http::connect(node.web).request("POST", "/api/config", &json, &gzip(b"{\"a\":1}"));
    assert_eq!(answer.status, 200, "{}", answer.text());

    let zeros = vec![0; 64 << 20];
    let bombs = [("gzip", gzip(&zeros)), ("zstd", zstd::encode_all(zeros.as_slice(), 19).expect("compress"))];
    drop(zeros);
    node.publish("app.x", "1");
    let before = peak(&node);
    for (coding, bomb) in &bombs {
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    send(coding, bomb).refusal(413, "request body too large").expect(coding);
                    let json = [("Content-Type", "application/json"), ("Content-Encoding", *coding)];
                    let answer = Http::connect(node.web).request("POST", "/api/config", &json, bomb);
                    assert_eq!(answer.status, 413, "{}", answer.text());
                });
            }
        });
    }
    let grown = peak(&node).saturating_sub(before);
    assert!(grown < 150_000, "memory grew by {grown} KiB");
}

#[test]
fn a_full_listener_says_so_and_streams_do_not_keep_publishers_out() {
    let options = Options::new().env("ROLLBOOK_SSE__CONNECTIONS_MAX", "8").env("ROLLBOOK_SSE__STREAMS_MAX", "12");
    let node = Node::start(&options);
    let streams: Vec<Sse> = (0..12).map(|_| node.subscribe(&[("subject", "app.x")])).collect();
    let answer = node.get("/?subject=app.x");
    assert_eq!(answer.status, 503, "{}", answer.text());
    answer.want("retry-after", "1").expect("when to come back");
    assert_eq!(node.publish("app.x", "1").index, 1, "publishers are let in");
    assert_eq!(metric(&node, "rollbook_http_refused_total{listener=\"sse\",reason=\"streams\"}"), 1);
    // Connections that are in the middle of a request cannot make room.
    let mut busy = Vec::new();
    wait_for("a full listener", SOON, || {
        let mut http = node.http();
        // Those that find no room are told so, and may be closed by now.
        drop(http.send(b"POST / HTTP/1.1\r\nHost: localhost\r\n"));
        busy.push(http);
        let answer = node.http().try_request("POST", "/", &[], EVENT.as_bytes()).ok()?;
        (answer.status == 503).then(|| answer.want("retry-after", "1").expect("when to come back"))
    });
    assert!(metric(&node, "rollbook_http_refused_total{listener=\"sse\",reason=\"connections\"}") > 0);
    drop((busy, streams));
    wait_for("room again", SOON, || {
        let answer = node.http().try_request("POST", "/", &[], EVENT.as_bytes()).ok()?;
        (answer.status == 202).then_some(())
    });
    // Idle ones make room for whoever has something to say.
    let idle: Vec<Http> = (0..40).map(|_| node.http()).collect();
    std::thread::sleep(ms(100));
    for _ in 0..10 {
        assert_eq!(node.post(EVENT).status, 202, "idle connections are in the way");
    }
    drop(idle);
}

#[test]
fn connections_that_begin_a_request_do_not_keep_idle_ones_from_making_room() {
    let one_thread = Options::new().env("ROLLBOOK_SSE__CONNECTIONS_MAX", "4").env("ROLLBOOK_THREADS__WORKERS", "1");
    let node = Node::start(&one_thread);
    let mut connections: Vec<Http> = (0..4).map(|_| node.http()).collect();
    for http in &mut connections {
        assert_eq!(http.post(EVENT).status, 202);
    }
    let (begun, idle) = connections.split_at_mut(2);
    for http in begun {
        http.send(b"POST / HTTP/1.1\r\n").expect("half a head is sent");
    }
    std::thread::sleep(ms(200));
    let began = Instant::now();
    let mut late = [node.http(), node.http()];
    for http in &mut late {
        assert_eq!(http.post(EVENT).status, 202);
    }
    for http in idle {
        assert!(http.read_head().is_err(), "an idle connection makes room");
    }
    assert!(began.elapsed() < ms(5000), "{:?}", began.elapsed());
}

#[test]
fn an_idle_connection_is_kept_as_long_as_is_said() {
    let short = Options::new().env("ROLLBOOK_SSE__IDLE_TIMEOUT", "1s").env("ROLLBOOK_WEB__IDLE_TIMEOUT", "1s");
    let (usual, short) = (Node::start(&Options::new()), Node::start(&short));
    let mut kept = [Http::connect(usual.log), Http::connect(usual.web)];
    let mut closed = [Http::connect(short.log), Http::connect(short.web)];
    for http in kept.iter_mut().chain(&mut closed) {
        http.request("OPTIONS", "/", &[], b"");
    }
    let began = Instant::now();
    for http in &mut closed {
        assert!(http.read_head().is_err(), "nothing was asked");
    }
    assert!(began.elapsed() > ms(700) && began.elapsed() < SOON, "{:?}", began.elapsed());
    // Longer than the five seconds after which connections used to be closed.
    std::thread::sleep(ms(5500).saturating_sub(began.elapsed()));
    assert_eq!(kept[0].post(EVENT).status, 202);
    assert_eq!(kept[1].request("GET", "/readyz", &[], b"").status, 200);
}

#[test]
fn a_connection_that_stops_serving_says_so_with_its_last_answer() {
    let mut node = Node::start(&Options::new());
    let mut stream = node.subscribe(&[("subject", "app.x")]);
    let mut http = node.http();
    assert_eq!(http.post(EVENT).status, 202);
    node.terminate();
    assert_eq!(stream.end(SOON), End::Clean);
    assert!(http.read_head().is_err(), "an idle connection is closed");
}
