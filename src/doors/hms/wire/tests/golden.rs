//! What the original sends and answers, byte for byte: read as the original reads it, and written as the original writes it.

use aws_lc_rs::digest::{SHA256, digest};
use bytes::{Bytes, BytesMut};
use serde_json::{Value, json};

use super::super::answer::{Answer, encode_error};
use super::super::decoder::Decoder;
use super::super::frame::{BODY_BYTES_MAX, EncodeError, Frame, FrameKind};
use super::super::handshake::{Handshake, HandshakeReply};
use super::super::message::Message;
use super::super::op::Op;
use super::super::payload::{ExitCode, encode_pid, encode_service};
use super::super::request_ids::RequestIds;
use super::super::texts::NOT_SUPPORTED;
use super::receiver::{Event, Receiver};
use super::{hex, unhex};

/// Vectors of HTTP, which is no matter of this folder.
const HTTP: [&str; 5] =
    ["http/connect-client", "http/connect-dock", "http/put-deploy", "http/put-deploy-204", "http/get-tarball-dock"];

fn vectors() -> Vec<Value> {
    let all: Vec<Value> =
        serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doors/hms/vectors/golden.json")))
            .unwrap();
    let (http, protocol): (Vec<_>, Vec<_>) = all.into_iter().partition(|vector| name(vector).starts_with("http/"));
    assert_eq!(http.iter().map(name).collect::<Vec<_>>(), HTTP);
    assert_eq!(protocol.len(), 72);
    protocol
}

fn name(vector: &Value) -> &str {
    vector["name"].as_str().unwrap()
}

/// The events of a vector: none, one, or a list.
fn expected_events(vector: &Value) -> Vec<Value> {
    match &vector["expected_event"] {
        Value::Array(events) => events.clone(),
        event => vec![event.clone()],
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest(&SHA256, bytes).as_ref())
}

/// Bytes against digits, or against their length, start and checksum.
fn assert_bytes(bytes: &[u8], expected: &Value, name: &str) {
    match expected.as_str() {
        Some(digits) => assert_eq!(hex(bytes), digits, "{name}"),
        None => {
            let found = json!({ "len": bytes.len(), "first64": hex(&bytes[..64]), "sha256": sha256(bytes) });
            assert_eq!(&found, expected, "{name}");
        }
    }
}

/// A value against one that may be marked as a long buffer or a long text.
fn assert_value(found: &Value, expected: &Value, name: &str) {
    let hash = &expected["sha256"];
    let found = if expected.get("__buffer_len").is_some() {
        let bytes = unhex(found["__buffer_hex"].as_str().unwrap());
        json!({ "__buffer_len": bytes.len(), "sha256": sha256(&bytes) })
    } else if hash.is_string() {
        let text = found.as_str().unwrap();
        json!({ "__string_len": text.len(), "sha256": sha256(text.as_bytes()) })
    } else {
        found.clone()
    };
    assert_eq!(&found, expected, "{name}");
}

/// The payload of the vectors that are too long to stand in their file.
fn long_payload(name: &str) -> Option<Vec<u8>> {
    let pattern = |count: u32, factor: u32, modulus: u32| {
        (0..count).map(|index| u8::try_from(index * factor % modulus).unwrap()).collect()
    };
    match name {
        "stdout/100000" => Some(pattern(100_000, 1, 251)),
        "stdout/1MiB" => Some(pattern(1_048_576, 7, 253)),
        _ => None,
    }
}

/// The frames that the original sends, written by us from what its caller asked for.
fn written(vector: &Value) -> BytesMut {
    let (name, call) = (name(vector), vector["js_call"].as_str().unwrap());
    let mut out = BytesMut::new();
    let mut ids = RequestIds::default();
    match name {
        "ping/cb" | "ping/nocb" | "nolistener/ping" => {
            Frame::ping(ids.insert(()).unwrap()).encode(&mut out).unwrap();
        }
        "freelist/LIFO" => {
            let requests = messages(vector);
            let [first, second] = [ids.insert(()).unwrap(), ids.insert(()).unwrap()];
            assert_eq!((ids.remove(first), ids.remove(second)), (Some(()), Some(())));
            let third = ids.insert(()).unwrap();
            for (id, message) in [first, second, third].into_iter().zip(requests) {
                message.encode_request(id, &mut out).unwrap();
            }
        }
        _ => {
            let calls: Vec<&str> = call.split("; ").collect();
            let messages = messages(vector);
            assert_eq!(messages.len(), calls.len(), "{name}");
            for (message, call) in messages.iter().zip(calls) {
                if call.contains("cb") {
                    message.encode_request(ids.insert(()).unwrap(), &mut out).unwrap();
                } else {
                    message.encode_message(&mut out).unwrap();
                }
            }
        }
    }
    out
}

/// The messages of a vector, made of what the receiver is told, or of the call where the receiver is told less.
fn messages(vector: &Value) -> Vec<Message> {
    let name = name(vector);
    match name {
        "get/at-id" => vec![Message::new(Op::Get, "a@b")],
        "nolistener/get" => vec![Message::new(Op::Get, "test")],
        "nolistener/start" => vec![Message::new(Op::Start, "test")],
        "id/65535-bytes" => vec![Message::new(Op::Get, "x".repeat(65535))],
        "add/undefined-service" => vec![Message::new(Op::Add, "test")],
        "sync/undefined" => vec![Message::new(Op::Sync, "test")],
        "spawn/undefined" => vec![Message::new(Op::Spawn, "test").with_origin("localhost")],
        _ => expected_events(vector).iter().map(|event| message(event, long_payload(name))).collect(),
    }
}

fn message(event: &Value, long: Option<Vec<u8>>) -> Message {
    let op = Op::ALL.into_iter().find(|op| event["event"] == op.name()).unwrap();
    let args = event["args"].as_array().unwrap();
    let text = |at: usize| args[at].as_str().unwrap();
    match op {
        Op::Handshake => Message::new(op, "").with_payload(serde_json::to_vec(&args[0]).unwrap()),
        Op::List | Op::Ps => Message::new(op, ""),
        Op::Add | Op::Update | Op::Sync => Message::new(op, text(0)).with_payload(encode_service(args[1].as_object())),
        Op::Stdout | Op::Stderr => {
            let payload = long.unwrap_or_else(|| unhex(args[2]["__buffer_hex"].as_str().unwrap()));
            Message::new(op, text(0)).with_origin(text(1)).with_payload(payload)
        }
        Op::Spawn => {
            let pid = args[2].as_u64().map(|pid| u32::try_from(pid).unwrap());
            Message::new(op, text(0)).with_origin(text(1)).with_payload(encode_pid(pid))
        }
        Op::Exit => {
            let code = match &args[2] {
                Value::Number(code) => ExitCode::Number(code.as_i64().unwrap()),
                Value::String(text) => ExitCode::Text(text.clone()),
                _ => ExitCode::Null,
            };
            Message::new(op, text(0)).with_origin(text(1)).with_payload(code.encode())
        }
        _ => Message::new(op, text(0)),
    }
}

fn frames(bytes: &[u8]) -> Vec<Frame> {
    let mut decoder = Decoder::new(BODY_BYTES_MAX);
    decoder.feed(bytes);
    let frames = std::iter::from_fn(|| decoder.next_frame().unwrap()).collect();
    assert_eq!(decoder.buffered(), 0);
    frames
}

/// The operations that wait for an answer, by id: `None` for a ping.
fn asked(bytes: &[u8]) -> Vec<(u16, Option<Op>)> {
    let requests = frames(bytes).into_iter().filter_map(|frame| match frame.kind {
        FrameKind::Ping => Some((frame.id, None)),
        FrameKind::Request => Some((frame.id, Some(Message::parse(&frame.body).unwrap().op))),
        _ => None,
    });
    requests.collect()
}

#[test]
fn what_is_sent_is_written_byte_for_byte() {
    for vector in vectors().iter().filter(|vector| name(vector) != "id/65536-bytes") {
        let out = written(vector);
        assert_eq!(json!(out.len()), vector["sent_len"], "{}", name(vector));
        assert_bytes(&out, &vector["hex_sent"], name(vector));
    }
}

#[test]
fn an_id_of_65536_bytes_is_refused_and_nothing_is_written() {
    let mut out = BytesMut::new();
    assert_eq!(Message::new(Op::Get, "x".repeat(65536)).encode_request(0, &mut out), Err(EncodeError::Id(65536)));
    let with_origin = Message::new(Op::Stdout, "x".repeat(65000)).with_origin("y".repeat(535));
    assert_eq!(with_origin.encode_message(&mut out), Err(EncodeError::Id(65536)));
    assert!(out.is_empty());
    let vector = vectors().into_iter().find(|vector| name(vector) == "id/65536-bytes").unwrap();
    assert_eq!((&vector["hex_sent"], &vector["sent_len"]), (&json!(""), &json!(0)));
}

#[test]
fn what_is_sent_is_read_as_the_original_reads_it() {
    for vector in vectors().iter().filter(|vector| name(vector) != "id/65536-bytes") {
        let name = name(vector);
        let bytes = vector["hex_sent"].as_str().map_or_else(|| written(vector).to_vec(), unhex);
        let mut receiver = Receiver::new(BODY_BYTES_MAX);
        receiver.any_handshake = true;
        receiver.receive(&bytes).unwrap();
        let event = |name, args: &[Value], has_callback| Event { name, args: args.to_vec(), has_callback };
        // What the original dies of, and what it drops, because nobody listens.
        let other = match name {
            "add/undefined-service" => Some(event("add", &[json!("test"), Value::Null], true)),
            "sync/undefined" => Some(event("sync", &[json!("test"), Value::Null], true)),
            "spawn/undefined" => Some(event("spawn", &[json!("test"), json!("localhost"), Value::Null], false)),
            "nolistener/get" => Some(event("get", &[json!("test")], true)),
            "nolistener/start" => Some(event("start", &[json!("test")], true)),
            "nolistener/ping" => Some(event("ping", &[], false)),
            _ => None,
        };
        if let Some(other) = other {
            assert!(vector["expected_event"]["receiver_throws"].is_string() || name.starts_with("nolistener"));
            assert_eq!(receiver.events, [other], "{name}");
            continue;
        }
        let expected = expected_events(vector);
        assert_eq!(receiver.events.len(), expected.len(), "{name}");
        for (found, expected) in receiver.events.iter().zip(&expected) {
            assert_eq!(
                (&json!(found.name), json!(found.has_callback)),
                (&expected["event"], expected["has_cb"].clone())
            );
            let args = expected["args"].as_array().unwrap();
            assert_eq!(found.args.len(), args.len(), "{name}");
            found.args.iter().zip(args).for_each(|(found, expected)| assert_value(found, expected, name));
        }
    }
}

#[test]
fn answers_are_written_byte_for_byte() {
    let mut checked = 0;
    for vector in vectors().iter().filter(|vector| vector["callback_reply_hex"].is_string()) {
        let (name, err, val) = (name(vector), &vector["client_callback"]["err"], &vector["client_callback"]["val"]);
        let mut out = BytesMut::new();
        for (id, op) in asked(&written(vector)) {
            match op {
                None => Frame::pong(id).encode(&mut out).unwrap(),
                // Ours sends no body where none is read.
                Some(_) if name == "add/string-reply" => {
                    let body = Bytes::from_static(b"ok");
                    Frame { kind: FrameKind::Response, id, body }.encode(&mut out).unwrap();
                }
                Some(_) if name == "add/error-no-message" || name == "add/error-string" => {
                    encode_error("", id, &mut out).unwrap();
                }
                Some(op) => match err["__error"].as_str() {
                    Some(text) => Answer::Error(text.to_owned()).encode(op, id, &mut out).unwrap(),
                    None => Answer::json(val).encode(op, id, &mut out).unwrap(),
                },
            }
        }
        assert_bytes(&out, &vector["callback_reply_hex"], name);
        checked += 1;
    }
    assert!(checked > 40, "only {checked} vectors have answers");
}

#[test]
fn answers_are_read_as_the_original_reads_them() {
    for vector in vectors().iter().filter(|vector| vector["client_callback"].is_object()) {
        let (name, err, val) = (name(vector), &vector["client_callback"]["err"], &vector["client_callback"]["val"]);
        let asked = asked(&written(vector));
        let frames = frames(&unhex(vector["callback_reply_hex"].as_str().unwrap()));
        let last = frames.last().unwrap();
        // Of requests with one id the last one is answered last.
        let op = asked.iter().rfind(|(id, _)| *id == last.id).unwrap().1;
        match Answer::parse(op, last.kind, &last.body).unwrap().unwrap() {
            Answer::Error(text) => assert_eq!(err, &json!({ "__error": text }), "{name}"),
            Answer::Json(result) => {
                assert!(err.is_null() && op.unwrap().is_answered_with_json(), "{name}");
                assert_eq!(&serde_json::from_str::<Value>(result.get()).unwrap(), val, "{name}");
            }
            Answer::Done => {
                assert!(err.is_null(), "{name}");
                assert_eq!(
                    val,
                    &json!({ "__buffer_hex": if name == "add/string-reply" { "6f6b" } else { "" } }),
                    "{name}"
                );
            }
        }
    }
}

#[test]
fn what_nobody_listens_to_is_answered_as_not_supported() {
    for vector in vectors().iter().filter(|vector| ["nolistener/get", "nolistener/start"].contains(&name(vector))) {
        let mut out = BytesMut::new();
        encode_error(NOT_SUPPORTED, 0, &mut out).unwrap();
        assert_bytes(&out, &vector["callback_reply_hex"], name(vector));
    }
}

#[test]
fn handshakes_of_stock_peers_are_read_and_written_as_types() {
    let payload = |vector_name: &str, key: &str| {
        let vector = vectors().into_iter().find(|vector| name(vector) == vector_name).unwrap();
        frames(&unhex(vector[key].as_str().unwrap()))[0].body.clone()
    };
    let client = Handshake::Client { version: "0.4.4".into(), route: None };
    let dock = Handshake::Dock {
        id: "dock1".into(),
        version: "0.4.4".into(),
        hostname: None,
        tags: vec!["web".into()],
        default: false,
    };
    for (name, handshake) in [("handshake/client", client), ("handshake/dock", dock)] {
        let message = Message::parse(&payload(name, "hex_sent")).unwrap();
        assert_eq!((Handshake::parse(&message.payload), handshake.encode()), (Ok(handshake), message.payload));
        let reply = payload(name, "callback_reply_hex");
        assert_eq!(HandshakeReply::parse(&reply), Ok(HandshakeReply::terminal("0.4.4")));
        assert_eq!(HandshakeReply::terminal("0.4.4").encode(), reply);
    }
    for name in ["handshake/empty", "handshake/overrides-protocol"] {
        let message = Message::parse(&payload(name, "hex_sent")).unwrap();
        assert_eq!(Handshake::parse(&message.payload).unwrap_err().to_string(), "Invalid handshake");
    }
}
