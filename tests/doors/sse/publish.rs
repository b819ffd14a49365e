//! Publishes that are accepted: headers, stored form, payload bytes, times, ids.

use crate::harness::http::Http;
use crate::harness::node::Node;
use crate::harness::{SOON, quote, report};

/// `e_` or `c_` and 20 characters of base32hex.
fn is_made_by_server(id: &str, prefix: &str) -> bool {
    id.strip_prefix(prefix)
        .is_some_and(|rest| rest.len() == 20 && rest.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'v')))
}

#[test]
fn a_publish_is_answered_by_202_and_three_headers() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!("{{\"subject\":\"{ns}.x\",\"payload\":{{\"n\":1}}}}");
    let answer = node.post(body);
    assert_eq!(answer.status, 202);
    assert!(answer.body.is_empty(), "body of a 202: {:?}", answer.text());
    answer.want("content-length", "0").expect("length");
    answer.cors().expect("CORS headers");
    let published = answer.published();
    assert!(is_made_by_server(&published.id, "e_"), "{published:?}");
    assert_eq!(published.index, 1, "first event of the namespace");
    let time = published.created_at.strip_suffix('Z').expect("UTC with Z");
    assert!(time.len() > 18 && !time.ends_with('.'), "{time}");
    let fraction = time.split_once('.').map_or("1", |(_, fraction)| fraction);
    assert!(fraction.len() <= 9 && !fraction.ends_with('0'), "{time}");
}

#[test]
fn a_stored_event_is_exactly_its_json() {
    let node = Node::shared();
    let ns = node.namespace();
    let payload = "{ \"b\" : [ 1.0, 1e400 ] }";
    let body = format!(
        "{{\"key\":\"k 1\",\"payload\":{payload},\"trace_id\":\"tr\",\"ignored\":{{\"subject\":\"x\"}},\
         \"response_subject\":\"{ns}.reply\",\"index\":99,\"subject\":\"{ns}.x\"}}"
    );
    let made = node.post(body).published();
    let event = node.replay(&format!("{ns}.x")).next_event(SOON);
    let (id, at) = (&made.id, &made.created_at);
    assert_eq!(
        event.raw,
        format!(
            "id: {id}\nevent: msg\ndata: {{\"id\":\"{id}\",\"trace_id\":\"tr\",\"key\":\"k 1\",\
             \"subject\":\"{ns}.x\",\"response_subject\":\"{ns}.reply\",\"created_at\":\"{at}\",\
             \"payload\":{payload},\"index\":1}}\n\n"
        )
    );
}

#[test]
fn empty_fields_are_left_out() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!(
        "{{\"subject\":\"{ns}.x\",\"trace_id\":\"\",\"key\":\"\",\"response_subject\":\"\",\"created_at\":\"\",\"id\":\"\"}}"
    );
    let made = node.post(body).published();
    let event = node.replay(&format!("{ns}.x")).next_event(SOON);
    let (id, at) = (&made.id, &made.created_at);
    let want = format!("{{\"id\":\"{id}\",\"subject\":\"{ns}.x\",\"created_at\":\"{at}\",\"index\":1}}");
    assert_eq!(event.text(), want);
    assert!(is_made_by_server(id, "e_"), "{id}");
}

#[test]
fn payload_bytes_are_kept_as_they_came() {
    let payloads = [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "1.0",
        "1.50",
        "1e400",
        "-1E-400",
        "1E+2",
        "0.1e-7",
        "123456789012345678901234567890.123456789012345678901234567890",
        "18446744073709551616",
        "\"\"",
        "\"\\u00e9\\uD83D\\uDE00\\u0001\"",
        "\"\\/\\b\\f\"",
        "\"é日本😀\"",
        "\"\u{2028}\u{7f}\"",
        "{}",
        "[]",
        "{\"a\":1,\"a\":2}",
        "{ \"b\" : [ 1 , 2 ] }",
        "[[[[]]]]",
        "\"}{][\\\"\"",
        "{\"}\":\"{\",\"\\\"\":\"\\\\\"}",
        "\"\\ud800\"",
        "\t[1]  ",
    ];
    let node = Node::shared();
    let ns = node.namespace();
    let mut http = node.http();
    for payload in payloads {
        let body = format!("{{\"subject\":\"{ns}.x\",\"payload\":{payload}}}");
        let answer = http.post(body);
        assert_eq!(answer.status, 202, "{payload}: {}", answer.text());
    }
    let mut failures = Vec::new();
    let mut stream = node.replay(&format!("{ns}.x"));
    for (payload, index) in payloads.iter().zip(1..) {
        let event = stream.next_event(SOON);
        // Blanks around the value belong to the request, not to the payload.
        let want = format!(",\"payload\":{},\"index\":{index}}}", payload.trim());
        if !event.text().ends_with(&want) {
            failures.push(format!("{payload}: {}", event.text()));
        }
    }
    report("payload bytes", &failures);
}

#[test]
fn a_missing_payload_is_left_out_and_null_is_kept() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut http = node.http();
    for body in [
        format!("{{\"subject\":\"{ns}.x\"}}"),
        format!("{{\"subject\":\"{ns}.x\",\"payload\":null}}"),
        format!("[{{\"subject\":\"{ns}.x\",\"payload\":null}},{{\"subject\":\"{ns}.x\"}}]"),
    ] {
        let answer = http.post(&body);
        assert_eq!(answer.status, 202, "{body}: {}", answer.text());
    }
    let events = node.replay(&format!("{ns}.x")).events(4, SOON);
    let kept: Vec<bool> = events.iter().map(|event| event.text().contains(",\"payload\":null,")).collect();
    let absent: Vec<bool> = events.iter().map(|event| !event.text().contains("payload")).collect();
    assert_eq!(kept, [false, true, true, false], "null kept: {events:#?}");
    assert_eq!(absent, [true, false, false, true], "payload left out: {events:#?}");
}

#[test]
fn client_times_become_utc_with_trimmed_zeros() {
    let rows = [
        ("2024-03-15T10:30:45.123456789Z", "2024-03-15T10:30:45.123456789Z"),
        ("2024-03-15T10:30:45.120000000Z", "2024-03-15T10:30:45.12Z"),
        ("2024-03-15T10:30:45.000000000Z", "2024-03-15T10:30:45Z"),
        ("2024-03-15T10:30:45Z", "2024-03-15T10:30:45Z"),
        ("2024-03-15T12:30:45.5+02:00", "2024-03-15T10:30:45.5Z"),
        ("2024-03-15T05:00:45-05:30", "2024-03-15T10:30:45Z"),
        ("2024-03-01T00:30:00+01:00", "2024-02-29T23:30:00Z"),
        ("2023-12-31T23:30:00.000000001-01:00", "2024-01-01T00:30:00.000000001Z"),
        ("1969-12-31T23:59:59.25Z", "1969-12-31T23:59:59.25Z"),
        ("2024-03-15T10:30:45.1+00:00", "2024-03-15T10:30:45.1Z"),
    ];
    let node = Node::shared();
    let ns = node.namespace();
    let mut failures = Vec::new();
    for (given, want) in rows {
        let body = format!("{{\"subject\":\"{ns}.x\",\"created_at\":\"{given}\",\"payload\":1}}");
        let answer = node.post(body);
        let header = answer.header("x-bus-event-created-at").map(str::to_owned);
        if answer.status != 202 || header.as_deref() != Some(want) {
            failures.push(format!("{given}: {} {header:?} {}", answer.status, answer.text()));
        }
    }
    report("headers", &failures);
    let mut stream = node.replay(&format!("{ns}.x"));
    for (given, want) in rows {
        let event = stream.next_event(SOON).json();
        assert_eq!(event["created_at"], want, "stored form of {given}");
    }
}

#[test]
fn a_client_id_is_kept_and_taken_once() {
    let node = Node::shared();
    let (ns, other) = (node.namespace(), node.namespace());
    let longest = "x".repeat(128);
    for id in ["my-id:1.2_Z", "7", &longest, "e_custom", "e_dc0unahksdu9ruucpt80"] {
        let body = format!("{{\"id\":\"{id}\",\"subject\":\"{ns}.x\",\"payload\":1}}");
        let made = node.post(&body).published();
        assert_eq!(made.id, id);
        assert_eq!(node.post(&body).repeats("event id already exists"), made, "{id} again");
        let batch = node.post(format!("[{{\"subject\":\"{ns}.x\"}},{body}]"));
        let text = format!("event id already exists: item 2 of the batch, index {}", made.index);
        let refused = batch.refusal(409, &text);
        refused.unwrap_or_else(|problem| panic!("{id} in a batch: {problem}"));
        // Ids are unique in their namespace only.
        let elsewhere = body.replace(&format!("{ns}.x"), &format!("{other}.x"));
        assert_eq!(node.post(elsewhere).published().id, id);
    }
    let events = node.replay(&format!("{ns}.>")).events(5, SOON);
    let mut first = events.iter();
    assert_eq!(first.next().expect("an event").event_id(), "my-id:1.2_Z");
}

#[test]
fn the_id_of_a_stored_event_cannot_be_reused_by_a_client() {
    let node = Node::shared();
    let ns = node.namespace();
    let made = node.publish(&format!("{ns}.x"), "1");
    let body = format!("{{\"id\":\"{}\",\"subject\":\"{ns}.y\"}}", made.id);
    let refused = node.post(body);
    refused.refusal(409, "event id already exists").expect("an id made by the server is taken too");
    let told = ["x-bus-event-id", "x-bus-event-index", "x-bus-event-created-at"].map(|name| refused.header(name));
    assert_eq!(told, [Some(made.id.as_str()), Some("1"), None], "its time is not read again");
}

#[test]
fn indexes_count_each_namespace_from_one_without_gaps() {
    let node = Node::shared();
    let (first, second) = (node.namespace(), node.namespace());
    let mut ids = Vec::new();
    for n in 1..=20 {
        for ns in [&first, &second] {
            let made = node.publish(&format!("{ns}.s{}", n % 3), "1");
            assert_eq!(made.index, n, "index in {ns}");
            if *ns == first {
                ids.push(made.id);
            }
        }
    }
    let events = node.replay(&format!("{first}.>")).events(20, SOON);
    for (event, want) in events.iter().zip(1..) {
        assert_eq!(event.index(), want);
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20, "ids are unique in their namespace");
}

#[test]
fn keys_and_trace_ids_with_odd_characters_round_trip() {
    let node = Node::shared();
    let ns = node.namespace();
    let key = "weird\"key\\with\nid: evil\r\u{1}<newline>\u{2028}chars";
    let trace = "tab\tand \"quotes\"";
    let body = format!("{{\"subject\":\"{ns}.x\",\"key\":{},\"trace_id\":{},\"payload\":1}}", quote(key), quote(trace));
    assert_eq!(node.post(&body).status, 202);
    node.post(&body).refusal(409, "key was processed before").expect("same key");
    let event = node.replay(&format!("{ns}.x")).next_event(SOON);
    assert_eq!(event.json()["key"], key);
    assert_eq!(event.json()["trace_id"], trace);
    assert_eq!(event.raw.lines().count(), 4, "one data line: {:?}", event.raw);
}

#[test]
fn escapes_in_field_names_and_values_are_understood() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!("{{\"\\u0073ubject\":\"{ns}\\u002ex\",\"payload\":{{\"subject\":\"no.no\"}}}}");
    node.post(body).published();
    let event = node.replay(&format!("{ns}.x")).next_event(SOON).json();
    assert_eq!(event["subject"], format!("{ns}.x"));
}

#[test]
fn blanks_around_the_event_are_skipped() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut http = node.http();
    for body in [
        format!(" \r\n\t{{ \"subject\" : \"{ns}.x\" , \"payload\" : 1 }} \n "),
        format!("\n [ {{ \"subject\" : \"{ns}.x\" }} , {{ \"subject\" : \"{ns}.x\" }} ] \r\n"),
    ] {
        assert_eq!(http.post(&body).status, 202, "{body}");
    }
    node.replay(&format!("{ns}.x")).events(3, SOON);
}

#[test]
fn the_content_type_of_a_publish_does_not_matter() {
    let node = Node::shared();
    let ns = node.namespace();
    let body = format!("{{\"subject\":\"{ns}.x\"}}");
    let mut http = node.http();
    for kind in ["text/plain", "application/x-www-form-urlencoded", "nonsense", "application/json; charset=latin1"] {
        let answer = http.request("POST", "/", &[("Content-Type", kind)], body.as_bytes());
        assert_eq!(answer.status, 202, "{kind}: {}", answer.text());
    }
}

#[test]
fn a_chunked_body_is_accepted_even_byte_by_byte() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut http = Http::connect(node.log);
    let body = format!("{{\"subject\":\"{ns}.x\",\"payload\":\"é\"}}");
    let mut bytes = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for byte in body.bytes() {
        bytes.extend_from_slice(&[b'1', b'\r', b'\n', byte, b'\r', b'\n']);
    }
    bytes.extend_from_slice(b"0\r\n\r\n");
    http.send(&bytes).expect("send");
    let answer = http.read_response(false).expect("an answer");
    assert_eq!(answer.published().index, 1);
    assert_eq!(http.post(body).published().index, 2, "the connection stays usable");
}

#[test]
fn pipelined_publishes_are_answered_in_order() {
    let node = Node::shared();
    let ns = node.namespace();
    let mut http = node.http();
    let mut bytes = Vec::new();
    for n in 0..20 {
        let body = format!("{{\"subject\":\"{ns}.x\",\"payload\":{n}}}");
        let head = format!("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(body.as_bytes());
    }
    http.send(&bytes).expect("send");
    for want in 1..=20 {
        let answer = http.read_response(false).expect("an answer");
        assert_eq!(answer.published().index, want);
    }
}
