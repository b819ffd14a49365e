//! What all of REST has in common: methods, conditions, bodies, queries, pages, and the text of a refusal.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::harness::bus::BusClient;
use crate::harness::http::{Http, Response};
use crate::harness::node::{Node, Options};
use crate::harness::{SOON, report, wait_for};

/// Paths that answer a GET of anybody.
const READ: [&str; 17] = [
    "/",
    "/livez",
    "/readyz",
    "/health",
    "/healthz",
    "/metrics",
    "/openapi.json",
    "/docs/",
    "/docs/service.html",
    "/api/cluster",
    "/api/namespaces",
    "/api/consumers",
    "/api/services",
    "/api/connections",
    "/api/stats",
    "/api/config",
    "/api/config/history",
];

/// A request without the content type that other tests send.
fn plain(node: &Node, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
    Http::connect(node.web).request(method, target, headers, body)
}

fn allowed(answer: &Response) -> BTreeSet<String> {
    answer.header("allow").unwrap_or_default().split(", ").map(str::to_owned).collect()
}

/// What differs from a refusal with this status whose text says this.
fn refusal(answer: &Response, status: u16, part: &str) -> Result<(), String> {
    let kind = answer.header("content-type").unwrap_or_default();
    let text = answer.text();
    if answer.status != status || kind != "application/problem+json" {
        return Err(format!("want {status}, got {} {kind:?} {text}", answer.status));
    }
    let detail = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    if detail.contains(part) { Ok(()) } else { Err(format!("{part:?} is not said: {detail:?}")) }
}

#[test]
fn the_first_page_says_what_is_where_as_text_html_or_json() {
    let node = Node::shared();
    let accepts = |kind: &str| plain(&node, "GET", "/", &[("Accept", kind)], b"");
    let as_browsers = accepts("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
    let policy = as_browsers.header("content-security-policy").unwrap_or_default();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("http"), "{policy}");
    for (answer, kind) in [
        (accepts("*/*"), "text/plain"),
        (plain(&node, "GET", "/", &[], b""), "text/plain"),
        (as_browsers, "text/html"),
        (accepts("application/json"), "application/json"),
    ] {
        let told = answer.header("content-type").unwrap_or_default();
        assert!(answer.status == 200 && told.starts_with(kind), "{kind}: {} {told}", answer.status);
        let page = answer.text();
        for path in ["/docs/", "/openapi.json", "/api/cluster", "/api/services", "/readyz", "/livez", "/metrics"] {
            assert!(page.contains(path), "{path} is not in {page}");
        }
        assert!(page.contains("/ws") && page.contains("/socket.io/"), "{page}");
        assert!(!page.contains("://"), "nothing is fetched from elsewhere: {page}");
    }
}

#[test]
fn head_and_options_are_answered_wherever_get_is() {
    let node = Node::shared();
    for path in READ {
        let got = node.web("GET", path, "");
        assert_eq!(got.status, 200, "{path}: {}", got.text());
        let head = node.web("HEAD", path, "");
        assert_eq!((head.status, head.body.len()), (200, 0), "{path}");
        assert_eq!(head.header("content-type"), got.header("content-type"), "{path}");
        assert!(head.header("content-length").is_some(), "{path}: {:?}", head.headers);
        let options = node.web("OPTIONS", path, "");
        assert_eq!(options.status, 204, "{path}");
        let allowed = allowed(&options);
        assert!(["GET", "HEAD", "OPTIONS"].iter().all(|method| allowed.contains(*method)), "{path}: {allowed:?}");
        let refused = node.web("TRACE", path, "");
        refusal(&refused, 405, "it takes GET, HEAD").unwrap_or_else(|problem| panic!("TRACE {path}: {problem}"));
        assert_eq!(self::allowed(&refused), allowed, "{path}");
    }
    let gone = node.web("HEAD", "/api/namespaces/none", "");
    assert_eq!((gone.status, gone.body.len()), (404, 0));
    // The connection is still in step behind an answer without a body.
    let mut http = Http::connect(node.web);
    for method in ["HEAD", "OPTIONS", "GET"] {
        assert!([200, 204].contains(&http.request(method, "/readyz", &[], b"").status), "{method}");
    }
}

#[test]
fn a_person_finds_the_way() {
    let node = Node::shared();
    let listed = plain(&node, "GET", "/", &[("Accept", "application/json")], b"").json();
    assert!(listed["version"].is_string() && listed["paths"]["/docs/"].is_string(), "{listed}");
    for path in listed["paths"].as_object().expect("paths").keys() {
        assert_ne!(node.web("GET", path, "").status, 404, "{path}");
    }
    let page = plain(&node, "GET", "/", &[("Accept", "text/html,*/*;q=0.8")], b"");
    assert!(
        page.header("content-type") == Some("text/html; charset=utf-8") && page.text().contains("href=\"/docs/\""),
        "{}",
        page.text()
    );
    let moved = node.web("GET", "/docs", "");
    assert_eq!((moved.status, moved.header("location")), (308, Some("docs/")));
}

#[test]
fn every_refusal_says_what_is_wrong_and_what_would_be_right() {
    let node = Node::shared();
    let mut failures = Vec::new();
    for (method, path, body, status, part) in [
        ("GET", "/api/nothing", "", 404, "GET / says what is where"),
        ("GET", "/docs/nothing.js", "", 404, "/docs/nothing.js"),
        ("POST", "/docs/", "", 405, "it takes GET, HEAD, OPTIONS"),
        ("DELETE", "/api/cluster/nodes/abc", "", 400, "a whole number from 1"),
        ("POST", "/api/cluster/nodes/-1/promote", "", 400, "a whole number from 1"),
        ("DELETE", "/api/cluster/nodes/1?force=yes", "", 400, "force=yes: true or false"),
        ("GET", "/api/config?revision=x", "", 400, "revision=x: a whole number"),
        ("GET", "/api/config/diff?from=1&form=2", "", 400, "known are `from`, `to`, `consistency`"),
        ("POST", "/api/config?why=so", "{}", 400, "known are `reason`"),
        ("GET", "/api/connections?node=one", "", 400, "node=one: a whole number"),
        ("GET", "/api/stats?x=1", "", 400, "there is no query parameter x"),
        ("GET", "/api/namespaces/none?x=1", "", 400, "there is no query parameter x"),
        ("POST", "/api/services/none/restart?x=1", "", 400, "this takes none"),
        ("GET", "/api/stats?consistency=maybe", "", 400, "linearizable, leader or stale"),
        ("POST", "/api/namespaces", "", 400, "the body is empty"),
        ("POST", "/api/namespaces", "{bad", 400, "line 1 column 2"),
        ("POST", "/api/namespaces", "[\"a\"]", 400, "JSON object"),
        ("POST", "/api/namespaces", "{\"name\":\"x\",\"colour\":1}", 400, "colour"),
        ("POST", "/api/call/none/get", "{bad", 400, "line 1 column 2"),
    ] {
        let answer = node.web(method, path, body);
        failures.extend(refusal(&answer, status, part).err().map(|text| format!("{method} {path} {body}: {text}")));
    }
    let lists = ["namespaces", "consumers", "services", "connections"];
    for (query, part) in [
        ("limit=abc", "whole number"),
        ("limit=0", "1 to 1000"),
        ("limit=1001", "1 to 1000"),
        ("cursor=abc", "next_cursor"),
    ] {
        for list in lists {
            let answer = node.web("GET", &format!("/api/{list}?{query}"), "");
            failures.extend(refusal(&answer, 400, part).err().map(|text| format!("{list}?{query}: {text}")));
        }
    }
    let large = format!("{{\"name\":\"{}\"}}", "x".repeat(100_000));
    failures.extend(refusal(&node.web("POST", "/api/namespaces", &large), 413, "larger").err());
    report("refusals", &failures);
}

#[test]
fn a_client_that_is_wrong_leaves_no_error_in_the_log() {
    let mut node = Node::start(&Options::new());
    for (method, path, body) in [
        ("GET", "/api/nothing", ""),
        ("POST", "/api/config", "{bad"),
        ("DELETE", "/api/cluster/nodes/abc", ""),
        ("GET", "/api/namespaces?limit=abc", ""),
        ("TRACE", "/readyz", ""),
    ] {
        assert!((400..500).contains(&node.web(method, path, body).status), "{method} {path}");
    }
    node.signal_term();
    let log = node.ended(SOON).stderr;
    assert!(!log.contains("ERROR") && !log.contains("WARN"), "{log}");
}

#[test]
fn json_is_taken_as_curl_sends_it() {
    let node = Node::start(&Options::new());
    let post = |headers: &[(&str, &str)], body: &[u8]| plain(&node, "POST", "/api/config", headers, body);
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(post(&form, b"{\"a\":1}").status, 200);
    assert_eq!(post(&[], b"{\"a\":1}").status, 200);
    assert_eq!(post(&[("Content-Type", "application/json; charset=utf-8")], b"\xef\xbb\xbf{\"a\":1}").status, 200);
    assert_eq!(node.web("GET", "/api/config", "").text(), "{\"a\":1}", "without the byte order mark");
    refusal(&post(&form, b"a=1"), 415, "Content-Type: application/json").expect("told what to send");
    let utf16 = post(&[("Content-Type", "application/json; charset=utf-16")], b"\xff\xfe{\0}\0");
    refusal(&utf16, 415, "UTF-8").expect("JSON is UTF-8");
    let brotli = post(&[("Content-Encoding", "br")], b"{}");
    assert!(brotli.status == 415 && brotli.header("accept-encoding").is_some(), "{brotli:?}");
    // The same for the bodies of commands and calls.
    for path in ["/api/services/restart-all", "/api/cluster/transfer", "/api/call/none/get"] {
        assert_ne!(plain(&node, "POST", path, &form, b"{}").status, 415, "{path}");
        assert_eq!(plain(&node, "POST", path, &form, b"a=1").status, 415, "{path}");
    }
}

#[test]
fn conditions_compare_as_http_says() {
    let node = Node::start(&Options::new());
    let tag = node.web("POST", "/api/config", "{\"a\":1}").header("etag").expect("an ETag").to_owned();
    let get = |tags: &str| node.web_with("GET", "/api/config", &[("If-None-Match", tags)], "");
    for known in [tag.clone(), format!("W/{tag}"), "*".to_owned(), format!("\"x\", W/{tag}")] {
        let answer = get(&known);
        assert_eq!((answer.status, answer.header("etag")), (304, Some(tag.as_str())), "{known}");
    }
    for other in ["\"x\"", "\"0\"", "7"] {
        assert_eq!(get(other).status, 200, "{other}");
    }
    let patch = |name: &str, tags: &str| node.web_with("PATCH", "/api/config", &[(name, tags)], "{\"a\":2}");
    let present = || node.web("HEAD", "/api/config", "").header("etag").expect("an ETag").to_owned();
    for tags in ["\"999\"".to_owned(), format!("W/{}", present()), "\"x\"".to_owned(), "\"998\", \"999\"".to_owned()] {
        assert_eq!(patch("If-Match", &tags).status, 412, "{tags}");
    }
    for tags in ["999", "", "W/1", "\"1"] {
        refusal(&patch("If-Match", tags), 400, "entity tags").unwrap_or_else(|problem| panic!("{tags}: {problem}"));
    }
    for tags in [|_: &str| "*".to_owned(), |tag: &str| tag.to_owned(), |tag: &str| format!("\"999\", {tag}")] {
        let tags = tags(&present());
        let answer = patch("If-Match", &tags);
        assert_eq!(answer.status, 200, "{tags}: {}", answer.text());
    }
    assert_eq!(patch("If-None-Match", "*").status, 412);
    assert_eq!(patch("If-None-Match", "\"999\"").status, 200);
    let back = node.web_with("POST", "/api/config/rollback", &[("If-Match", "\"1\"")], "{\"revision\":1}");
    assert_eq!(back.status, 412);
    // What has no tag cannot have the one that is named.
    node.publish("app.x", "1");
    let delete = |tags: &str| node.web_with("DELETE", "/api/namespaces/app", &[("If-Match", tags)], "");
    refusal(&delete("\"1\""), 412, "has no ETag").expect("nothing is deleted");
    assert_eq!((delete("1").status, delete("*").status), (400, 204));
}

#[test]
fn a_tag_of_a_service_changes_whenever_the_answer_does() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    client.register("svc", &[]);
    let get = || node.web("GET", "/api/services/svc", "");
    let (first, tag) = (get().text(), get().header("etag").expect("an ETag").to_owned());
    let is_known = |tag: &str| node.web_with("GET", "/api/services/svc", &[("If-None-Match", tag)], "").status == 304;
    assert!(is_known(&tag) && is_known(&format!("W/{tag}")));
    // What an instance says of itself is no change of the service, but one of the answer.
    client.emit("bus:heartbeat", &json!({ "load": 0.5 }));
    wait_for("the heartbeat to be shown", SOON, || (get().text() != first).then_some(()));
    assert!(!is_known(&tag), "the answer is another one");
    let merge =
        |tag: &str| node.web_with("PUT", "/api/services/svc", &[("If-Match", tag)], "{\"owner\":\"ops\"}").status;
    assert_eq!(merge(&tag), 200, "nobody has changed what the change touches");
    assert_eq!(merge(&tag), 412, "now somebody has");
    let remove = |tag: &str| node.web_with("DELETE", "/api/services/svc", &[("If-Match", tag)], "").status;
    assert_eq!((remove(&tag), remove(&format!("W/{tag}"))), (412, 412));
    let tag = get().header("etag").expect("an ETag").to_owned();
    assert_eq!(remove(&tag), 204);
}

#[test]
fn a_row_of_security_is_made_changed_and_deleted_only_as_the_one_with_that_tag() {
    let node = Node::start(&Options::new());
    let issuer = r#"{"iss":"https://id.test","audiences":["rollbook"],"algorithms":["RS256"],"jwks_url":"https://id.test/keys"}"#;
    for (path, row) in [("principals/user:ann", "{}"), ("roles/writer", "{}"), ("issuers/corp", issuer)] {
        let path = format!("/api/security/{path}");
        let ask = |method: &str, name: &str, tag: &str| {
            node.web_with(method, &path, &[(name, tag)], if method == "PUT" { row } else { "" }).status
        };
        for absent in ["*", "\"1\"", "\"1\", \"2\""] {
            assert_eq!(ask("PUT", "If-Match", absent), 412, "{path}: {absent}");
        }
        assert_eq!(ask("PUT", "If-None-Match", "*"), 200, "{path}");
        assert_eq!(ask("PUT", "If-None-Match", "*"), 412, "{path} is there already");
        let tag = || node.web("GET", &path, "").header("etag").expect("an ETag").to_owned();
        let first = tag();
        assert_eq!((ask("PUT", "If-Match", &first), ask("PUT", "If-Match", &first)), (200, 412), "{path}");
        assert_eq!(ask("PUT", "If-Match", "*"), 200, "{path}");
        assert_eq!((ask("DELETE", "If-Match", &first), ask("DELETE", "If-Match", &tag())), (412, 204), "{path}");
    }
}

#[test]
fn numbers_stay_as_they_are_written_through_merges() {
    let node = Node::start(&Options::new());
    let big = r#"{"big":12345678901234567890123,"exact":1.50}"#;
    assert_eq!(node.web("POST", "/api/config", big).status, 200);
    let merged = node.web("PATCH", "/api/config", r#"{"more":0.10000000000000000000001}"#).text();
    assert_eq!(merged, r#"{"big":12345678901234567890123,"exact":1.50,"more":0.10000000000000000000001}"#);
    assert_eq!(node.web("GET", "/api/config", "").text(), merged);
    node.web("PATCH", "/api/config", r#"{"big":12345678901234567890124,"more":null}"#);
    let diff = node.web("GET", "/api/config/diff", "").text();
    assert!(diff.contains(r#""path":"/big","value":12345678901234567890124"#), "{diff}");
    let client = BusClient::connect(node.web);
    client.register("svc", &[]);
    node.web("PUT", "/api/services/svc", r#"{"id":12345678901234567890123}"#);
    node.web("PUT", "/api/services/svc", r#"{"price":1.10}"#);
    let shown = node.web("GET", "/api/services/svc", "").text();
    assert!(shown.contains(r#"{"id":12345678901234567890123,"price":1.10}"#), "{shown}");
}

#[test]
fn namespaces_come_in_pages() {
    let node = Node::start(&Options::new());
    let names = ["a", "b-1", "b_2", "c"];
    names.iter().for_each(|name| drop(node.publish(&format!("{name}.x"), "1")));
    let mut seen: Vec<String> = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = node.web("GET", &format!("/api/namespaces?limit=2{cursor}"), "").json();
        let items = page["items"].as_array().cloned().unwrap_or_default();
        assert!(items.len() <= 2, "{page}");
        seen.extend(items.iter().filter_map(|item| item["name"].as_str().map(str::to_owned)));
        let Some(next) = page["next_cursor"].as_str() else { break };
        cursor = format!("&cursor={next}");
    }
    assert!(names.iter().all(|name| seen.contains(&(*name).to_owned())) && seen.is_sorted(), "{seen:?}");
    assert_eq!(seen.iter().collect::<BTreeSet<_>>().len(), seen.len(), "each once: {seen:?}");
    let page = node.web("GET", "/api/namespaces?limit=1", "").json();
    let other = format!("/api/services?cursor={}", page["next_cursor"].as_str().expect("a cursor"));
    refusal(&node.web("GET", &other, ""), 400, "of this list").expect("a cursor is good for its own list");
}

#[test]
fn a_reset_past_the_end_is_refused() {
    let node = Node::start(&Options::new());
    (0..3).for_each(|n| drop(node.publish("app.x", &n.to_string())));
    drop(node.subscribe(&[("subject", "app.>"), ("consumer", "c")]));
    wait_for("the consumer", SOON, || node.consumer("app", "c").map(drop));
    let reset = |to: Value| node.web("POST", "/api/consumers/app/c/reset", &json!({ "to": to }).to_string());
    refusal(&reset(json!(999_999)), 400, "past the newest event of namespace app, 3").expect("not silently the newest");
    refusal(&reset(json!("e_zzz")), 400, "no event e_zzz").expect("not an event");
    assert_eq!(reset(json!(4)).json()["lag"], 0, "the end");
    assert_eq!(reset(json!(1)).json()["lag"], 3);
    // An event that keeps the id that another log gave to it is found by its place here.
    let copy = r#"{"subject":"app.x","id":"e_dc5qt9000000000000fg"}"#;
    let index = node.http().request("POST", "/?restore=true", &[], copy.as_bytes()).published().index;
    assert_eq!((index, reset(json!("e_dc5qt9000000000000fg")).json()["lag"].clone()), (4, json!(1)));
}

#[test]
fn a_service_may_be_called_as_a_command_is() {
    let node = Node::start(&Options::new());
    let client = BusClient::connect(node.web);
    client.register("restart-all", &[]);
    let path = "/api/services/restart-all";
    assert_eq!(node.web("GET", path, "").json()["id"], "restart-all");
    assert_eq!(node.web("PUT", path, "{\"owner\":\"ops\"}").json()["metadata"], json!({ "owner": "ops" }));
    assert_eq!(node.web("GET", &format!("{path}/instances"), "").json()["items"].as_array().map(Vec::len), Some(1));
    let restarted = node.web("POST", path, "").json();
    assert_eq!(restarted["items"][0]["service"], "restart-all", "{restarted}");
    client.event("bus:restart");
    assert_eq!(node.web("DELETE", path, "").status, 204);
    assert_eq!(client.end(), "sent away");
    assert_eq!(node.web("GET", path, "").status, 404);
}

#[test]
fn pages_of_listed_origins_may_use_rest_and_no_cache_mixes_them_up() {
    let node = Node::start(&Options::new().env("ROLLBOOK_WEB__ORIGINS", "http://app.example"));
    let (listed, other) = (("Origin", "http://app.example"), ("Origin", "http://evil.example"));
    let asked = [
        listed,
        ("Access-Control-Request-Method", "PATCH"),
        ("Access-Control-Request-Headers", "content-type,traceparent,tracestate,x-requested-with"),
        ("Access-Control-Request-Private-Network", "true"),
    ];
    let preflight = plain(&node, "OPTIONS", "/api/config", &asked, b"");
    assert_eq!(preflight.status, 204);
    assert_eq!(preflight.header("access-control-allow-origin"), Some("http://app.example"));
    let headers = preflight.header("access-control-allow-headers").unwrap_or_default();
    assert_eq!(headers, "content-type,traceparent,tracestate,x-requested-with");
    let methods = preflight.header("access-control-allow-methods").unwrap_or_default().to_owned();
    assert!(["PUT", "PATCH", "DELETE"].iter().all(|method| methods.contains(method)), "{methods}");
    assert_eq!(preflight.header("access-control-allow-private-network"), Some("true"));
    let changed = plain(&node, "POST", "/api/config", &[listed], b"{}");
    assert_eq!((changed.status, changed.header("access-control-allow-origin")), (200, Some("http://app.example")));
    assert!(changed.header("access-control-expose-headers").is_some_and(|names| names.contains("ETag")));
    // Also what goes wrong can be read.
    let gone = plain(&node, "GET", "/api/nothing", &[listed], b"");
    assert_eq!(gone.header("access-control-allow-origin"), Some("http://app.example"));
    let refused = plain(&node, "OPTIONS", "/api/config", &[other, asked[1]], b"");
    assert_eq!(refused.header("access-control-allow-origin"), None);
    let refused = plain(&node, "POST", "/api/config", &[other], b"{}");
    refusal(&refused, 403, "web.origins").expect("a page that is not listed");
    for headers in [&[listed] as &[(&str, &str)], &[other], &[]] {
        let answer = plain(&node, "GET", "/api/config", headers, b"");
        let varies =
            answer.headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("vary") && value.contains("Origin"));
        assert!(varies, "{:?}", answer.headers);
    }
}

/// The families of a page: name, kind, lines of samples. Refuses what a strict parser refuses.
fn families(text: &str) -> Result<Vec<(String, String, Vec<String>)>, String> {
    let mut families: Vec<(String, String, Vec<String>)> = Vec::new();
    for line in text.lines().filter(|line| !line.starts_with("# HELP ") && *line != "# EOF") {
        if let Some(typed) = line.strip_prefix("# TYPE ") {
            let (name, kind) = typed.split_once(' ').ok_or(line)?;
            if families.iter().any(|(known, ..)| known == name) {
                return Err(format!("{name} twice"));
            }
            families.push((name.to_owned(), kind.to_owned(), Vec::new()));
            continue;
        }
        let (name, kind, samples) = families.last_mut().ok_or(line)?;
        let sample = line.split(['{', ' ']).next().unwrap_or_default();
        let known = sample == name || (kind == "counter" && sample.strip_suffix("_total") == Some(name.as_str()));
        if !known {
            return Err(format!("{line:?} among the samples of {name}"));
        }
        samples.push(line.to_owned());
    }
    Ok(families)
}

#[test]
fn metrics_are_whole_families_in_the_form_that_is_asked_for() {
    let node = Node::start(&Options::new());
    for n in 0..3 {
        node.publish(&format!("ns{n}.x"), "1");
    }
    let get = |accept: &str| plain(&node, "GET", "/metrics", &[("Accept", accept)], b"");
    let open = get("application/openmetrics-text; version=1.0.0, text/plain; q=0.5");
    assert_eq!(open.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    assert!(open.text().ends_with("# EOF\n"));
    let text = get("*/*");
    assert_eq!(text.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    assert!(!text.text().contains("# EOF"));
    for answer in [&open, &text] {
        let families = families(&answer.text()).expect("what a strict parser takes");
        let of = |name: &str| families.iter().find(|(known, ..)| known == name).cloned();
        let (_, kind, samples) = of("rollbook_namespace_events").expect("a family");
        assert!(kind == "gauge" && samples.len() >= 3, "{samples:?}");
        let name = if std::ptr::eq(answer, &open) { "rollbook_events" } else { "rollbook_events_total" };
        assert_eq!(of(name), Some((name.to_owned(), "counter".to_owned(), vec!["rollbook_events_total 3".to_owned()])));
    }
}

#[test]
fn only_so_many_namespaces_have_metrics_of_their_own() {
    let node = Node::start(&Options::new().env("ROLLBOOK_WEB__METRICS_NAMESPACES_MAX", "2"));
    for n in 0..5 {
        node.publish(&format!("ns{n}.x"), "1");
    }
    let text = node.web("GET", "/metrics", "").text();
    assert_eq!(text.matches("rollbook_namespace_events{").count(), 2, "{text}");
    let listed = node.web("GET", "/api/namespaces", "").json()["items"].as_array().cloned().unwrap_or_default();
    let (all, events) = (listed.len(), listed.iter().filter_map(|one| one["events"].as_u64()).sum::<u64>());
    assert!(events >= 5, "{listed:?}");
    for line in [
        format!("\nrollbook_namespaces {all}\n"),
        format!("\nrollbook_namespaces_not_shown {}\n", all - 2),
        format!("\nrollbook_events_stored {events}\n"),
    ] {
        assert!(text.contains(&line), "{line:?} is not in {text}");
    }
}
