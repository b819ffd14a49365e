//! What the pure parts of this door do: every state, every refusal, every frame.

use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use rollbook_core::event::Event;
use serde_json::{Value, json};

use super::announcements::ANNOUNCEMENTS;
use super::error::ErrorCode;
use super::outbound::OutboundFrame;
use super::payloads::ClientFrame;
use super::session::{Bounds, Identity, Session, Step};
use super::{close_codes, codec};
use crate::base::fault::FaultKind;
use crate::bus::client::announcement::{AnnouncedUpTo, Announcement, AnnouncementEncoder as _, Log};
use crate::bus::client::call::{Answer, Payload, Responder};
use crate::bus::error::Fault;
use crate::bus::read::stored_event::StoredEvent;

const BOUNDS: Bounds =
    Bounds { in_flight_max: 3, timeout: Duration::from_secs(30), timeout_max: Duration::from_secs(60) };

fn whole(text: &OutboundFrame) -> String {
    format!("{}{}{}", String::from_utf8_lossy(&text.head), String::from_utf8_lossy(&text.payload), text.tail)
}

fn value(text: &OutboundFrame) -> Value {
    let whole = whole(text);
    serde_json::from_str(&whole).unwrap_or_else(|error| panic!("{error}: {whole}"))
}

fn receive(session: &mut Session, frame: &Value) -> Option<Step> {
    session.receive(ByteString::from(frame.to_string()), Instant::now())
}

/// The code that a frame is refused with.
fn refused(step: Option<Step>) -> String {
    match step {
        Some(Step::Send(text)) => value(&text)["code"].as_str().unwrap_or("none").to_owned(),
        other => format!("{other:?}"),
    }
}

fn registered(name: &str) -> Session {
    let mut session = Session::new(BOUNDS);
    assert!(matches!(receive(&mut session, &json!({ "name": name, "version": "1" })), Some(Step::Register(_))));
    session.registered(Identity { name: name.to_owned(), instance: String::new() });
    session
}

fn message(id: &str) -> Value {
    json!({ "type": "message", "id": id, "destination": "users:get", "responder": "cb", "payload": { "n": 1 } })
}

#[test]
fn each_state_takes_its_frames_and_refuses_the_others() {
    let others = [
        message("m"),
        json!({ "type": "response", "id": "m" }),
        json!({ "type": "broadcast" }),
        json!({ "type": "done", "id": "1" }),
    ];
    let mut session = Session::new(BOUNDS);
    for frame in &others {
        assert_eq!(refused(receive(&mut session, frame)), "not_registered", "{frame}");
    }
    assert!(matches!(receive(&mut session, &json!({ "type": "ping" })), Some(Step::Send(_))));
    assert_eq!(receive(&mut session, &json!({ "type": "pong" })), None);
    assert_eq!(receive(&mut session, &json!({ "type": "disconnect" })), Some(Step::Leave), "it may leave at any time");

    let mut session = registered("shop");
    assert_eq!(
        refused(receive(&mut session, &json!({ "type": "register", "name": "a", "version": "1" }))),
        "already_registered"
    );
    assert_eq!(refused(receive(&mut session, &json!({ "name": "a", "version": "1" }))), "bad_message");
    assert!(matches!(receive(&mut session, &others[0]), Some(Step::Call(1, ..))));
    assert!(matches!(receive(&mut session, &others[1]), Some(Step::Answer(..))));
    assert!(matches!(receive(&mut session, &others[2]), Some(Step::Broadcast(None, _))));
    assert_eq!(receive(&mut session, &others[3]), Some(Step::Done(1, true)));

    session.drain();
    assert_eq!(refused(receive(&mut session, &message("n"))), "unavailable");
    assert_eq!(refused(receive(&mut session, &others[2])), "unavailable");
    assert!(matches!(receive(&mut session, &others[1]), Some(Step::Answer(..))), "what it has it may end");
    assert_eq!(receive(&mut session, &json!({ "type": "disconnect" })), None, "once");
    session.close();
    assert!(others.iter().all(|frame| receive(&mut session, frame).is_none()));
    assert!(session.is_closed());
}

#[test]
fn what_comes_while_a_registration_is_on_its_way_waits_up_to_a_bound() {
    let mut session = Session::new(BOUNDS);
    receive(&mut session, &json!({ "name": "users", "version": "1", "methods": ["get"] }));
    assert!(session.is_registering() && !session.is_registered() && !session.is_unregistered());
    assert!(matches!(receive(&mut session, &json!({ "type": "ping" })), Some(Step::Send(_))), "but for a ping");
    (0..64).for_each(|n| assert_eq!(receive(&mut session, &message(&n.to_string())), None));
    assert_eq!(refused(receive(&mut session, &message("65"))), "overloaded");
    let backlog = session.registered(Identity { name: "users".to_owned(), instance: "a".to_owned() });
    assert_eq!(backlog.len(), 64);
    assert!(backlog.front().is_some_and(|first| first.contains("\"id\":\"0\"")), "in order");
}

#[test]
fn what_waits_for_a_registration_is_bounded_in_bytes_too() {
    let mut session = Session::new(BOUNDS);
    receive(&mut session, &json!({ "name": "users", "version": "1", "methods": ["get"] }));
    let large = json!({ "type": "broadcast", "payload": "x".repeat(100 << 10) });
    assert_eq!((receive(&mut session, &large), receive(&mut session, &large)), (None, None));
    assert!((200 << 10..256 << 10).contains(&session.backlog_bytes()), "{}", session.backlog_bytes());
    assert_eq!(refused(receive(&mut session, &large)), "overloaded");
    assert_eq!(receive(&mut session, &message("m")), None, "a small one fits");
    assert_eq!(session.registered(Identity { name: "users".to_owned(), instance: "a".to_owned() }).len(), 3);
    assert_eq!(session.backlog_bytes(), 0);
}

#[test]
fn a_first_frame_that_is_none_ends_the_connection() {
    for (frame, code) in [("x", "bad_json"), ("{\"name\":\"a\"}", "bad_registration"), ("{}", "bad_registration")] {
        let mut session = Session::new(BOUNDS);
        let Some(Step::Close(text, closes, _)) = session.receive(ByteString::from(frame), Instant::now()) else {
            panic!("{frame} ends it");
        };
        assert_eq!((value(&text)["code"].as_str(), closes), (Some(code), close_codes::BAD_REGISTRATION));
    }
}

#[test]
fn ids_are_used_once_for_a_minute_and_not_remembered_for_ever() {
    let (mut session, start) = (registered("shop"), Instant::now());
    let ask =
        |session: &mut Session, id: &str, at: Instant| session.receive(ByteString::from(message(id).to_string()), at);
    assert!(matches!(ask(&mut session, "a", start), Some(Step::Call(1, ..))));
    assert_eq!(refused(ask(&mut session, "a", start)), "duplicate_id");
    let later = start + Duration::from_secs(120);
    assert_eq!(refused(ask(&mut session, "a", later)), "duplicate_id", "as long as it has no end");
    assert!(session.ended(1, Err(Fault::provider_lost()), later).is_some());
    assert!(session.ended(1, Err(Fault::provider_lost()), later).is_none(), "it ends once");
    assert_eq!(refused(ask(&mut session, "a", later + Duration::from_secs(59))), "duplicate_id");
    assert!(matches!(ask(&mut session, "a", later + Duration::from_secs(60)), Some(Step::Call(2, ..))));
    session.ended(2, Err(Fault::provider_lost()), later);
    for n in 0..10_000_u64 {
        assert!(matches!(ask(&mut session, &format!("n{n}"), later), Some(Step::Call(..))));
        session.ended(n + 3, Err(Fault::provider_lost()), later);
    }
    assert!(matches!(ask(&mut session, "a", later), Some(Step::Call(..))), "ten thousand newer ones");
}

#[test]
fn too_many_without_an_end_are_refused_and_times_are_bounded() {
    let mut session = registered("shop");
    for n in 0..3 {
        assert!(matches!(receive(&mut session, &message(&n.to_string())), Some(Step::Call(..))));
    }
    assert_eq!(refused(receive(&mut session, &message("3"))), "overloaded");
    assert_eq!(session.in_flight(), 3);
    session.ended(1, Ok(Answer::default()), Instant::now());
    let mut long = message("3");
    long["timeout_ms"] = json!(600_000);
    let Some(Step::Call(_, pending, timeout)) = receive(&mut session, &long) else { panic!("it goes") };
    assert_eq!((timeout, pending.timeout), (BOUNDS.timeout_max, Some(Duration::from_secs(600))));
    assert_eq!(pending.consumer.as_deref(), Some("shop"), "filled in");
}

#[test]
fn every_end_of_a_message_is_told_as_what_it_is() {
    let ends: [(Result<Answer, Fault>, &str); 10] = [
        (
            Ok(Answer { success: true, body: Payload::json("{\"b\":1,\"a\":2}") }),
            r#"{"type":"response","id":"m","responder":"cb","payload":{"b":1,"a":2}}"#,
        ),
        (
            Ok(Answer { success: true, body: Payload::default() }),
            r#"{"type":"response","id":"m","responder":"cb","payload":null}"#,
        ),
        (
            Ok(Answer { success: false, body: Payload::json("\"no\"") }),
            r#"{"type":"error","id":"m","responder":"cb","code":"service_error","message":"no","retryable":false,"data":"no"}"#,
        ),
        (
            Ok(Answer { success: false, body: Payload::json("{\"code\":\"E\",\"message\":\"x\"}") }),
            r#"{"type":"error","id":"m","responder":"cb","code":"E","message":"x","retryable":false}"#,
        ),
        (
            Err(Fault::new(FaultKind::NoCapability, "")),
            r#"{"type":"unhandled","id":"m","responder":"cb","destination":"users:get","reason":"no_service"}"#,
        ),
        (
            Err(Fault::new(FaultKind::NoAction, "")),
            r#"{"type":"unhandled","id":"m","responder":"cb","destination":"users:get","reason":"no_method"}"#,
        ),
        (
            Err(Fault::new(FaultKind::NoProvider, "")),
            r#"{"type":"unhandled","id":"m","responder":"cb","destination":"users:get","reason":"unreachable"}"#,
        ),
        (
            Err(Fault::overloaded("")),
            r#"{"type":"unhandled","id":"m","responder":"cb","destination":"users:get","reason":"overloaded"}"#,
        ),
        (
            Err(Fault::deadline_exceeded()),
            r#"{"type":"error","id":"m","responder":"cb","code":"timeout","message":"no response within 30000 ms","retryable":false}"#,
        ),
        (
            Err(Fault::provider_lost()),
            r#"{"type":"error","id":"m","responder":"cb","code":"instance_lost","message":"the provider was lost before it answered","retryable":true}"#,
        ),
    ];
    for (outcome, wanted) in ends {
        let mut session = registered("shop");
        receive(&mut session, &message("m"));
        let (_, frame) = session.ended(1, outcome, Instant::now()).expect("it was there");
        assert_eq!(frame.as_ref().map(whole).as_deref(), Some(wanted));
    }
    let mut session = registered("shop");
    receive(&mut session, &json!({ "type": "message", "id": "m", "destination": "users:get" }));
    let (pending, frame) = session.ended(1, Ok(Answer::default()), Instant::now()).expect("it was there");
    assert_eq!((pending.responder, frame), (None, None), "nobody waits");
}

#[test]
fn payloads_and_names_of_any_kind_survive() {
    let payload = r#"{"z":1,"a":[1.0,1e400,"\u0000\ud800"],"big":123456789012345678901234567890}"#;
    let frame = format!(
        r#"{{"type":"message","id":"i\"\n","destination":"users:get:x","responder":"ñ","payload": {payload} }}"#
    );
    let mut session = registered("shop");
    let Some(Step::Call(_, pending, _)) = session.receive(ByteString::from(frame), Instant::now()) else {
        panic!("it goes")
    };
    assert_eq!((&*pending.service, &*pending.method), ("users", "get:x"), "cut at the first colon");
    assert_eq!((pending.id.as_str(), &pending.responder), ("i\"\n", &Responder::Named("ñ".to_owned())));
    assert_eq!(pending.payload, payload.as_bytes());
    let (_, frame) =
        session.ended(1, Ok(Answer { success: true, body: Payload::json(payload) }), Instant::now()).expect("there");
    let frame = whole(&frame.expect("a frame"));
    assert_eq!(frame, format!(r#"{{"type":"response","id":"i\"\n","responder":"ñ","payload":{payload}}}"#));
}

#[test]
fn no_text_makes_the_parser_panic() {
    let seed = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(1, |time| time.as_secs());
    println!("seed {seed}");
    let mut state = seed | 1;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap_or(0) % below
    };
    let good = [
        message("m"),
        json!({ "type": "error", "id": "m", "code": "x", "data": [1] }),
        json!({ "name": "a", "version": "1", "methods": ["x"] }),
    ];
    for _ in 0..20_000 {
        let mut text: Vec<char> = good[random(3)].to_string().chars().collect();
        for _ in 0..=random(4) {
            let at = random(text.len());
            match random(3) {
                0 => drop(text.remove(at)),
                1 => text[at] = ['"', '{', '}', ':', ',', '\\', 'é', '0', '['][random(9)],
                _ => text.insert(at, ['"', '{', '}', ':', ',', '\\', 'é', '0', '['][random(9)]),
            }
            if text.is_empty() {
                break;
            }
        }
        let text: String = text.into_iter().collect();
        drop(codec::parse(&ByteString::from(text), random(2) == 0));
    }
}

fn frame_of(subject: &str, payload: &Value, index: Option<u64>) -> Value {
    let payload = payload.to_string();
    let mut record = Vec::new();
    let event = Event { subject, payload: Some(payload.as_bytes()), ..Event::default() };
    event.encode(&mut record).expect("a record");
    let announcement = match index {
        Some(index) => {
            let item = std::sync::Arc::new(StoredEvent::stored(index, Bytes::from(record)));
            Announcement::stored(item, Log::Roll, AnnouncedUpTo::default())
        }
        None => Announcement::unstored(std::sync::Arc::new(StoredEvent::unstored(Bytes::from(record)))),
    };
    let mut out = Vec::new();
    ANNOUNCEMENTS.announce(&announcement, &mut out);
    serde_json::from_slice(&out).unwrap_or_default()
}

#[test]
fn events_of_the_roll_and_broadcasts_have_their_frames_and_nothing_else_has() {
    let instance = json!({ "id": "a", "node": 2, "door": "websocket", "version": "1.1", "capabilities": [{ "name": "users", "actions": ["get"] }] });
    let lifecycle = json!({ "service": { "id": "users", "name": "Users", "version": "1", "type": "" }, "instance": instance, "at": "T" });
    let wanted = json!({
        "type": "event", "event": "service-online", "service": { "name": "users", "version": "1.1", "methods": ["get"] },
        "instance_id": "a", "node": "n2", "index": 7, "at": "T",
    });
    assert_eq!(frame_of("roll.service.online", &lifecycle, Some(7)), wanted);
    for other in ["roll.service.updated", "roll.service.registered", "roll.node.up", "roll.config.updated", "app.x"] {
        assert_eq!(frame_of(other, &lifecycle, Some(7)), Value::Null, "{other}");
    }
    let from = json!({ "service": "shop", "instance": "" });
    let broadcast = frame_of("notify.x", &json!({ "event": "broadcast", "id": "b", "data": [1], "from": from }), None);
    let said = ["type", "id", "consumer", "payload"].map(|name| broadcast[name].clone());
    assert_eq!((said, broadcast.get("event")), ([json!("broadcast"), json!("b"), json!("shop"), json!([1])], None));
    assert_eq!(frame_of("notify.x", &json!({ "event": "price", "data": 1 }), Some(3))["event"], "price");
    // Only a node says that something is unhandled, and it keeps that nowhere.
    let unhandled = json!({ "event": "bus:unhandled", "data": { "destination": "x:y" } });
    assert_eq!(frame_of("notify.x", &unhandled, None)["event"], "unhandled");
    assert_eq!(frame_of("notify.x", &unhandled, Some(3)), Value::Null);
}

#[test]
fn whole_numbers_and_nothing_may_be_written_as_other_languages_do() {
    let parse = |text: &str| codec::parse(&ByteString::from(text), false);
    let timeout = |text: &str| match parse(&format!(
        "{{\"type\":\"message\",\"id\":\"m\",\"destination\":\"a:b\",\"timeout_ms\":{text},\"key\":null}}"
    )) {
        Ok(ClientFrame::Message(message)) => Ok(message.timeout),
        other => Err(format!("{other:?}")),
    };
    for text in ["5000", "5000.0", "5e3"] {
        assert_eq!(timeout(text), Ok(Some(Duration::from_secs(5))), "{text}");
    }
    assert_eq!(timeout("null"), Ok(None));
    for text in ["0", "-1", "1.5", "\"5\"", "1e300"] {
        assert!(timeout(text).is_err(), "{text}");
    }
    let subscribe = |text: &str| {
        parse(&format!(
            "\u{feff} {{\"type\":\"subscribe\",\"id\":\"s\",\"subject\":\"a.b\",\"redelivery_ms\":{text},\"ack\":null}}"
        ))
    };
    assert!(matches!(subscribe("200.0"), Ok(ClientFrame::Subscribe(_))));
    assert_eq!(subscribe("0.5").unwrap_err().text, "redelivery_ms: a whole number from 0");
}

#[test]
fn a_frame_that_is_nested_too_deep_is_refused_under_its_id() {
    let frame = |levels: usize| {
        let payload = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        format!("{{\"type\":\"message\",\"id\":\"m\",\"destination\":\"a:b\",\"payload\":{payload}}}")
    };
    assert!(codec::parse(&ByteString::from(frame(128)), false).is_ok());
    for (levels, first) in [(129, false), (100_000, false), (129, true)] {
        let error = codec::parse(&ByteString::from(frame(levels)), first).unwrap_err();
        assert_eq!((error.code, error.id.as_deref()), (ErrorCode::BadMessage, Some("m")));
        assert!(error.text.contains("nested deeper than 128 levels"), "{}", error.text);
    }
}

#[test]
fn what_a_service_says_of_its_failure_is_told_even_if_it_was_cut_in_a_character() {
    let frame = r#"{"type":"error","id":"m","message":"cut \ud83d","data":1e400}"#;
    let Ok(ClientFrame::Answer { answer, .. }) = codec::parse(&ByteString::from(frame), false) else {
        panic!("{frame}")
    };
    assert_eq!(
        answer.body.text(),
        "{\"code\":\"service_error\",\"message\":\"cut \u{fffd}\",\"retryable\":false,\"data\":1e400}"
    );
}
