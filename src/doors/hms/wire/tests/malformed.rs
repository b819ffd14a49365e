//! What the original was sent wrong: the same events and replies where the original survives, ours where it dies.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::super::answer::encode_error;
use super::super::frame::BODY_BYTES_MAX;
use super::super::message::Message;
use super::super::op::Op;
use super::super::texts::OTHER_PROTOCOL;
use super::receiver::Receiver;
use super::{hex, unhex};

/// What is done where the original dies, and where it takes a handshake of nobody.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Ours {
    /// The request is answered with an error.
    Error(&'static str),
    /// The message is dropped.
    Dropped,
    /// The connection is closed.
    Closed,
    /// The empty definition is `null`, as if the client had sent that.
    NullService,
    /// The request of the receiver fails with this text.
    Fails(&'static str),
}

const OURS: [(&str, Ours); 16] = [
    ("empty message, type 0", Ours::Dropped),
    ("empty message, type 1", Ours::Error("Message is too short")),
    ("1-byte body [06], type 1", Ours::Error("Message is too short")),
    ("2-byte body, type 1", Ours::Error("Message is too short")),
    ("idLen past end, op add", Ours::NullService),
    ("handshake bad JSON", Ours::Error("Invalid handshake")),
    ("handshake empty payload", Ours::Error("Invalid handshake")),
    ("handshake payload null", Ours::Error(OTHER_PROTOCOL)),
    ("handshake payload 42", Ours::Error(OTHER_PROTOCOL)),
    ("add bad JSON", Ours::Error("Service is not valid JSON")),
    ("spawn bad JSON type 0", Ours::Dropped),
    ("len 0x3fffffff", Ours::Closed),
    ("len 0x40000001", Ours::Closed),
    ("len 0xffffffff", Ours::Closed),
    ("pending get: reply empty body", Ours::Fails("the answer to get is not valid JSON")),
    ("pending get: reply bad JSON", Ours::Fails("the answer to get is not valid JSON")),
];

fn vectors() -> Vec<Value> {
    serde_json::from_str(include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/doors/hms/vectors/malformed.json")))
        .unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{key} of {value}"))
}

/// Buffers stand as `<hex>(length)` in this file.
fn expected_events(result: &Value) -> Vec<Vec<Value>> {
    let buffer = |value: &Value| match value.as_str().and_then(|text| text.strip_prefix('<')?.split_once('>')) {
        Some((digits, _)) => json!({ "__buffer_hex": digits }),
        None => value.clone(),
    };
    let events = result["events"].as_array().unwrap();
    events.iter().map(|event| event.as_array().unwrap().iter().map(buffer).collect()).collect()
}

/// Runs a vector: the receiver, what the receiver sent before and in answer, and whether the connection was closed.
fn run(vector: &Value) -> (Vec<Vec<Value>>, String, bool) {
    let mut receiver = Receiver::new(BODY_BYTES_MAX);
    if text(vector, "name").starts_with("pending get:") {
        let id = receiver.pending.insert(Op::Get).unwrap();
        Message::new(Op::Get, "x").encode_request(id, &mut receiver.reply).unwrap();
    }
    let bytes = unhex(text(vector, "hex"));
    let size = if text(vector, "mode") == "bytes" { 1 } else { bytes.len() };
    let closed = bytes.chunks(size).any(|piece| receiver.receive(piece).is_err());
    let event = |event: super::receiver::Event| [vec![json!(event.name)], event.args].concat();
    (receiver.events.into_iter().map(event).collect(), hex(&receiver.reply), closed)
}

fn check(vector: &Value, ours: Option<Ours>) {
    let (name, result) = (text(vector, "name"), &vector["result"]);
    let (events, reply, closed) = run(vector);
    let before = if name.starts_with("pending get:") { "0100000400000010010078" } else { "" };
    let error = |text: &str| {
        let mut out = BytesMut::new();
        encode_error(text, 5, &mut out).unwrap();
        hex(&out)
    };
    let expected = match ours {
        None => (expected_events(result), text(result, "reply").to_owned(), false),
        Some(Ours::Error(text)) => (Vec::new(), error(text), false),
        Some(Ours::Dropped) => (Vec::new(), String::new(), false),
        Some(Ours::Closed) => (Vec::new(), String::new(), true),
        Some(Ours::NullService) => (vec![vec![json!("add"), json!("ab"), Value::Null]], "02050000000000".into(), false),
        Some(Ours::Fails(text)) => (vec![vec![json!("getcb"), json!(text), Value::Null]], before.to_owned(), false),
    };
    assert_eq!((events, reply, closed), expected, "{name}");
}

#[test]
fn every_malformed_vector_has_its_outcome_and_the_receiver_survives() {
    let vectors = vectors();
    assert_eq!(vectors.len(), 38);
    let mut used = Vec::new();
    for vector in &vectors {
        let ours = OURS.iter().find(|(name, _)| *name == text(vector, "name"));
        assert!(ours.is_some() || vector["result"]["throws"].is_null(), "{vector}: the original dies, and rollbook?");
        check(vector, ours.map(|(_, ours)| *ours));
        used.extend(ours.map(|(name, _)| *name));
    }
    assert_eq!(used, OURS.map(|(name, _)| name), "a vector is missing");
}

#[test]
fn a_receiver_that_was_sent_rubbish_takes_the_next_frame() {
    for vector in vectors() {
        let mut receiver = Receiver::new(BODY_BYTES_MAX);
        let complete = receiver.receive(&unhex(text(&vector, "hex"))).is_ok() && receiver.decoder.buffered() == 0;
        let partial = ["partial header", "partial body", "len 0x3fffffff", "len 0x40000001", "len 0xffffffff"];
        assert_eq!(complete, !partial.contains(&text(&vector, "name")), "{vector}");
        if complete {
            receiver.reply.clear();
            receiver.receive(&unhex("04070000000000")).unwrap();
            assert_eq!(hex(&receiver.reply), "02070000000000", "{vector}");
        }
    }
}
