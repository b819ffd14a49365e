//! The pure parts of the door: packets in and out, and the steps of a session at given times.

use std::time::{Duration, Instant};

use bytes::Bytes;
use bytestring::ByteString;
use proptest::prelude::*;

use super::cluster::session_state;
use super::codec::{self, Engine as Packet0, Kind, Packet, encode_payload};
use super::engine::protocol::Engine;
use super::engine::steps::{Polled, RequestError, Step, Timing};
use super::engine::table;
use super::service::payloads::{
    Auth, NotifyPayload, RecoveryRequest, RegisterPayload, RequestPayload, ResponsePayload,
};
use crate::net::websocket::writer::Frame;

fn text(text: &str) -> Frame {
    Frame::Text(text.into())
}

fn packet(text: &str) -> Option<Packet> {
    Packet::decode(&text.into()).ok()
}

#[test]
fn packets_read_back_as_they_were_written() {
    let written = codec::event("/", Some(7), "a\"b", &["1", "{\"x\":[]}"], 0);
    assert_eq!(written, "427[\"a\\\"b\",1,{\"x\":[]}]");
    let read = packet(written.strip_prefix('4').unwrap_or_default()).expect("a packet");
    assert_eq!((read.kind, read.id, &*read.namespace), (Kind::Event, Some(7), "/"));
    assert_eq!(codec::event_name(&read.data[0]).as_deref(), Some("a\"b"));
    assert_eq!(read.data[1..], ["1", "{\"x\":[]}"]);
    assert_eq!(codec::event("/admin", None, "x", &[], 2), "452-/admin,[\"x\"]");
    assert_eq!(codec::ack("/admin", 3, &["1", "2"], 0), "43/admin,3[1,2]");
    assert_eq!(codec::disconnected("/admin"), "41/admin,");
    let read = packet("0/admin?token=1,{\"a\":1}").expect("a packet");
    assert_eq!((read.kind, &*read.namespace, &*read.data[0]), (Kind::Connect, "/admin", "{\"a\":1}"));
}

#[test]
fn who_comes_back_says_what_it_was_and_what_it_was_told() {
    let recovery_request =
        |auth: &str| RecoveryRequest::parse(auth).map(|request| (request.pid, request.offset.map(|at| at.to_string())));
    let pid = || "p".to_owned();
    assert_eq!(recovery_request(r#"{"pid":"p","offset":"3.9","appId":"x"}"#), Some((pid(), Some("3.9".to_owned()))));
    assert_eq!(recovery_request(r#"{"pid":"p"}"#), Some((pid(), None)));
    assert_eq!(recovery_request(r#"{"pid":"p","offset":null}"#), Some((pid(), None)));
    for wrong in [r#"{"offset":"3.9"}"#, r#"{"pid":7}"#, r#"{"pid":"p","offset":"3"}"#, r#"{"pid":"p","offset":3}"#] {
        assert_eq!(recovery_request(wrong), None, "{wrong}");
    }
}

#[test]
fn a_number_may_be_the_name_of_an_event() {
    let read = packet("2[7,\"x\"]").expect("a packet");
    assert_eq!(codec::event_name(&read.data[0]), None);
    assert_eq!(packet("2[true]"), None);
}

#[test]
fn an_event_that_is_nested_too_deep_is_one_without_arguments() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    let of = |levels: usize| packet(&format!("27[\"x\",{{\"payload\":{}}}]", nested(levels))).expect("a packet");
    assert!(!of(128).deep && of(128).data.len() == 2);
    for levels in [129, 100_000] {
        let read = of(levels);
        assert_eq!((read.kind, read.id, read.deep, read.data.len()), (Kind::Event, Some(7), true, 1));
    }
    assert_eq!(packet(&format!("0{{\"a\":{}}}", nested(200))), None, "a CONNECT is none");
}

#[test]
fn names_and_placeholders_are_found_in_odd_texts() {
    let read = packet(r#"2["\ud83d",1]"#).expect("a packet");
    assert_eq!(codec::event_name(&read.data[0]).as_deref(), Some("\u{fffd}"));
    let fit = |json: &str, parts| codec::placeholders_fit(&[ByteString::from(json)], parts);
    for (json, parts, fits) in [
        (r#"{"_placeholder":true,"num":0}"#, 1, true),
        (r#"{"_placeholder":true,"num":1}"#, 1, false),
        (r#"{"_placeholder":true}"#, 1, false),
        (r#"{"_placeholder":true,"num":-1}"#, 1, false),
        (r#"{"a":[{"\u005fplaceholder":true,"num":3}]}"#, 2, false),
        (r#"{"a":[{"\u005fplaceholder":true,"num":1.0}]}"#, 2, true),
        (r#"{"_placeholder":false,"num":9}"#, 1, true),
        (r#"{"_placeholder":true,"_placeholder":1,"num":9}"#, 1, true),
        (r#"{"half":"\ud83d","\udc00":1e400,"b":{"_placeholder":true,"num":0}}"#, 1, true),
        (r#"{"text":"{\"_placeholder\":true,\"num\":9}"}"#, 1, true),
    ] {
        assert_eq!(fit(json, parts), fits, "{json}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_decoder_panic(bytes in "\\PC{0,200}", start in "[0-6][0-9]{0,3}-?(/[a-z?]{0,3},)?[0-9]{0,3}") {
        let _read = packet(&bytes);
        let _read = packet(&format!("{start}{bytes}"));
        let _read: Vec<_> = Packet0::decode_payload(&ByteString::from(bytes)).collect();
    }

    #[test]
    fn payloads_read_back(parts in prop::collection::vec(prop_oneof![
        "[^\u{1e}]{0,30}".prop_map(|rest| Frame::Text(format!("4{rest}").into())),
        prop::collection::vec(any::<u8>(), 0..40).prop_map(|bytes| Frame::Binary(bytes.into())),
    ], 1..8)) {
        let payload: ByteString = encode_payload(&parts).into();
        let read: Vec<_> = Packet0::decode_payload(&payload).map(|packet| match packet {
            Ok(Packet0::Message(Frame::Text(rest))) => Frame::Text(format!("4{rest}").into()),
            Ok(Packet0::Message(binary)) => binary,
            other => text(&format!("{other:?}")),
        }).collect();
        prop_assert_eq!(read, parts);
    }

    #[test]
    fn an_event_of_any_name_and_arguments_reads_back(name in "\\PC{1,20}", n in any::<i64>(), id in prop::option::of(0_u64..1 << 53)) {
        prop_assume!(!codec::is_reserved(&name));
        let number = n.to_string();
        let written = codec::event("/x", id, &name, &[&number], 0);
        let read = packet(written.strip_prefix('4').unwrap_or_default()).expect("a packet");
        prop_assert_eq!(read.id, id);
        prop_assert_eq!(codec::event_name(&read.data[0]).map(|name| name.to_string()), Some(name));
        prop_assert_eq!(&*read.data[1], &number);
    }
}

#[test]
fn messages_between_nodes_read_back() {
    let frames = vec![text("42[1]"), Frame::Binary(Bytes::from_static(&[0, 255]))];
    for word in [
        session_state::PeerMessage::Poll("n1.x".to_owned()),
        session_state::PeerMessage::FromClient(session_state::TunnelFrames::new(7, frames.clone())),
        session_state::PeerMessage::ToClient(session_state::TunnelFrames::end(7, 1012)),
    ] {
        assert_eq!(session_state::PeerMessage::from_bytes(word.clone().into_bytes()), Some(word));
    }
    assert_eq!(session_state::TunnelFrames::new(7, frames.clone()).into_frames(), frames);
    for result in [Ok("6".to_owned()), Err(RequestError::Unknown), Err(RequestError::Request)] {
        assert_eq!(session_state::decode(Ok(session_state::encode(result.clone()))), result);
    }
}

#[test]
fn a_sid_names_its_node() {
    let (one, two) = (table::sid(12), table::sid(12));
    assert_ne!(one, two);
    assert_eq!((table::node_of(&one), one.len()), (Some(12), 4 + 22));
    for strange in ["", "n", "n1", "x1.abc", "n-1.abc", "n99999999999999999999.a"] {
        assert_eq!(table::node_of(strange), None, "{strange}");
    }
}

/// A session with a clock of its own.
struct TimedEngine {
    engine: Engine,
    now: Instant,
}

const SECOND: Duration = Duration::from_secs(1);

fn session(conn: Option<u64>) -> TimedEngine {
    let timing = Timing { ping_interval: SECOND * 25, ping_timeout: SECOND * 20, upgrade_timeout: SECOND * 10 };
    let now = Instant::now();
    TimedEngine { engine: Engine::new(timing, conn, now), now }
}

impl TimedEngine {
    fn after(&mut self, seconds: u32) -> Vec<Step> {
        self.now += SECOND * seconds;
        self.engine.tick(self.now);
        self.engine.take()
    }

    fn frame(&mut self, conn: u64, packet: &str) -> Vec<Step> {
        self.engine.frame(conn, text(packet), self.now);
        self.engine.take()
    }

    fn post(&mut self, body: &str) -> Result<(), RequestError> {
        self.engine.post_start(1)?;
        self.engine.post(1, Some(&body.into()), self.now)
    }
}

#[test]
fn a_post_that_never_comes_ends_its_session_and_no_other_post_does() {
    let begun = || {
        let mut timed = session(None);
        assert_eq!(timed.engine.post_start(7), Ok(()));
        timed
    };
    let mut timed = begun();
    timed.engine.post_aborted(8, "of another handler");
    assert_eq!(
        timed.engine.post(8, Some(&"4no".into()), timed.now),
        Err(RequestError::Unknown),
        "nor is it taken for another"
    );
    assert_eq!(timed.engine.post(7, Some(&"4in".into()), timed.now), Ok(()));
    timed.engine.post_aborted(7, "behind its end");
    assert_eq!(timed.post("4more"), Ok(()), "the session goes on");
    let mut timed = begun();
    timed.engine.post_aborted(7, "cut");
    assert!(timed.engine.take().contains(&Step::Closed("cut")));
}

#[test]
fn the_interval_begins_anew_with_the_pong() {
    let mut timed = session(Some(1));
    assert_eq!(timed.after(24), []);
    assert_eq!(timed.after(1), [Step::Write(1, vec![text("2")])]);
    timed.engine.written(1);
    assert_eq!(timed.after(19), []);
    assert_eq!(timed.frame(1, "3"), []);
    assert_eq!(timed.after(24), []);
    assert_eq!(timed.after(1), [Step::Write(1, vec![text("2")])], "25 s after the pong");
    assert_eq!(timed.after(20), [Step::Shut(1, 1000), Step::Closed("ping timeout")]);
    assert!(timed.engine.is_over());
}

#[test]
fn what_is_sent_while_a_write_is_on_its_way_leaves_with_the_next() {
    let mut timed = session(Some(1));
    timed.engine.send([text("4a")]);
    timed.engine.send([text("4b")]);
    timed.engine.send([text("4c")]);
    assert_eq!(timed.engine.take(), [Step::Write(1, vec![text("4a")])]);
    assert_eq!(timed.engine.waiting_bytes(), 4);
    timed.engine.written(1);
    assert_eq!(timed.engine.take(), [Step::Write(1, vec![text("4b"), text("4c")])]);
}

#[test]
fn what_comes_at_the_pace_of_the_client_does_not_say_that_it_does_not_read() {
    let mut timed = session(Some(1));
    timed.engine.send([text("4a")]);
    timed.engine.queue([text("4large event")], "4large event".len());
    timed.engine.queue([text("4b")], 0);
    assert_eq!((timed.engine.waiting_bytes(), timed.engine.unread_bytes()), (14, 2));
    timed.engine.written(1);
    assert_eq!((timed.engine.waiting_bytes(), timed.engine.unread_bytes()), (0, 0));
    timed.engine.queue([text("4b")], 0);
    assert_eq!(timed.engine.unread_bytes(), 2, "what is paced does not count for what comes later");
}

#[test]
fn nothing_is_lost_and_nothing_doubled_by_an_upgrade() {
    let mut timed = session(None);
    timed.engine.attach(5, timed.now);
    timed.engine.send([text("41")]);
    assert_eq!(timed.frame(5, "2probe"), [Step::Write(5, vec![text("3probe")])]);
    assert_eq!(timed.engine.poll(timed.now), Polled::Now("41".to_owned()), "what waits comes before the noop");
    assert_eq!(timed.engine.poll(timed.now), Polled::Now("6".to_owned()));
    assert_eq!(timed.post("4in"), Ok(()), "data may still come over polling");
    timed.engine.send([text("42")]);
    assert_eq!(timed.frame(5, "5"), [Step::Message(text("in")), Step::Write(5, vec![text("42")])]);
    assert_eq!(timed.engine.poll(timed.now), Polled::Refused(RequestError::Request));
    assert_eq!(timed.post("4late"), Err(RequestError::Request));
}

#[test]
fn an_upgrade_that_takes_too_long_leaves_polling_as_it_was() {
    let mut timed = session(None);
    timed.engine.attach(5, timed.now);
    assert_eq!(timed.after(10), [Step::Shut(5, 1000)]);
    assert_eq!(timed.engine.poll(timed.now), Polled::Later);
    timed.engine.attach(6, timed.now);
    timed.engine.attach(7, timed.now);
    assert_eq!(timed.engine.take(), [Step::Shut(7, 1000)], "one at a time");
}

#[test]
fn a_close_waits_for_the_next_poll() {
    let mut timed = session(None);
    timed.engine.send([text("4last")]);
    timed.engine.close("draining", 1012, timed.now);
    assert_eq!(timed.engine.take(), [Step::Closed("draining")]);
    assert_eq!(timed.engine.linger(), SECOND * 30);
    assert_eq!(timed.engine.poll(timed.now), Polled::Now("4last\u{1e}1".to_owned()));
    assert_eq!(timed.engine.poll(timed.now), Polled::Refused(RequestError::Unknown));
}

#[test]
fn packets_behind_a_bad_one_are_not_taken() {
    let mut timed = session(None);
    assert_eq!(timed.post("4a\u{1e}x\u{1e}4b"), Err(RequestError::Request));
    assert_eq!(timed.engine.take(), [Step::Message(text("a")), Step::Closed("parse error")]);
}

#[test]
fn what_clients_say_is_checked_field_by_field() {
    let auth = Auth::parse(Some(r#"{"appId":"a","appPort":"80"}"#), Some("A".to_owned()));
    assert_eq!(auth, Ok(Auth { id: Some("a".to_owned()), name: Some("A".to_owned()), port: Some(80) }));
    let register = RegisterPayload::parse("{}").and_then(|says| says.into_register(&auth.expect("an auth"), "n1.s"));
    let register = register.expect("a registration");
    assert_eq!((register.service.id.as_str(), register.instance.id.as_str()), ("a", "n1.s"));
    assert_eq!((register.service.kind.as_str(), register.instance.port), ("service", 80));
    let arg = r#"{"requestId":"r","capability":"c","payload": {"a": 1.0} }"#;
    let asks = RequestPayload::parse(arg, false).expect("a request");
    assert_eq!(asks.payload.and_then(|range| arg.get(range)), Some("{\"a\": 1.0}"), "the bytes that came");
    let refused = RequestPayload::parse(r#"{"requestId":"r","capability":[]}"#, false).expect_err("no request");
    assert_eq!(refused.id.as_deref(), Some("r"), "so that the caller knows which");
    let args = [ByteString::from(r#"{"requestId":"r","success":false,"data":1,"error":"no"}"#)];
    let answer = ResponsePayload::parse(&args[0]).expect("a response").answer(&args, &[]);
    assert_eq!((answer.success, answer.body.text()), (false, "\"no\""));
    assert!(NotifyPayload::parse(r#"{"event":"bus:restart"}"#).is_err());
}
