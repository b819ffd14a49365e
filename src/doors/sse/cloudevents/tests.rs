//! CloudEvents in, as each of the three modes writes them, and out again.

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use proptest::prelude::*;
use rollbook_core::entry::{Frame, frames};
use rollbook_core::event::Event;
use rollbook_core::event::headers::HeaderList;
use rollbook_core::time::Timestamp;
use serde_json::{Value, json};

use super::{Mode, encoder, write};
use crate::bus::read::event_json;
use crate::bus::write::draft::Parsed;
use crate::doors::sse::codec::{CommonWait, Context};
use crate::doors::sse::headers::RequestHeaders;
use crate::doors::sse::http_refusal::HttpRefusal;

const NOW: Timestamp = Timestamp { seconds: 1_710_498_645, nanos: 0 };

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let header = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap())
    };
    list.iter().map(header).collect()
}

fn parse(list: &[(&str, &str)], body: &[u8], subject: Option<&str>) -> Result<Option<Parsed>, HttpRefusal> {
    let request = headers(list);
    let common = RequestHeaders::of(&request, true, 1 << 20)?;
    let context = Context {
        now: NOW,
        enabled: &|name| name == "app" || name == "com",
        common: &common,
        wait: CommonWait::default(),
    };
    Ok(Mode::of(&request)?.expect("a CloudEvent").parse(body, &request, subject, &context)?)
}

/// The stored events in the two formats of a stream: plain, and as CloudEvents.
fn delivered(parsed: Result<Option<Parsed>, HttpRefusal>) -> Vec<(Value, Value)> {
    let Some(Parsed::Publish(publish)) = parsed.unwrap() else { panic!("nothing is stored") };
    let Some(Frame::Publish(frame)) = frames(&publish.frame, 1).next() else { panic!("no publish frame") };
    let (mut rest, mut events) = (frame.records, Vec::new());
    for index in 1..=i64::from(frame.events) {
        let (event, used) = Event::decode(rest).unwrap();
        let (mut plain, mut cloud) = (Vec::new(), Vec::new());
        event_json::write(index, &event, &mut plain);
        write::write(index, &event, &mut cloud);
        events.push((serde_json::from_slice(&plain).unwrap(), serde_json::from_slice(&cloud).unwrap()));
        rest = &rest[used..];
    }
    events
}

fn structured(event: &Value) -> (Value, Value) {
    delivered(parse(
        &[("content-type", "application/cloudevents+json; charset=utf-8")],
        event.to_string().as_bytes(),
        None,
    ))
    .remove(0)
}

fn refusal(list: &[(&str, &str)], body: &[u8]) -> (u16, String) {
    let refused = parse(list, body, None).unwrap_err();
    (refused.status.as_u16(), refused.text.into_owned())
}

#[test]
fn a_request_is_a_cloud_event_by_its_content_type_or_its_version() {
    let mode = |list| Mode::of(&headers(list)).map_err(|refused| refused.status.as_u16());
    assert_eq!(mode(&[("content-type", "Application/CloudEvents+JSON ; charset=UTF-8")]), Ok(Some(Mode::Structured)));
    assert_eq!(mode(&[("content-type", "application/cloudevents-batch+json")]), Ok(Some(Mode::Batched)));
    assert_eq!(mode(&[("content-type", "text/plain"), ("ce-specversion", "1.0")]), Ok(Some(Mode::Binary)));
    assert_eq!(mode(&[("content-type", "application/json"), ("ce-id", "1")]), Ok(None));
    assert_eq!(mode(&[]), Ok(None));
    assert_eq!(mode(&[("content-type", "application/cloudevents+avro")]), Err(415));
}

#[test]
fn a_stream_is_one_of_cloud_events_when_it_is_asked_for() {
    let asked = |accept: &[&str]| {
        let list: Vec<_> = accept.iter().map(|value| ("accept", *value)).collect();
        let mut map = HeaderMap::new();
        headers(&list).into_iter().for_each(|(name, value)| map.append(name, value));
        encoder(&map).is_some()
    };
    assert!(asked(&["application/cloudevents+json"]));
    assert!(asked(&["text/event-stream, Application/Cloudevents+json;q=0.5"]));
    for other in [&[][..], &["text/event-stream"], &["*/*"], &["application/cloudevents+json;q=0"]] {
        assert!(!asked(other), "{other:?}");
    }
}

#[test]
fn attributes_of_structured_mode_go_in_and_come_out_as_they_were() {
    let event = json!({
        "specversion": "1.0", "id": "A234-1234-1234", "source": "https://example.com/a?b=c", "type": "com.example.made",
        "subject": "123 é", "time": "2018-04-05T17:31:00Z", "datacontenttype": "application/json",
        "dataschema": "https://example.com/schema", "tenant": "a\"b", "flag": true, "count": -7, "digits": "7",
        "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "data": {"n": [1, null]},
    });
    let (plain, cloud) = structured(&event);
    assert_eq!(cloud, event);
    assert_eq!((&plain["id"], &plain["subject"]), (&json!("A234-1234-1234"), &json!("com.example.made")));
    assert_eq!((&plain["created_at"], &plain["payload"]), (&json!("2018-04-05T17:31:00Z"), &json!({"n": [1, null]})));
    assert_eq!(plain["headers"]["ce-source"], "https://example.com/a?b=c");
    assert_eq!(plain["headers"]["ce-json-literal"], json!(["flag", "count"]));
    assert_eq!((plain["headers"].get("ce-type"), plain["headers"].get("ce-id")), (None, None));
}

#[test]
fn the_subject_is_that_of_the_request_or_of_the_event_or_the_type() {
    let event = |more: Value| {
        let mut event = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "com.example.made" });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    let list = [("content-type", "application/cloudevents+json")];
    let with = |event: &Value, subject| delivered(parse(&list, event.to_string().as_bytes(), subject)).remove(0);
    let own = event(json!({ "rollbooksubject": "app.own" }));
    for (event, subject, wanted) in [
        (&event(json!({})), None, "com.example.made"),
        (&event(json!({})), Some("app.said"), "app.said"),
        (&own, None, "app.own"),
        (&own, Some("app.said"), "app.said"),
    ] {
        let (plain, cloud) = with(event, subject);
        assert_eq!((&plain["subject"], &cloud["type"]), (&json!(wanted), &json!("com.example.made")));
        let extension = if wanted == "com.example.made" { Value::Null } else { json!(wanted) };
        assert_eq!(cloud.get("rollbooksubject").cloned().unwrap_or_default(), extension);
        assert_eq!(with(&cloud, None), (plain, cloud.clone()), "what came out can go in again");
    }
}

#[test]
fn an_id_that_no_event_can_have_is_kept_and_is_the_key() {
    let event = json!({ "specversion": "1.0", "id": "urn:a/1 é", "source": "/s", "type": "com.x" });
    let (plain, cloud) = structured(&event);
    assert_eq!((&plain["key"], &plain["headers"]["ce-id"]), (&json!("urn:a/1 é"), &json!("urn:a/1 é")));
    assert!(plain["id"].as_str().unwrap().starts_with("e_"), "{plain}");
    assert_eq!(cloud["id"], "urn:a/1 é");
}

#[test]
fn data_is_json_or_text_or_bytes() {
    let event = |more: Value| {
        let mut event =
            json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "com.x", "time": "2020-01-01T00:00:00Z" });
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        event
    };
    for more in [
        json!({ "data": null }),
        json!({ "data": "text", "datacontenttype": "text/plain" }),
        json!({ "data_base64": "AAH/", "datacontenttype": "image/png" }),
        json!({ "data_base64": "" }),
        json!({}),
    ] {
        assert_eq!(structured(&event(more.clone())).1, event(more));
    }
    let binary = |kind: Option<&str>, body: &[u8]| {
        let mut list = vec![("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "com.x")];
        list.extend(kind.map(|kind| ("content-type", kind)));
        let (plain, cloud) = delivered(parse(&list, body, None)).remove(0);
        assert_eq!(cloud.get("datacontenttype"), kind.map(Value::from).as_ref());
        (plain.get("payload").cloned(), cloud.get("data").cloned(), cloud.get("data_base64").cloned())
    };
    let bytes = json!({ "$base64": "AP8=" });
    assert_eq!(binary(Some("application/json"), b"{\"n\": 1}"), (Some(json!({"n": 1})), Some(json!({"n": 1})), None));
    assert_eq!(binary(Some("application/vnd.x+json"), b"[1]"), (Some(json!([1])), Some(json!([1])), None));
    let text = json!("a\nb é");
    assert_eq!(binary(Some("text/plain; charset=UTF-8"), "a\nb é".as_bytes()), (Some(text.clone()), Some(text), None));
    assert_eq!(binary(Some("text/plain; charset=latin1"), b"\0\xff"), (Some(bytes.clone()), None, Some(json!("AP8="))));
    assert_eq!(binary(Some("application/octet-stream"), b"\0\xff"), (Some(bytes.clone()), None, Some(json!("AP8="))));
    assert_eq!(binary(None, b"\0\xff"), (Some(bytes), None, Some(json!("AP8="))));
    assert_eq!(binary(None, b"17"), (Some(json!(17)), Some(json!(17)), None));
    assert_eq!(binary(Some("application/json"), b""), (None, None, None));
}

#[test]
fn attributes_of_binary_mode_are_decoded_as_http_carries_them() {
    let list = [
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/s"),
        ("ce-type", "com.x"),
        ("ce-euro", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ("ce-quoted", "\"a \\\"b\\\" %41\""),
        ("ce-raw", "é 100%"),
        ("ce-flag", "true"),
        ("bus-header-Region", "eu"),
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("tracestate", "a=b"),
        ("content-type", "application/json"),
    ];
    let (plain, cloud) = delivered(parse(&list, b"1", None)).remove(0);
    assert_eq!(cloud["euro"], "Euro € 😀");
    assert_eq!(cloud["quoted"], "a \"b\" A");
    assert_eq!(cloud["raw"], "é 100%");
    assert_eq!(cloud["flag"], "true", "a header has no types");
    assert_eq!((&cloud["region"], &plain["headers"]["region"]), (&json!("eu"), &json!("eu")));
    assert_eq!(plain["headers"]["tracestate"], "a=b");
    assert_eq!(cloud["traceparent"], plain["headers"]["traceparent"]);
}

#[test]
fn a_batch_is_one_publish_and_an_empty_one_stores_nothing() {
    let list = [("content-type", "application/cloudevents-batch+json")];
    let event = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/s", "type": "com.x", "time": "2020-01-01T00:00:00Z" });
    let both = json!([event("1"), event("2")]);
    let out: Vec<Value> =
        delivered(parse(&list, both.to_string().as_bytes(), None)).into_iter().map(|(_, out)| out).collect();
    assert_eq!(Value::from(out), both);
    assert_eq!(parse(&list, b" [ ] ", None), Ok(None));
    let wrong = json!([event("1"), { "specversion": "1.0" }]).to_string();
    let text = "invalid CloudEvent: id is missing: item 2 of the batch";
    assert_eq!(refusal(&list, wrong.as_bytes()), (400, text.to_owned()));
    for body in ["[", "{}", "[1]", "[] x", ""] {
        assert_eq!(refusal(&list, body.as_bytes()).0, 400, "{body}");
    }
}

#[test]
fn what_is_no_cloud_event_says_why() {
    let list = [("content-type", "application/cloudevents+json")];
    let good = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "com.x" });
    let wrong = |name: &str, value: Value| {
        let mut event = good.clone();
        event[name] = value;
        refusal(&list, event.to_string().as_bytes())
    };
    for (name, value, text) in [
        ("specversion", json!("0.3"), "invalid CloudEvent: specversion: only 1.0 is understood"),
        ("specversion", json!(null), "invalid CloudEvent: specversion is missing"),
        ("id", json!(""), "invalid CloudEvent: id is empty"),
        ("source", json!(""), "invalid CloudEvent: source is missing"),
        ("type", json!(null), "invalid CloudEvent: type is missing"),
        ("type", json!("made"), "invalid subject: missing namespace"),
        ("time", json!("yesterday"), "invalid CloudEvent: time is a time of RFC 3339"),
        ("My-Name", json!("x"), "invalid CloudEvent: names of attributes are lower-case letters and digits"),
        ("list", json!([1]), "invalid CloudEvent: list is no string, boolean or integer"),
        ("real", json!(1.5), "invalid CloudEvent: real is no string, boolean or integer"),
        (
            "x",
            json!("a\nb"),
            "invalid CloudEvent: the value of header ce-x has a line break or another control character",
        ),
        ("data_base64", json!("%"), "invalid CloudEvent: data_base64 is not base64"),
        ("id", json!("/".repeat(1025)), "invalid CloudEvent: id is longer than 1024 bytes"),
    ] {
        assert_eq!(wrong(name, value), (400, text.to_owned()), "{name}");
    }
    for (body, text) in [
        ("[1]", "invalid CloudEvent: it is not a JSON object"),
        ("{\"id\":\"1\",\"id\":\"2\"}", "invalid CloudEvent: id is there twice"),
        ("{\"x\":\"1\",\"x\":\"2\"}", "invalid CloudEvent: x is there twice"),
        ("{\"data\":1,\"data_base64\":\"\"}", "invalid CloudEvent: its data is there twice"),
    ] {
        assert_eq!(refusal(&list, body.as_bytes()), (400, text.to_owned()));
    }
    let binary = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/s"), ("ce-type", "com.x")];
    let json = [&binary[..], &[("content-type", "application/json")]].concat();
    assert!(refusal(&json, b"{").1.starts_with("invalid payload: not valid JSON"));
    let odd = [&binary[..], &[("ce-x", "%ff")]].concat();
    assert_eq!(refusal(&odd, b"").1, "invalid CloudEvent: x is not UTF-8");
    let text = [&binary[..], &[("content-type", "text/plain")]].concat();
    assert_eq!(refusal(&text, "\u{1}".repeat(400_000).as_bytes()).0, 413, "six times as long as JSON");
}

#[test]
fn an_event_that_was_published_otherwise_is_a_cloud_event_too() {
    let mut list = HeaderList::default();
    for (name, value) in [
        ("traceparent", "t"),
        ("Tenant", "a"),
        ("tenant", "b"),
        ("X-Long", "hidden"),
        ("type", "hidden"),
        ("ce-json-literal", "count"),
        ("ce-count", "no number"),
        ("ce-time", "hidden"),
    ] {
        list.push(name, value).unwrap();
    }
    let event = Event {
        subject: "my-app.ü",
        key: "k",
        created_at: NOW,
        headers: list.headers(),
        payload: Some(b"{\"$base64\":\"AP8=\",\"more\":1}"),
        ..Event::default()
    };
    let mut out = Vec::new();
    write::write(7, &event, &mut out);
    let wanted = json!({
        "specversion": "1.0", "id": id(7), "source": "/rollbook/my-app",
        "type": "my-app.ü", "time": "2024-03-15T10:30:45Z", "traceparent": "t", "tenant": "a", "count": "no number",
        "data": { "$base64": "AP8=", "more": 1 },
    });
    assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), wanted);
}

fn id(sequence: u64) -> String {
    rollbook_core::event::EventId::new(NOW, sequence).to_string()
}

proptest! {
    #[test]
    fn any_cloud_event_comes_out_as_it_went_in(
        id in "[^\\pC]{1,40}", source in "[^\\pC]{1,40}", name in "[a-z0-9]{1,8}",
        value in "[^\\pC]{0,40}", count in any::<i32>(), payload in "[^\\pC]{0,20}",
    ) {
        prop_assume!(!super::attributes::is_core(&name) && name != "count" && name != "data");
        let event = json!({
            "specversion": "1.0", "id": id, "source": source, "type": "com.x", "time": "2020-01-01T00:00:00Z",
            "subject": value, name.as_str(): value, "count": count, "data": payload,
        });
        prop_assert_eq!(structured(&event).1, event);
    }

    #[test]
    fn hostile_bytes_are_an_answer(body in "[\\[\\]{}\",:a-z0-9 \\\\]{0,60}", value in proptest::collection::vec(32_u8..=255, 0..20)) {
        let value: Vec<u8> = value.into_iter().filter(|byte| *byte != 127).collect();
        for kind in ["application/cloudevents+json", "application/cloudevents-batch+json", "application/json", "text/x"] {
            let mut request = headers(&[("content-type", kind), ("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "com.x")]);
            request.insert(HeaderName::from_static("ce-source"), HeaderValue::from_bytes(&value).unwrap());
            let common = RequestHeaders::default();
            let context = Context { now: NOW, enabled: &|_| true, common: &common, wait: CommonWait::default() };
            let mode = Mode::of(&request).unwrap().unwrap();
            core::hint::black_box(mode.parse(body.as_bytes(), &request, None, &context).is_ok());
        }
    }
}
