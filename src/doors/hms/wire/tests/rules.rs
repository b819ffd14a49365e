//! Rules that no vector shows: what is refused, and what no stock peer may be sent.

use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::super::answer::{Answer, encode_error};
use super::super::decoder::Decoder;
use super::super::frame::{Frame, FrameKind};
use super::super::handshake::{
    DOCK_ID_BYTES_MAX, HANDSHAKE_BYTES_MAX, Handshake, HandshakeError, HandshakeReply, TAGS_MAX,
};
use super::super::message::Message;
use super::super::op::Op;
use super::super::payload::{
    ExitCode, PayloadError, SCALAR_BYTES_MAX, SERVICE_BYTES_MAX, encode_pid, encode_service, parse_pid, parse_service,
};

fn only_frame(bytes: &[u8]) -> Frame {
    let mut decoder = Decoder::new(1024);
    decoder.feed(bytes);
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!(decoder.next_frame(), Ok(None), "a request is answered once");
    frame
}

#[test]
fn every_answer_that_must_be_json_is_json_and_every_other_one_is_empty() {
    for op in Op::ALL {
        for answer in [Answer::Done, Answer::json(&json!({ "type": "terminal" })), Answer::json("text")] {
            let mut out = BytesMut::new();
            answer.encode(op, 7, &mut out).unwrap();
            if op.is_event() {
                assert!(out.is_empty(), "{} is answered", op.name());
                continue;
            }
            let frame = only_frame(&out);
            assert_eq!((frame.kind, frame.id), (FrameKind::Response, 7));
            assert_eq!(serde_json::from_slice::<Value>(&frame.body).is_ok(), op.is_answered_with_json());
            assert_eq!(frame.body.is_empty(), !op.is_answered_with_json());
        }
    }
}

#[test]
fn a_missing_result_is_an_empty_one_of_the_type_that_stock_clients_read() {
    for (op, body) in [(Op::Handshake, "{}"), (Op::List, "[]"), (Op::Ps, "[]"), (Op::Get, "null"), (Op::Start, "")] {
        let mut out = BytesMut::new();
        Answer::Done.encode(op, 0, &mut out).unwrap();
        assert_eq!(only_frame(&out).body, body);
    }
}

#[test]
fn an_error_is_never_empty_and_events_have_none() {
    for (text, body) in [("", "unknown error"), ("Service not found", "Service not found")] {
        let mut out = BytesMut::new();
        Answer::Error(text.into()).encode(Op::Get, 9, &mut out).unwrap();
        let frame = only_frame(&out);
        assert_eq!((frame.kind, frame.id, &frame.body[..]), (FrameKind::Error, 9, body.as_bytes()));
        let mut same = BytesMut::new();
        encode_error(text, 9, &mut same).unwrap();
        assert_eq!(same, out);
        Answer::Error(text.into()).encode(Op::Spawn, 9, &mut out).unwrap();
        assert_eq!(same, out);
    }
}

#[test]
fn what_is_no_answer_is_told_from_answers() {
    let body = Bytes::from_static(b"[1]");
    for kind in [FrameKind::Message, FrameKind::Request, FrameKind::Ping, FrameKind::Unknown(9)] {
        assert!(Answer::parse(Some(Op::List), kind, &body).unwrap().is_none());
    }
    assert!(matches!(Answer::parse(None, FrameKind::Response, &body), Ok(Some(Answer::Done))));
    assert!(matches!(Answer::parse(Some(Op::Stop), FrameKind::Response, &body), Ok(Some(Answer::Done))));
    let bad = Bytes::from_static(b"\xff\xfe");
    let Ok(Some(Answer::Error(text))) = Answer::parse(Some(Op::Ps), FrameKind::Error, &bad) else { panic!("no error") };
    assert_eq!(text, "\u{fffd}\u{fffd}");
    let deep = Bytes::from("[".repeat(1000) + &"]".repeat(1000));
    assert!(Answer::parse(Some(Op::Ps), FrameKind::Response, &deep).is_err());
}

#[test]
fn another_protocol_is_told_before_anything_else_that_is_wrong() {
    let other = Err(HandshakeError::OtherProtocol);
    for payload in [
        "null",
        "42",
        "[]",
        "\"text\"",
        "{}",
        r#"{"protocol":2,"type":"client"}"#,
        r#"{"protocol":"1","type":"client"}"#,
        r#"{"protocol":true,"type":"client"}"#,
        r#"{"type":"neither"}"#,
    ] {
        assert_eq!(Handshake::parse(payload.as_bytes()), other, "{payload}");
    }
    assert_eq!(HandshakeError::OtherProtocol.to_string(), "Server and client do not speak the same protocol");
}

#[test]
fn a_handshake_of_neither_a_client_nor_a_dock_is_invalid() {
    let tags = vec!["x"; TAGS_MAX + 1];
    let long = "x".repeat(DOCK_ID_BYTES_MAX + 1);
    let too_long = "x".repeat(HANDSHAKE_BYTES_MAX);
    let mut invalid = vec![String::new(), "{".to_owned()];
    for options in [
        json!({}),
        json!({ "type": "terminal" }),
        json!({ "type": 1 }),
        json!({ "type": "dock" }),
        json!({ "type": "dock", "id": "" }),
        json!({ "type": "dock", "id": null }),
        json!({ "type": "dock", "id": "a\nb" }),
        json!({ "type": "dock", "id": long }),
        json!({ "type": "dock", "id": "a", "tags": "web" }),
        json!({ "type": "dock", "id": "a", "tags": [["web"]] }),
        json!({ "type": "dock", "id": "a", "tags": tags }),
        json!({ "type": "client", "version": too_long }),
    ] {
        let mut options = options;
        options["protocol"] = json!(1);
        invalid.push(options.to_string());
    }
    for payload in invalid {
        assert_eq!(Handshake::parse(payload.as_bytes()), Err(HandshakeError::Invalid), "{payload:.80}");
    }
    assert_eq!(HandshakeError::Invalid.to_string(), "Invalid handshake");
}

#[test]
fn a_handshake_says_only_what_it_must() {
    let parse = |options: Value| Handshake::parse(options.to_string().as_bytes()).unwrap();
    let client = Handshake::Client { version: String::new(), route: None };
    assert_eq!(parse(json!({ "type": "client", "protocol": 1.0, "route": "", "more": {} })), client);
    let routed = parse(json!({ "type": "client", "version": "3.3.0", "route": "web", "protocol": 1 }));
    assert_eq!(routed, Handshake::Client { version: "3.3.0".into(), route: Some("web".into()) });
    assert_eq!(routed.encode(), r#"{"type":"client","version":"3.3.0","route":"web","protocol":1}"#);
    for (default, expected) in [(json!(1), true), (json!("yes"), true), (json!(""), false), (json!(null), false)] {
        // The stock command line makes numbers of `--id 7 --tag 8`.
        let options = json!({ "type": "dock", "id": 7, "tags": ["web", 8], "default": default, "protocol": 1 });
        let tags = vec!["web".into(), "8".into()];
        let dock = Handshake::Dock { id: "7".into(), version: String::new(), hostname: None, tags, default: expected };
        assert_eq!(parse(options), dock);
    }
    let hostname =
        json!({ "type": "dock", "version": "3.3.0", "hostname": "h", "id": "a", "tags": null, "protocol": 1 });
    let text = r#"{"type":"dock","version":"3.3.0","hostname":"h","id":"a","tags":[],"default":false,"protocol":1}"#;
    assert_eq!(parse(hostname).encode(), text);
}

#[test]
fn an_answer_to_a_handshake_must_say_who_answers() {
    for body in ["", "null", "[]", "{}", r#"{"type":""}"#, r#"{"type":1}"#, "text"] {
        let error = HandshakeReply::parse(body.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), "Server sent invalid handshake", "{body}");
    }
    let dock = HandshakeReply::parse(br#"{"type":"dock","version":"0.4.4","id":"dock1","tags":[]}"#);
    assert_eq!(dock, Ok(HandshakeReply { kind: "dock".into(), version: "0.4.4".into() }));
}

#[test]
fn a_definition_is_an_object_or_null() {
    for op in [Op::Add, Op::Sync, Op::Update] {
        assert_eq!(parse_service(op, b"null"), Ok(None));
        assert_eq!(parse_service(op, b"{}"), Ok(Some(serde_json::Map::new())));
        for payload in ["42", "[]", "\"x\"", "true"] {
            assert_eq!(parse_service(op, payload.as_bytes()), Err(PayloadError::ServiceType), "{payload}");
        }
        for payload in ["{", "nope", "{}{}"] {
            assert_eq!(parse_service(op, payload.as_bytes()), Err(PayloadError::ServiceJson), "{payload}");
        }
    }
    assert_eq!((parse_service(Op::Add, b""), parse_service(Op::Sync, b"")), (Ok(None), Ok(None)));
    assert_eq!(parse_service(Op::Update, b""), Err(PayloadError::ServiceJson));
    let text = r#"{"start":"node .","zeta":[1,2.5,null],"alpha":{"A":"1"}}"#;
    let service = parse_service(Op::Add, text.as_bytes()).unwrap();
    assert_eq!(encode_service(service.as_ref()), text, "the order and the unknown fields are kept");
    assert_eq!(encode_service(None), "null");
    let sized = |bytes: usize| format!(r#"{{"start":"{}"}}"#, "x".repeat(bytes - r#"{"start":""}"#.len()));
    assert!(parse_service(Op::Add, sized(SERVICE_BYTES_MAX).as_bytes()).is_ok());
    let large = parse_service(Op::Add, sized(SERVICE_BYTES_MAX + 1).as_bytes());
    assert_eq!(large, Err(PayloadError::ServiceTooLarge));
    let deep = format!(r#"{{"a":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    assert_eq!(parse_service(Op::Add, deep.as_bytes()), Err(PayloadError::ServiceJson));
}

#[test]
fn pids_and_exit_codes_that_are_none_are_null_on_the_wire_and_never_empty() {
    assert_eq!((encode_pid(None), encode_pid(Some(900))), (Bytes::from("null"), Bytes::from("900")));
    assert_eq!(
        (parse_pid(b""), parse_pid(b"null"), parse_pid(b" 4294967295 ")),
        (Ok(None), Ok(None), Ok(Some(u32::MAX)))
    );
    for payload in ["-1", "1.5", "4294967296", "\"900\"", "[]", "x"] {
        assert_eq!(parse_pid(payload.as_bytes()), Err(PayloadError::Pid), "{payload}");
    }
    assert_eq!((ExitCode::parse(b""), ExitCode::Null.encode()), (Ok(ExitCode::Null), Bytes::from("null")));
    assert_eq!(ExitCode::parse(b"-1"), Ok(ExitCode::Number(-1)));
    let long = format!("\"{}\"", "x".repeat(SCALAR_BYTES_MAX));
    for payload in ["1.5", "true", "{}", "x", &long] {
        assert_eq!(ExitCode::parse(payload.as_bytes()), Err(PayloadError::ExitCode), "{payload:.20}");
    }
}

#[test]
fn an_id_ends_at_its_first_at_sign_and_has_an_origin_of_its_own() {
    let parse = |body: &'static [u8]| Message::parse(&Bytes::from_static(body)).unwrap();
    for (body, id, origin) in [
        (&b"\x06\x03\0x@y"[..], "x", Some("y")),
        (b"\x06\x02\0@y", "", Some("y")),
        (b"\x06\x02\0x@", "x", Some("")),
        (b"\x06\x05\0x@y@z", "x", Some("y@z")),
        (b"\x06\x01\0x@y", "x", None),
    ] {
        let message = parse(body);
        assert_eq!((message.id.as_str(), message.origin.as_deref()), (id, origin));
    }
    assert_eq!((parse(b"\x0c\x01\0xdata").origin(), parse(b"\x0c\x03\0x@ydata").origin()), ("unknown", "y"));
}

#[test]
fn payloads_and_bodies_share_memory_with_what_came() {
    let mut out = BytesMut::new();
    Message::new(Op::Stdout, "a").with_origin("h").with_payload("data").encode_message(&mut out).unwrap();
    let frame = only_frame(&out);
    let message = Message::parse(&frame.body).unwrap();
    assert_eq!(message.payload.as_ptr(), frame.body[6..].as_ptr());
}
