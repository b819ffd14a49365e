//! Recorded conversations: bodies to events or refusals, frames byte for byte.

use std::borrow::Cow;

use proptest::prelude::*;
use rollbook_core::entry::{EntryBuilder, FLAG_CREATE, FLAG_HEADERS, FLAG_KEYED, Frame};
use rollbook_core::event::Event;
use rollbook_core::time::Timestamp;

use super::codec::{self, CommonWait, Context, FRAMES};
use super::headers::RequestHeaders;
use crate::bus::error::Fault;
use crate::bus::read::encoder::EventEncoder as _;
use crate::bus::write::draft::{Parsed, allow_create};
use crate::net::http::status::status;

const NOW: Timestamp = Timestamp { seconds: 1_710_498_645, nanos: 123_000_000 };

fn parse(body: impl AsRef<[u8]>) -> Result<Parsed, Fault> {
    let enabled = |name: &str| matches!(name, "a" | "b" | "my-app");
    codec::parse_publish(
        body.as_ref(),
        &Context { now: NOW, enabled: &enabled, common: &RequestHeaders::default(), wait: CommonWait::default() },
    )
}

/// The text of the refusal, or `accepted`.
fn refusal(body: impl AsRef<[u8]>) -> Cow<'static, str> {
    match parse(body) {
        Ok(_) => "accepted".into(),
        Err(rejected) => {
            assert_eq!(status(rejected.kind), 400, "{rejected:?}");
            // What follows helps people and is no part of the protocol.
            rejected.text.split("; ").next().unwrap().to_owned().into()
        }
    }
}

fn expect_refusals(rows: &[(&str, &str)]) {
    let wrong = |(body, text): &(&str, &str)| {
        let got = refusal(body);
        (got != *text).then(|| format!("{body:?}\n  want {text}\n  got  {got}"))
    };
    let failures: Vec<String> = rows.iter().filter_map(wrong).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// What is stored: namespace, flags and the JSON of each event, numbered from 1.
fn stored(body: impl AsRef<[u8]>) -> (String, u8, Vec<String>) {
    let Parsed::Publish(publish) = parse(body).unwrap() else { panic!("an inbox message") };
    let mut entry = EntryBuilder::new(0);
    entry.push(&publish.frame);
    let entry = entry.finish(0);
    let mut frames = rollbook_core::entry::Entry::parse(&entry).unwrap().frames();
    let Some(Frame::Publish(frame)) = frames.next() else { panic!("no publish frame") };
    assert!(frames.next().is_none() && frames.intact());
    assert_eq!(frame.namespace, publish.namespace);
    let (mut rest, mut events) = (frame.records, Vec::new());
    for index in 1..=i64::from(frame.events) {
        let (event, used) = Event::decode(rest).unwrap();
        events.push(json(index, &event));
        rest = &rest[used..];
    }
    assert!(rest.is_empty());
    (publish.namespace, frame.flags, events)
}

fn one(body: impl AsRef<[u8]>) -> String {
    let (_, _, mut events) = stored(body);
    assert_eq!(events.len(), 1);
    events.remove(0)
}

fn json(index: i64, event: &Event<'_>) -> String {
    let mut out = Vec::new();
    crate::bus::read::event_json::write(index, event, &mut out);
    String::from_utf8(out).unwrap()
}

fn frame(index: i64, event: &Event<'_>) -> String {
    let mut out = Vec::new();
    FRAMES.event(index, event, None, &mut out);
    String::from_utf8(out).unwrap()
}

/// Lines as a client of the protocol sees them: CR, LF and CR LF all end one.
fn lines(text: &str) -> Vec<&str> {
    let mut lines = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find(['\r', '\n']) {
        lines.push(&rest[..at]);
        rest = &rest[at + if rest[at..].starts_with("\r\n") { 2 } else { 1 }..];
    }
    lines.push(rest);
    lines
}

#[test]
fn a_mark_in_front_of_a_body_and_members_that_are_null_mean_nothing() {
    let body =
        "\u{feff} {\"subject\":\"a.b\",\"key\":null,\"trace_id\":null,\"id\":null,\"created_at\":null,\"payload\":1}";
    let plain = "{\"subject\":\"a.b\",\"payload\":1}";
    assert_eq!(parse(body), parse(plain));
    assert!(parse(body).is_ok());
}

#[test]
fn a_payload_may_be_nested_so_deep() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    for (levels, fits) in [(128, true), (129, false), (100_000, false)] {
        let event = format!("{{\"subject\":\"a.b\",\"payload\":{}}}", nested(levels));
        for body in [event.clone(), format!("\u{feff} [{event}]")] {
            assert_eq!(parse(&body).is_ok(), fits, "{levels}");
            let context = Context {
                now: NOW,
                enabled: &|name| name == "a",
                common: &RequestHeaders::default(),
                wait: CommonWait::default(),
            };
            let restored = codec::parse_restore(body.as_bytes(), &context);
            assert!(restored.is_ok(), "an older release may have stored it: {levels}");
        }
    }
}

#[test]
fn headers_are_announced_by_the_frame_and_only_those_that_are_there() {
    let with = "{\"subject\":\"a.b\",\"headers\":{\"B\":[\"1\",\"2\"],\"a\":\"\"}}";
    let without = "{\"subject\":\"a.b\",\"headers\":{\"B\":[]}}";
    assert!(one(with).contains(",\"headers\":{\"B\":[\"1\",\"2\"],\"a\":\"\"}"), "{}", one(with));
    assert_eq!(stored(with).1, FLAG_HEADERS);
    assert_eq!(stored(format!("[{without},{with}]")).1, FLAG_HEADERS);
    for plain in [without, "{\"subject\":\"a.b\",\"headers\":null}"] {
        assert_eq!(parse(plain), parse("{\"subject\":\"a.b\"}"), "{plain}");
    }
}

#[test]
fn bodies_that_are_no_event() {
    expect_refusals(&[
        ("", "empty body"),
        (" \t\r\n", "empty body"),
        ("x", "expected opening brace"),
        ("null", "expected opening brace"),
        ("\"a.b\"", "expected opening brace"),
        ("\u{feff}", "empty body"),
        ("\u{feff}\u{feff}{\"subject\":\"a.b\"}", "expected opening brace"),
        ("\u{feff}{\"subject\":\"a.b\"}", "accepted"),
        ("{", "incomplete event"),
        ("{\"subject\":\"a.", "incomplete event"),
        ("{\"subject\":\"a.b\",\"payload\":[1,2", "incomplete event"),
        ("{\"subject\":1}", "expected string"),
        ("{\"subject\":null}", "subject is required"),
        ("{\"subject\":\"a.b\",\"trace_id\":{}}", "expected string"),
        ("{\"subject\":\"a.b\",\"key\":\"\\ud800\"}", "expected string"),
        ("{\"subject\":\"a.b\",\"created_at\":5}", "expected string"),
        ("{\"subject\":\"a.b\",\"created_at\":\"soon\"}", "invalid timestamp format"),
        ("{\"subject\":\"a.b\",\"created_at\":\"soon\",\"payload\":tru}", "invalid timestamp format"),
        ("{\"subject\":\"a.b\",\"payload\":tru}", "invalid payload: not valid JSON"),
        ("{\"payload\":{\"a\":}, \"subject\":\"a.b\"}", "invalid payload: not valid JSON"),
        ("{\"subject\":\"a.b\",\"payload\":\"a\nb\"}", "invalid payload: not valid JSON"),
        ("{\"subject\":\"a.b\"} x", "unexpected data after event"),
        ("{\"subject\":\"a.b\"}[]", "unexpected data after event"),
    ]);
    for body in [&b"{\"subject\":\"a.b\",\"payload\":\"\xff\"}"[..], b"[{\"subject\":\"a.\xc3\"}]", b"\xfe"] {
        assert_eq!(refusal(body), "body is not valid UTF-8", "{}", body.escape_ascii());
    }
}

#[test]
fn a_refusal_says_where_and_what_would_be_right() {
    let text = |body: &str| parse(body).expect_err(body).text.into_owned();
    for (body, want) in [
        ("{\"subject\":\"a.b\",\n \"key\":5}", "expected string; \"key\" is one in double quotes: line 2, column 8"),
        (
            "{'subject':'a.b'}",
            "expected string; line 1, column 2: names of fields are in double quotes, as in {\"subject\"",
        ),
        ("{subject:\"a.b\"}", "expected string; line 1, column 2: names"),
        (
            "{\"subject\":\"a.b\"}\n{\"subject\":\"a.c\"}",
            "unexpected data after event; line 2, column 1: many events are an array",
        ),
        ("{\"subject\":\"a.b\",\"payload\":tru}", "invalid payload: not valid JSON; line 1, column "),
        ("subject=app.x", "expected opening brace; a body is {\"subject\":\"app.orders\""),
    ] {
        assert!(text(body).starts_with(want), "{body}: {}", text(body));
    }
    let text = parse(b"{\"subject\":\"a.b\xff").expect_err("no UTF-8").text;
    assert!(text.starts_with("body is not valid UTF-8; from byte 15 on"), "{text}");
}

#[test]
fn batches_that_are_refused() {
    expect_refusals(&[
        ("[", "unexpected end of JSON input"),
        ("[{\"subject\":\"a.b\"}", "unexpected end of JSON input"),
        ("[{\"subject\":\"a.b\"},", "unexpected end of JSON input"),
        ("[ ]", "empty batch"),
        ("[{\"subject\":\"a.b\",\"response_subject\":\"a.c\"}]", "batch items must not have response subject"),
        ("[{\"payload\":1}]", "subject is required"),
        ("[{\"subject\":\"a.b\"},{\"subject\":\"a.*\"}]", "subject should not have * or >"),
        ("[{\"subject\":\"\",\"created_at\":\"soon\"}]", "invalid timestamp format"),
        ("[{\"subject\":\"a.b\",\"id\":\"a b\"}]", "invalid event id"),
        ("[{\"subject\":\"_bus_.x\"}]", "batch cannot publish to the reserved _bus_ namespace"),
        ("[{\"subject\":\"_dead_.a.b\"}]", "namespace _dead_ is reserved"),
        ("[{\"subject\":\"a.b\"},{\"subject\":\"nope.b\"}]", "namespace not found: nope"),
        ("[{\"subject\":\"a.b\"},{\"subject\":\"b.b\"}]", "all events in batch must belong to the same namespace"),
    ]);
    for body in ["[1]", "[{\"subject\":1}]", "[{\"subject\":\"a.b\"} {}]", "[{\"subject\":\"a.b\"}] x", "[{}}"] {
        assert!(refusal(body).starts_with("invalid batch: "), "{body}: {}", refusal(body));
    }
    let many = |count: usize| format!("[{}]", vec!["{\"subject\":\"a.b\"}"; count].join(","));
    assert_eq!(stored(many(100_000)).2.len(), 100_000);
    assert!(refusal(many(100_001)).starts_with("invalid batch: more than 100000 events"));
}

#[test]
fn subjects_and_fields_that_are_refused() {
    let characters = "subject should have only letters, digits, dots, _, -, and in a pattern * and >";
    expect_refusals(&[
        ("{}", "subject is required"),
        ("{\"subject\":\"\"}", "subject is required"),
        ("{\"subject\":\"a.>\"}", "subject should not have * or >"),
        ("{\"subject\":\"a.b\",\"response_subject\":\"a.*\"}", "response subject should not have * or >"),
        ("{\"subject\":\"nodots\"}", "invalid subject: missing namespace"),
        ("{\"subject\":\".a\"}", "invalid subject: missing namespace"),
        ("{\"subject\":\"a.b.\"}", "subject should not end with a dot"),
        ("{\"subject\":\"a. b\"}", "subject should not have spaces"),
        ("{\"subject\":\"a..b\"}", "subject should not have two dots in a row"),
        ("{\"subject\":\"a.b\\r\\nid: x\"}", characters),
        ("{\"subject\":\"a.b\\u0000\"}", characters),
        ("{\"subject\":\"a.b\",\"response_subject\":\"a.b\\n\"}", characters),
        ("{\"subject\":\"a.b\",\"id\":\"x\\ny\"}", "invalid event id"),
        ("{\"subject\":\"nope.b\",\"id\":\"x y\"}", "invalid event id"),
        ("{\"subject\":\"_dead_.a.b\"}", "namespace _dead_ is reserved"),
        ("{\"subject\":\"roll.a\"}", "namespace roll is reserved"),
        ("{\"subject\":\"nope.b\"}", "namespace not found: nope"),
        ("{\"subject\":\"\u{e4}.b\"}", "namespace not found: \u{e4}"),
    ]);
    let long = "k".repeat(1025);
    assert_eq!(refusal(format!("{{\"subject\":\"a.b\",\"key\":\"{long}\"}}")), "key is longer than 1024 bytes");
    assert_eq!(
        refusal(format!("{{\"subject\":\"a.b\",\"trace_id\":\"{long}\"}}")),
        "trace_id is longer than 1024 bytes"
    );
}

#[test]
fn an_event_is_stored_as_it_came() {
    let at = "\"created_at\":\"2024-03-15T10:30:45.123Z\"";
    let id = "e_cnq26l8000000000000g";
    assert_eq!(one("{\"subject\":\"a.b\"}"), format!("{{\"id\":\"{id}\",\"subject\":\"a.b\",{at},\"index\":1}}"));
    let whole = "{\"trace_id\":\"t\\u00e9\\t\",\"key\":\"k\\\"\",\"id\":\"mine:1\",\"response_subject\":\"_bus_.r\",\
                 \"index\":77,\"other\":[{\"subject\":\"b.b\"}],\"payload\": {\"n\": 1e400 } ,\"subject\":\"my-app.\u{fc}\"} \n";
    let (namespace, flags, events) = stored(whole);
    assert_eq!((namespace.as_str(), flags), ("my-app", FLAG_KEYED));
    assert_eq!(
        events,
        [format!(
            "{{\"id\":\"mine:1\",\"trace_id\":\"t\u{e9}\\t\",\"key\":\"k\\\"\",\"subject\":\"my-app.\u{fc}\",\
             \"response_subject\":\"_bus_.r\",{at},\"payload\":{{\"n\": 1e400 }},\"index\":1}}"
        )]
    );
    assert!(one("{\"subject\":\"a.b\",\"payload\":null}").contains(",\"payload\":null,"));
    assert!(one("{\"subject\":\"a.x\",\"subject\":\"a.b\"}").contains("\"subject\":\"a.b\""), "the last one counts");
    let (_, flags, events) = stored(" [{\"subject\":\"a.b\",\"payload\":[ ]}, {\"subject\":\"a.c\",\"payload\":null}]");
    assert_eq!((flags, events.len()), (0, 2));
    assert!(events[0].contains("\"payload\":[ ],\"index\":1") && events[1].contains("\"payload\":null,\"index\":2"));
}

#[test]
fn times_of_events() {
    let at = |time: &str| {
        let event = one(format!("{{\"subject\":\"a.b\",\"created_at\":\"{time}\"}}"));
        event.split("\"created_at\":\"").nth(1).unwrap().split('"').next().unwrap().to_owned()
    };
    assert_eq!(at("2024-03-15T10:30:45.120Z"), "2024-03-15T10:30:45.12Z");
    assert_eq!(at("2024-03-15T10:30:45.000000001+02:00"), "2024-03-15T08:30:45.000000001Z");
    assert_eq!(at("1969-12-31T23:59:59.75Z"), "1969-12-31T23:59:59.75Z");
    for unset in ["", "0001-01-01T00:00:00Z"] {
        assert_eq!(at(unset), "2024-03-15T10:30:45.123Z", "{unset:?} is the time of the publish");
    }
    for bad in [
        "2024-03-15 10:30:45Z",
        "2024-03-15T10:30:45",
        "2024-03-15T10:30:60Z",
        "2024-02-30T10:30:45Z",
        "2024-03-15T10:30:45.1234567890Z",
        "2024-03-15T10:30:45.Z",
        "2024-03-15T10:30:45[UTC]",
        "9999-12-31T23:59:59-01:00",
        "-000001-01-01T00:00:00Z",
    ] {
        let body = format!("{{\"subject\":\"a.b\",\"created_at\":\"{bad}\"}}");
        assert_eq!(refusal(body), "invalid timestamp format", "{bad}");
    }
}

#[test]
fn an_inbox_message_goes_to_its_listeners() {
    let parsed = parse("{\"subject\":\"_bus_.r1\",\"payload\":{\"ok\":true}}").unwrap();
    let Parsed::Inbox { subject, record, created_at } = parsed else { panic!("not an inbox message") };
    let (event, _) = Event::decode(&record).unwrap();
    assert_eq!((subject.as_str(), created_at, event.payload), ("_bus_.r1", NOW, Some(&b"{\"ok\":true}"[..])));
}

#[test]
fn what_the_answer_of_a_single_event_needs() {
    let single = |body: &str| match parse(body) {
        Ok(Parsed::Publish(publish)) => publish.single.map(|single| (single.id, single.created_at)),
        other => panic!("{other:?}"),
    };
    assert_eq!(single("{\"subject\":\"a.b\"}"), Some((String::new(), NOW)));
    let chosen = "{\"subject\":\"a.b\",\"id\":\"x\",\"created_at\":\"1970-01-01T00:00:01Z\"}";
    assert_eq!(single(chosen), Some(("x".to_owned(), Timestamp { seconds: 1, nanos: 0 })));
    assert_eq!(single("[{\"subject\":\"a.b\"}]"), None);
    let Parsed::Publish(mut publish) = parse("{\"subject\":\"a.b\",\"key\":\"k\"}").unwrap() else { panic!("inbox") };
    allow_create(&mut publish.frame);
    assert_eq!(publish.frame[1], FLAG_CREATE | FLAG_KEYED);
}

#[test]
fn frames_byte_for_byte() {
    let event = Event { subject: "a.b", created_at: NOW, payload: Some(b"{\"n\":1}"), ..Event::default() };
    let id = "e_cnq26l8000000000000g";
    let at = "2024-03-15T10:30:45.123Z";
    let data =
        format!("{{\"id\":\"{id}\",\"subject\":\"a.b\",\"created_at\":\"{at}\",\"payload\":{{\"n\":1}},\"index\":1}}");
    assert_eq!(frame(1, &event), format!("id: {id}\nevent: msg\ndata: {data}\n\n"));
    let pretty = Event { id: "x", payload: Some(b"[\n 1,\r\n 2,\r3\r\r\n]"), ..event };
    let start = format!("{{\"id\":\"x\",\"subject\":\"a.b\",\"created_at\":\"{at}\",\"payload\":[");
    assert_eq!(
        frame(9, &pretty),
        format!("id: x\nevent: msg\ndata: {start}\ndata:  1,\ndata:  2,\ndata: 3\ndata: \ndata: ],\"index\":9}}\n\n")
    );
    let mut out = Vec::new();
    FRAMES.keep_alive(&mut out);
    FRAMES.gap(4, &mut out);
    FRAMES.begin("e_00000000000000000070", &mut out);
    FRAMES.failure("start event id e_x\r\nid: y not found", &mut out);
    FRAMES.end_with_retry(1234, &mut out);
    assert_eq!(
        String::from_utf8(out).unwrap(),
        ": ping\n\n: events are missing, the first that is kept has index 4\n\nid: e_00000000000000000070\n\nevent: error\ndata: start event id e_x\ndata: id: y not found\n\nretry: 1234\n\n"
    );
}

const VALID: [&str; 4] = [
    "{\"subject\":\"a.b\",\"payload\":{\"n\":[1,-2.5e3,true,null,\"\\u00e9\\n\"]},\"key\":\"k\",\"trace_id\":\"t\"}",
    " {\"id\":\"mine\",\"created_at\":\"2024-03-15T10:30:45.5+01:00\",\"subject\":\"a.b\",\"response_subject\":\"_bus_.r\"}",
    "[{\"subject\":\"a.b\",\"payload\":[\r\n]},{\"subject\":\"a.c\",\"payload\":\"}{\",\"key\":\"\\\"\"}]",
    "{\"subject\":\"_bus_.x\",\"payload\":\"\u{1f980}\"}",
];

/// Bytes that mean something in JSON or in a stream of events.
const TOKENS: [&[u8]; 18] = [
    b"{", b"}", b"[", b"]", b"\"", b",", b":", b"\\", b"\n", b"\r", b"\0", b"\xff", b"\\u", b"e9", b"-", b"subject",
    b"payload", b"null",
];

/// JSON text with blanks and line breaks between its tokens.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("-0.0e-17".to_owned()),
        any::<i64>().prop_map(|number| number.to_string()),
        ".{0,12}".prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just("\"\\ud83d\\ude00\\u0001\"".to_owned()),
    ];
    let blank = "[ \t\r\n]{0,3}";
    leaf.prop_recursive(4, 24, 4, move |inner| {
        let item = (blank, inner, blank).prop_map(|(before, json, behind)| format!("{before}{json}{behind}"));
        prop_oneof![
            proptest::collection::vec(item.clone(), 1..4).prop_map(|items| format!("[{}]", items.join(","))),
            proptest::collection::vec((".{0,5}", item), 1..4).prop_map(|pairs| {
                let pair = |(name, json): (String, String)| format!("{}:{json}", serde_json::to_string(&name).unwrap());
                format!("{{{}}}", pairs.into_iter().map(pair).collect::<Vec<_>>().join(","))
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        tokens in proptest::collection::vec(proptest::sample::select(&TOKENS[..]), 0..40),
    ) {
        drop(parse(&body));
        drop(parse(tokens.concat()));
    }

    #[test]
    fn no_damage_to_a_good_body_makes_it_panic_or_lets_a_line_break_out(
        valid in proptest::sample::select(&VALID[..]),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), 0_usize..3, proptest::sample::select(&TOKENS[..])), 1..4),
    ) {
        let mut body = valid.as_bytes().to_vec();
        for (at, cut, token) in edits {
            let at = at.index(body.len() + 1);
            let end = (at + cut).min(body.len());
            body.splice(at..end, token.iter().copied());
        }
        if let Ok(Parsed::Publish(_)) = parse(&body) {
            for event in stored(&body).2 {
                let value: serde_json::Value = serde_json::from_str(&event).unwrap();
                for field in ["id", "subject", "response_subject", "created_at"] {
                    let text = value.get(field).and_then(|text| text.as_str()).unwrap_or_default();
                    prop_assert!(!text.contains(char::is_control), "{field}: {text:?}");
                }
            }
        }
    }

    #[test]
    fn an_accepted_payload_comes_out_byte_for_byte_and_its_frame_reads_back(
        payload in any_json(), key in ".{0,20}", trace in ".{0,20}", index in 1_i64..i64::MAX,
    ) {
        let text = |text: &str| serde_json::to_string(text).unwrap();
        let body = format!("{{\"subject\":\"a.b\",\"key\":{},\"payload\": {payload}\n,\"trace_id\":{}}}", text(&key), text(&trace));
        let Parsed::Publish(publish) = parse(&body).unwrap() else { panic!("an inbox message") };
        // Kind, flags and length; then the namespace with its length and the number of events.
        let record = &publish.frame[6 + 1 + publish.namespace.len() + 4..];
        let (event, used) = Event::decode(record).unwrap();
        prop_assert_eq!(used, record.len());
        prop_assert_eq!(event.payload, Some(payload.as_bytes()));
        prop_assert_eq!((event.key, event.trace_id), (key.as_str(), trace.as_str()));

        let frame = frame(index, &event);
        let frame = lines(&frame);
        prop_assert!(frame[0].starts_with("id: e_") && frame[1] == "event: msg", "{:?}", frame);
        prop_assert_eq!(&frame[frame.len() - 2..], &["", ""]);
        let data: Option<Vec<&str>> = frame[2..frame.len() - 2].iter().map(|line| line.strip_prefix("data: ")).collect();
        let whole = json(index, &event);
        prop_assert_eq!(data, Some(lines(&whole)), "{:?}", frame);
    }
}
