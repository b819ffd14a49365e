//! Publishes that must be refused: every row of the error table, and the order of the checks.

use crate::harness::node::Node;
use crate::harness::{SOON, ms, quote, report};

/// Posts each body and compares status, text and headers.
fn expect_refusals(what: &str, rows: &[(&str, u16, &str)]) {
    let node = Node::shared();
    let mut failures = Vec::new();
    for (body, status, text) in rows {
        let answer = node.post(body);
        if let Err(problem) = answer.refusal(*status, text) {
            failures.push(format!("{body:?}: {problem}"));
        }
    }
    report(what, &failures);
}

#[test]
fn bodies_that_are_no_event() {
    expect_refusals(
        "bodies",
        &[
            ("", 400, "empty body"),
            (" \r\n\t ", 400, "empty body"),
            ("x", 400, "expected opening brace"),
            ("1", 400, "expected opening brace"),
            ("null", 400, "expected opening brace"),
            ("\"a.b\"", 400, "expected opening brace"),
            ("subject=a.b", 400, "expected opening brace"),
            ("{", 400, "incomplete event"),
            ("{\"subject\":\"a.b\"", 400, "incomplete event"),
            ("{\"subject\":\"a.b\",", 400, "incomplete event"),
            ("{\"subject\":\"a.", 400, "incomplete event"),
            ("{\"subject\":\"a.b\",\"payload\":{\"x\":1}", 400, "incomplete event"),
            ("{\"subject\":\"a.b\"} x", 400, "unexpected data after event"),
            ("{\"subject\":\"a.b\"}{\"subject\":\"a.b\"}", 400, "unexpected data after event"),
            ("{\"subject\":\"a.b\"},", 400, "unexpected data after event"),
        ],
    );
}

#[test]
fn fields_of_the_wrong_type() {
    let node = Node::shared();
    let mut failures = Vec::new();
    for field in ["subject", "trace_id", "key", "response_subject", "id", "created_at"] {
        for value in ["1", "true", "{}", "[\"a.b\"]"] {
            let body = if field == "subject" {
                format!("{{\"subject\":{value}}}")
            } else {
                format!("{{\"subject\":\"a.b\",\"{field}\":{value}}}")
            };
            if let Err(problem) = node.post(&body).refusal(400, "expected string") {
                failures.push(format!("{body}: {problem}"));
            }
        }
    }
    report("wrong types", &failures);
}

#[test]
fn times_that_do_not_exist() {
    let node = Node::shared();
    let mut failures = Vec::new();
    for time in [
        "yesterday",
        "2024-03-15",
        "10:30:45Z",
        "2024-03-15T10:30:45",
        "2024-02-30T00:00:00Z",
        "2024-13-01T00:00:00Z",
        "2024-03-15T25:00:00Z",
        "2024-03-15T10:61:00Z",
        "2024-03-15T10:30:45.Z",
        "2024-03-15T10:30:45Zoulou",
        "1710498645",
    ] {
        let body = format!("{{\"subject\":\"a.b\",\"created_at\":\"{time}\",\"payload\":1}}");
        let answer = node.post(body);
        if let Err(problem) = answer.refusal(400, "invalid timestamp format") {
            failures.push(format!("{time:?}: {problem}"));
        }
    }
    // In UTC this is year 10000: any answer of the protocol will do, a crash not.
    for time in ["9999-12-31T23:59:59-01:00", "0000-01-01T00:00:00+01:00"] {
        let body = format!("{{\"subject\":\"a.b\",\"created_at\":\"{time}\"}}");
        let answer = node.post(body);
        if answer.status != 202 && answer.refusal(400, "invalid timestamp format").is_err() {
            failures.push(format!("{time:?}: {} {:?}", answer.status, answer.text()));
        }
    }
    report("created_at", &failures);
}

#[test]
fn payloads_that_are_not_json() {
    let node = Node::shared();
    let mut failures = Vec::new();
    for payload in [
        "tru",
        "nul",
        "01",
        "1.",
        ".5",
        "+1",
        "-",
        "1e",
        "0x10",
        "NaN",
        "Infinity",
        "'a'",
        "{a:1}",
        "{\"a\":}",
        "{\"a\" 1}",
        "[1,]",
        "{\"a\":1,}",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"a\nb\"",
        "\"a\tb\"",
        "[1 2]",
        "undefined",
    ] {
        let body = format!("{{\"subject\":\"a.b\",\"payload\":{payload}}}");
        let answer = node.post(&body);
        if let Err(problem) = answer.refusal(400, "invalid payload: not valid JSON") {
            failures.push(format!("{payload:?}: {problem}"));
        }
    }
    report("payloads", &failures);
}

#[test]
fn subjects_that_cannot_be_published_to() {
    let characters = "subject should have only letters, digits, dots, _, -, and in a pattern * and >";
    let rows = [
        ("a.*", "subject should not have * or >"),
        ("a.>", "subject should not have * or >"),
        ("a.**", "subject should not have * or >"),
        ("*", "subject should not have * or >"),
        ("a.b*c", "subject should not have * or >"),
        ("nodots", "invalid subject: missing namespace"),
        (".a", "invalid subject: missing namespace"),
        (".a.b", "invalid subject: missing namespace"),
        ("a.b.", "subject should not end with a dot"),
        ("a.", "subject should not end with a dot"),
        ("a. b.c", "subject should not have spaces"),
        ("a.b ", "subject should not have spaces"),
        ("a..b.c", "subject should not have two dots in a row"),
        ("a.b.c$", characters),
        ("a.b/c", characters),
        ("a.b:c", characters),
        ("a.b\u{1}", characters),
        ("a.b\nc", characters),
        ("a.b\r\nid: evil", characters),
        ("a.b\u{7f}", characters),
        ("a.b\u{2028}c", characters),
        ("a.b\u{0}", characters),
        ("nope.x", "namespace not found: nope"),
        ("ü.x", "namespace not found: ü"),
        ("_dead_.a.x", "namespace _dead_ is reserved"),
        ("roll.service.connect", "namespace roll is reserved"),
    ];
    let node = Node::shared();
    let mut failures = Vec::new();
    for (subject, text) in rows {
        let quoted = quote(subject);
        for body in
            [format!("{{\"subject\":{quoted},\"payload\":1}}"), format!("[{{\"subject\":{quoted},\"payload\":1}}]")]
        {
            if let Err(problem) = node.post(&body).refusal(400, text) {
                failures.push(format!("{body}: {problem}"));
            }
        }
    }
    report("subjects", &failures);
}

#[test]
fn no_subject_at_all() {
    expect_refusals(
        "no subject",
        &[
            ("{}", 400, "subject is required"),
            ("{\"payload\":1}", 400, "subject is required"),
            ("{\"subject\":\"\",\"payload\":1}", 400, "subject is required"),
            ("{\"nested\":{\"subject\":\"a.b\"}}", 400, "subject is required"),
            ("[{\"subject\":\"a.b\"},{\"payload\":1}]", 400, "subject is required"),
            ("[{}]", 400, "subject is required"),
        ],
    );
}

#[test]
fn subjects_of_255_bytes_and_32_segments_are_the_longest() {
    let node = Node::shared();
    let at_most = [format!("a.{}", "x".repeat(253)), format!("a{}", ".x".repeat(31))];
    let too_long =
        [format!("a.{}", "x".repeat(254)), format!("a{}", ".x".repeat(32)), format!("a.{}", "日".repeat(85))];
    for subject in at_most {
        node.publish(&subject, "1");
    }
    for subject in too_long {
        let answer = node.post(format!("{{\"subject\":\"{subject}\"}}"));
        assert_eq!(answer.status, 400, "{} bytes accepted", subject.len());
        answer.refusal_headers().expect("headers of a refusal");
    }
}

#[test]
fn client_ids_that_could_harm() {
    let node = Node::shared();
    let mut failures = Vec::new();
    let long = "x".repeat(129);
    for id in ["a b", "a\nb", "x\r\nevent: evil", "a/b", "é", "a\u{0}", "a\"b", "a,b", &long] {
        let id = quote(id);
        let body = format!("{{\"id\":{id},\"subject\":\"a.b\",\"payload\":1}}");
        if let Err(problem) = node.post(&body).refusal(400, "invalid event id") {
            failures.push(format!("{body}: {problem}"));
        }
    }
    report("ids", &failures);
}

#[test]
fn response_subjects_with_wildcards() {
    let text = "response subject should not have * or >";
    expect_refusals(
        "response subjects",
        &[
            ("{\"subject\":\"a.b\",\"response_subject\":\"_bus_.*\"}", 400, text),
            ("{\"subject\":\"a.b\",\"response_subject\":\"a.>\"}", 400, text),
            ("{\"subject\":\"a.b\",\"response_subject\":\"a.**\"}", 400, text),
        ],
    );
}

#[test]
fn batches_that_are_refused() {
    expect_refusals(
        "batches",
        &[
            ("[", 400, "unexpected end of JSON input"),
            ("[{", 400, "unexpected end of JSON input"),
            ("[{\"subject\":\"a.b\"", 400, "unexpected end of JSON input"),
            ("[{\"subject\":\"a.b\"}", 400, "unexpected end of JSON input"),
            ("[{\"subject\":\"a.b\"},", 400, "unexpected end of JSON input"),
            ("[]", 400, "empty batch"),
            (" [ \n ] ", 400, "empty batch"),
            (
                "[{\"subject\":\"a.b\"},{\"subject\":\"a.b\",\"response_subject\":\"_bus_.x\"}]",
                400,
                "batch items must not have response subject",
            ),
            ("[{\"subject\":\"_bus_.x\"}]", 400, "batch cannot publish to the reserved _bus_ namespace"),
            (
                "[{\"subject\":\"a.b\"},{\"subject\":\"b.b\"}]",
                400,
                "all events in batch must belong to the same namespace",
            ),
        ],
    );
}

#[test]
fn batches_that_are_malformed_say_where() {
    let node = Node::shared();
    let mut failures = Vec::new();
    for body in ["[1]", "[null]", "[{\"subject\":\"a.b\"} x]", "[{\"subject\":\"a.b\"},]", "[[]]", "[}"] {
        let answer = node.post(body);
        let text = answer.text();
        let detail = text.strip_prefix("invalid batch: ").map(str::trim);
        if answer.status != 400 || detail.is_none_or(str::is_empty) || text.lines().count() != 1 {
            failures.push(format!("{body}: {} {text:?}", answer.status));
        }
    }
    // A field of the wrong type or bytes at the end: the general text is as good.
    for (body, other) in
        [("[{\"subject\":1}]", "expected string; "), ("[{\"subject\":\"a.b\"}] x", "unexpected data after event; ")]
    {
        let answer = node.post(body);
        let text = answer.text();
        if answer.status != 400 || (!text.starts_with("invalid batch: ") && !text.starts_with(other)) {
            failures.push(format!("{body}: {} {text:?}", answer.status));
        }
    }
    report("malformed batches", &failures);
}

#[test]
fn a_body_that_is_not_utf8() {
    let node = Node::shared();
    let bodies: [&[u8]; 3] = [
        b"{\"subject\":\"a.b\",\"payload\":\"\xff\"}",
        b"{\"subject\":\"a.b\",\"trace_id\":\"\xc3\"}",
        b"[{\"subject\":\"a.b\",\"payload\":\"\xed\xa0\x80\"}]",
    ];
    for body in bodies {
        let refused = node.post(body).refusal(400, "body is not valid UTF-8");
        refused.unwrap_or_else(|problem| panic!("{}: {problem}", body.escape_ascii()));
    }
}

#[test]
fn the_first_check_that_fails_gives_the_text() {
    let both = "{\"subject\":\"a.*\",\"response_subject\":\"b.*\"}";
    expect_refusals(
        "order of checks",
        &[
            ("{\"subject\":\"\",\"created_at\":\"x\"}", 400, "invalid timestamp format"),
            ("{\"subject\":\"\",\"payload\":tru}", 400, "invalid payload: not valid JSON"),
            ("{\"subject\":\"a.b\",\"created_at\":\"x\",\"payload\":tru}", 400, "invalid timestamp format"),
            ("{\"subject\":\"\"} x", 400, "unexpected data after event"),
            (both, 400, "subject should not have * or >"),
            ("{\"subject\":\"nodots*\"}", 400, "subject should not have * or >"),
            ("{\"subject\":\"nodots\",\"response_subject\":\"b.*\"}", 400, "response subject should not have * or >"),
            ("{\"subject\":\"a..b\",\"id\":\"a b\"}", 400, "subject should not have two dots in a row"),
            ("{\"subject\":\"nope.x\",\"id\":\"a b\"}", 400, "invalid event id"),
            ("{\"subject\":\"_dead_.x\",\"id\":\"a b\"}", 400, "invalid event id"),
            ("[{\"response_subject\":\"x.y\"}]", 400, "batch items must not have response subject"),
            (
                "[{\"subject\":\"_bus_.x\"},{\"subject\":\"a.y\"}]",
                400,
                "batch cannot publish to the reserved _bus_ namespace",
            ),
            ("[{\"subject\":\"nope.x\"},{\"subject\":\"a.y\"}]", 400, "namespace not found: nope"),
        ],
    );
}

#[test]
fn a_refused_publish_leaves_nothing_behind() {
    let node = Node::shared();
    let ns = node.namespace();
    for body in [
        format!("{{\"subject\":\"{ns}.x\",\"payload\":tru}}"),
        format!("{{\"subject\":\"{ns}.x\"}} x"),
        format!("[{{\"subject\":\"{ns}.x\"}},{{\"subject\":\"{ns}..x\"}}]"),
        format!("[{{\"subject\":\"{ns}.x\"}},{{\"subject\":\"a.x\"}}]"),
        format!("[{{\"subject\":\"{ns}.x\"}}"),
        format!("{{\"subject\":\"{ns}.x\",\"id\":\"a b\"}}"),
    ] {
        assert_eq!(node.post(&body).status, 400, "{body}");
    }
    let accepted = node.publish(&format!("{ns}.x"), "1");
    assert_eq!(accepted.index, 1, "a refused publish took an index");
    let mut stream = node.replay(&format!("{ns}.>"));
    assert_eq!(stream.next_event(SOON).event_id(), accepted.id);
    stream.quiet(ms(200));
}
