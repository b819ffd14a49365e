//! Methods, paths and browsers: OPTIONS, HEAD, 405, any path, CORS headers everywhere.

use crate::harness::http::{ALLOW_HEADERS, Http};
use crate::harness::node::Node;
use crate::harness::sse::Sse;
use crate::harness::{SOON, report};

#[test]
fn a_preflight_is_answered_on_any_path() {
    let node = Node::shared();
    let mut http = node.http();
    for path in ["/", "/any/path", "//", "/?subject=nope", "*"] {
        let answer = http.request("OPTIONS", path, &[("Origin", "http://x.test")], b"");
        assert_eq!(answer.status, 204, "OPTIONS {path}");
        assert!(answer.body.is_empty());
        answer.cors().unwrap_or_else(|problem| panic!("{path}: {problem}"));
        answer.want("access-control-max-age", "86400").expect("max age");
    }
}

#[test]
fn a_preflight_allows_the_headers_that_are_asked_for() {
    let node = Node::shared();
    let mut http = node.http();
    let base: Vec<String> = ALLOW_HEADERS.split(", ").map(str::to_lowercase).collect();
    let rows: &[(&str, &[&str])] = &[
        ("authorization", &["authorization"]),
        ("Last-Event-ID", &["last-event-id"]),
        ("cache-control,last-event-id", &["cache-control", "last-event-id"]),
        ("content-type, authorization ,X-Evil, cache-control", &["authorization", "cache-control", "x-evil"]),
        ("content-type,traceparent,tracestate,x-requested-with", &["traceparent", "tracestate", "x-requested-with"]),
        ("not a name, x-ok,,", &["x-ok"]),
        ("content-type", &[]),
        ("authorization\u{2028}x", &[]),
    ];
    let mut failures = Vec::new();
    for (asked, extra) in rows {
        let headers = [
            ("Origin", "http://x.test"),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", *asked),
        ];
        let answer = http.request("OPTIONS", "/", &headers, b"");
        let allowed = answer.header("access-control-allow-headers").unwrap_or_default();
        let names: Vec<String> = allowed.split(',').map(|name| name.trim().to_lowercase()).collect();
        let mut added: Vec<&str> = names.iter().skip(base.len()).map(String::as_str).collect();
        added.sort_unstable();
        if answer.status != 204 || !names.starts_with(&base) || added != *extra {
            failures.push(format!("{asked:?}: {} {allowed:?}", answer.status));
        }
    }
    report("preflight", &failures);
    let asked = [("Origin", "http://x.test"), ("Access-Control-Request-Private-Network", "true")];
    let answer = http.request("OPTIONS", "/", &asked, b"");
    answer.want("access-control-allow-private-network", "true").expect("a node of the local network");
    assert_eq!(http.request("OPTIONS", "/", &[], b"").header("access-control-allow-private-network"), None);
}

#[test]
fn other_methods_are_not_allowed() {
    let node = Node::shared();
    for method in ["DELETE", "PATCH", "TRACE", "PROPFIND", "FOO"] {
        for path in ["/", "/any/path?subject=a.b"] {
            let answer = node.http().request(method, path, &[], b"");
            let refused = answer.refusal(405, "Method Not Allowed");
            refused.unwrap_or_else(|problem| panic!("{method} {path}: {problem}"));
            answer.want("allow", "GET, HEAD, OPTIONS, POST, PUT").expect("Allow");
        }
    }
}

#[test]
fn head_answers_like_get_and_ends() {
    let node = Node::shared();
    let mut http = node.http();
    let answer = http.request("HEAD", "/?subject=a.b", &[], b"");
    assert_eq!(answer.status, 200);
    answer.want("content-type", "text/event-stream").expect("type");
    answer.want("cache-control", "no-cache, no-transform").expect("caching");
    answer.cors().expect("CORS headers");
    assert!(answer.header("x-bus-consumer-id").is_some_and(|id| id.starts_with("c_")));
    for (target, status) in
        [("/", 400), ("/?subject=a..b", 400), ("/?subject=nope.x", 400), ("/?subject=a.b&ack=x", 400)]
    {
        let answer = node.http().request("HEAD", target, &[], b"");
        assert_eq!(answer.status, status, "HEAD {target}");
        answer.refusal_headers().unwrap_or_else(|problem| panic!("HEAD {target}: {problem}"));
    }
    // No body: what comes next on the wire is the answer to the next request, or the end.
    let mut raw = node.http();
    raw.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").expect("send");
    raw.read_head().expect("a head");
    raw.set_read_timeout(SOON);
    let rest = raw.read_head().map(|head| head.status);
    assert!(rest.is_err(), "bytes after a HEAD answer: {rest:?}");
}

#[test]
fn head_does_not_take_a_stream_over() {
    let node = Node::shared();
    let ns = node.namespace();
    let subject = format!("{ns}.x");
    let mut stream = node.subscribe(&[("subject", &subject), ("consumer_id", "c_kept")]);
    let target = format!("/?subject={subject}&consumer_id=c_kept");
    assert_eq!(node.http().request("HEAD", &target, &[], b"").status, 200);
    node.publish(&subject, "1");
    assert_eq!(stream.next_event(SOON).payload(), 1);
}

#[test]
fn every_path_behaves_like_the_root() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!("{{\"subject\":\"{ns}.x\",\"payload\":1}}");
    for (path, index) in
        ["/events", "/a/b/c", "//", "//x//y", "/x/../y", "/%2e%2e/", "/index.html", "/api/v9"].iter().zip(1..)
    {
        let answer = node.http().request("POST", path, &[], body.as_bytes());
        assert_eq!(answer.status, 202, "POST {path}: {}", answer.text());
        assert_eq!(answer.published().index, index);
        let get = format!("{path}?subject={ns}.x&start=oldest");
        let event = Sse::open(node.log, &get, &[]).next_event(SOON);
        assert_eq!(event.index(), 1, "GET {path}");
        let put = format!("{path}?consumer_id=c_x&event_id=e_x");
        assert_eq!(node.http().request("PUT", &put, &[], b"").status, 202, "PUT {path}");
    }
}

#[test]
fn the_target_may_be_a_whole_url() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!("{{\"subject\":\"{ns}.x\",\"payload\":1}}");
    let target = format!("http://{}/", node.log);
    let answer = node.http().request("POST", &target, &[], body.as_bytes());
    assert_eq!(answer.status, 202, "{}", answer.text());
}

#[test]
fn cors_headers_are_on_success_and_error_of_every_method() {
    let node = Node::shared();
    let mut failures = Vec::new();
    let accepted = "{\"subject\":\"a.cors\"}";
    for (method, target, body) in [
        ("POST", "/", accepted),
        ("POST", "/", "x"),
        ("GET", "/", ""),
        ("PUT", "/", ""),
        ("PUT", "/?consumer_id=c_x&event_id=e_x", ""),
        ("DELETE", "/", ""),
        ("HEAD", "/", ""),
        ("OPTIONS", "/", ""),
    ] {
        let answer = node.http().request(method, target, &[("Origin", "null")], body.as_bytes());
        if let Err(problem) = answer.cors() {
            failures.push(format!("{method} {target}: {problem}"));
        }
    }
    report("CORS", &failures);
}

#[test]
fn one_connection_carries_all_methods() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut http = Http::connect(node.log);
    let body = format!("{{\"subject\":\"{ns}.x\"}}");
    for round in 1..=3 {
        assert_eq!(http.post(&body).published().index, round);
        assert_eq!(http.post("x").status, 400);
        assert_eq!(http.request("PUT", "/?consumer_id=c_x&event_id=e_x", &[], b"ignored").status, 202);
        assert_eq!(http.request("OPTIONS", "/", &[], b"").status, 204);
        assert_eq!(http.request("GET", "/", &[], b"").status, 400);
        assert_eq!(http.request("DELETE", "/", &[], b"").status, 405);
    }
}
