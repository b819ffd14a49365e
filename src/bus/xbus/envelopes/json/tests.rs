//! The JSON profile: the examples of the specification page, and the dialect of proto3 JSON.

use proptest::prelude::*;
use rollbook_core::xbus::account::register::Answer;
use rollbook_core::xbus::account::row::{AccountRow, AccountType, ActorKind, ActorRow, ActorStatus};
use rollbook_core::xbus::envelope::assembly::Ack;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::log::LogLevel;
use serde_json::{Value, json};

use super::answer::{self, Delivered};
use super::body::{BodyError, Context, EndBody, JsonEnvelope, JsonEvent, LogBody, OutputBody, RegistrationBody};

const EVENT: &str = "53131466-4e2e-11e7-916e-af2b1e6d242d";
const OTHER: &str = "9b3f1466-4e2e-11e7-916e-af2b1e6d242d";
/// [`EVENT`] in base64.
const BASE64: &str = "UxMUZk4uEeeRbq8rHm0kLQ==";

fn id(text: &str) -> Id {
    text.parse().expect("an id")
}

fn context() -> Context {
    Context { process: id(OTHER), node: "archive".into() }
}

fn read(body: &Value) -> Result<OutputBody, BodyError> {
    OutputBody::read(body.to_string().as_bytes())
}

fn sent(body: &Value) -> (String, Option<Context>, JsonEnvelope) {
    match read(body) {
        Ok(OutputBody::Send { output, context, envelope }) => (output, context, envelope),
        other => panic!("{body}: {other:?}"),
    }
}

fn whole() -> Value {
    json!({"id": OTHER, "event_ids": [EVENT], "last": true, "events": [
        {"id": EVENT, "type": "test", "index": 1, "count": 1, "checksum": 3_098_160_312_u32, "items": ["A message"]}]})
}

fn event() -> JsonEvent {
    let items = vec![b"A message".to_vec()];
    JsonEvent {
        id: Some(id(EVENT)),
        event_type: "test".into(),
        index: Some(1),
        count: 1,
        checksum: 3_098_160_312,
        items,
    }
}

#[test]
fn a_bare_envelope_is_that_of_the_specification_page() {
    let (output, context, envelope) = sent(&whole());
    assert_eq!((output.as_str(), context), ("default", None));
    let wanted = JsonEnvelope { id: Some(id(OTHER)), event_ids: vec![id(EVENT)], events: vec![event()], last: true };
    assert_eq!(envelope, wanted);
    // What the page has at least.
    let (_, _, envelope) = sent(&json!({"events": [{"type": "t", "items": ["a"]}], "last": true}));
    assert_eq!((envelope.id, envelope.events[0].id, envelope.events[0].index), (None, None, None));
}

#[test]
fn bodies_are_told_apart_by_their_keys() {
    let job = json!({"process_id": OTHER, "node_id": "archive"});
    let wrapped = json!({"output": "copy", "context": job, "envelope": whole()});
    let (output, context_of, envelope) = sent(&wrapped);
    assert_eq!((output.as_str(), context_of, envelope.events.len()), ("copy", Some(context()), 1));
    // The empty context of an emitter is none.
    assert_eq!(sent(&json!({"output": "default", "context": {}, "envelope": whole()})).1, None);
    // A bare envelope of a worker.
    let mut bare = whole();
    bare["context"] = job.clone();
    bare["output"] = "copy".into();
    assert_eq!((sent(&bare).0, sent(&bare).1), ("copy".into(), Some(context())));
    let close = OutputBody::Close { output: "default".into(), context: context() };
    assert_eq!(read(&json!({"close": true, "context": job})), Ok(close));
    assert_eq!(read(&json!({"close": true})), Err(BodyError::NoContext));
    let forward = OutputBody::Forward { output: "copy".into(), context: context(), envelope: id(EVENT) };
    for body in [
        json!({"id": EVENT, "last": true, "context": job, "output": "copy"}),
        json!({"output": "copy", "context": job, "envelope": {"id": EVENT, "last": true}}),
        json!({"output": "copy", "envelope": {"id": EVENT, "last": true, "context": job}}),
    ] {
        assert_eq!(read(&body), Ok(forward.clone()), "{body}");
    }
    // The end of an envelope of an emitter is a fragment.
    assert!(sent(&json!({"id": EVENT, "last": true})).2.last);
}

#[test]
fn proto3_json_is_read_as_well() {
    let body = json!({"context": {"processID": BASE64, "nodeID": "n"}, "output": "o", "close": false, "envelope": {
        "id": BASE64, "eventIDs": [BASE64], "events": [
            {"id": BASE64, "type": "t", "index": "1", "itemCount": "2", "checksum": 7, "items": ["YQ==", "/w=="]}]}});
    let (output, context, envelope) = sent(&body);
    assert_eq!((output.as_str(), context.map(|context| context.process)), ("o", Some(id(EVENT))));
    let event = &envelope.events[0];
    assert_eq!((event.index, event.count, &event.items), (Some(1), 2, &vec![b"a".to_vec(), vec![0xff]]));
    let end = json!({"context": {"processId": BASE64, "nodeId": "n"}, "status": "ERROR",
        "messages": [{"time": "2026-11-21T10:00:00.5Z", "level": "WARNING", "Text": "x"}]});
    let end = EndBody::read(end.to_string().as_bytes()).expect("the end of a job");
    assert_eq!((end.success, end.messages[0].millis), (false, 1_795_255_200_500));
    assert_eq!((end.messages[0].level(), end.messages[0].text.as_str()), (LogLevel::Warning, "x"));
}

#[test]
fn items_are_texts_or_base64() {
    let one = |event: Value| sent(&json!({"id": OTHER, "events": [event]})).2.events[0].items[0].clone();
    assert_eq!(one(json!({"type": "t", "items": ["YQ=="]})), b"YQ==");
    assert_eq!(one(json!({"type": "t", "encoding": "binary", "items": ["YQ=="]})), b"a");
    let wrong = json!({"events": [{"type": "t", "encoding": "binary", "items": ["YQ==", "%"]}]});
    assert_eq!(read(&wrong), Err(BodyError::Base64(1)));
    assert_eq!(read(&json!({"events": [{"type": "t", "encoding": "gzip"}]})), Err(BodyError::Encoding));
}

#[test]
fn the_end_of_a_job_is_that_of_the_specification_page() {
    let body = json!({"envelope_id": OTHER, "context": {"process_id": OTHER, "node_id": "archive"}, "result": "error",
        "messages": [{"time": "2026-11-21T10:00:00Z", "level": "error", "text": "disk full"}]});
    let end = EndBody::read(body.to_string().as_bytes()).expect("the end of a job");
    assert_eq!((end.envelope, end.context, end.success), (Some(id(OTHER)), context(), false));
    assert_eq!(end.messages[0].text, "disk full");
    // Messages count only with an error.
    let mut body = body;
    body["result"] = "success".into();
    let end = EndBody::read(body.to_string().as_bytes()).expect("the end of a job");
    assert_eq!((end.success, end.messages.len()), (true, 0));
    assert!(matches!(EndBody::read(b"{\"result\":\"done\",\"context\":{}}"), Err(BodyError::Json(_))));
    assert_eq!(EndBody::read(b"{\"result\":\"success\",\"context\":{}}"), Err(BodyError::NoContext));
    let log = LogBody::read(br#"{"messages":[{"text":"x","time":"2026-11-21T10:00:00"}]}"#).expect("a log");
    assert_eq!((log.context, log.messages[0].millis), (None, 1_795_255_200_000));
}

#[test]
fn a_registration_names_account_and_actors() {
    let body = json!({"name": "shop", "type": "ACTOR", "csr": "PEM", "actorList": [{"name": "a", "kind": "worker", "roles": ["r"]}]});
    let read = RegistrationBody::read(body.to_string().as_bytes()).expect("a registration");
    assert_eq!(
        (read.kind, read.actors[0].kind, &read.actors[0].roles),
        (AccountType::Actor, ActorKind::Worker, &vec!["r".into()])
    );
    let error = RegistrationBody::read(br#"{"name":"shop","type":"robot"}"#).expect_err("no such type").to_string();
    assert!(error.contains("one of actor, user, gateway"), "{error}");
}

#[test]
fn answers_are_those_of_the_specification_page() {
    let parsed = |text: String| serde_json::from_str::<Value>(&text).expect("JSON");
    let accepted = r#"{"status":"success","id":"9b3f1466-4e2e-11e7-916e-af2b1e6d242d","reception_status":"accepted","registration_status":"accepted"}"#;
    assert_eq!(answer::envelope(id(OTHER), &Ack::Accepted), accepted);
    assert_eq!(parsed(answer::envelope(id(OTHER), &Ack::Receiving))["reception_status"], "receiving");
    let error = parsed(answer::envelope(id(OTHER), &Ack::Error("no".into())));
    assert_eq!(
        (&error["status"], &error["registration_status"], &error["reason"]),
        (&json!("error"), &json!("error"), &json!("no"))
    );
    assert_eq!(parsed(answer::SUCCESS.into()), json!({"status": "success"}));
    let mut account = AccountRow { id: id(OTHER).to_vec(), certificate: "CERT".into(), ..AccountRow::default() };
    account.set_kind(AccountType::Actor);
    let mut actor =
        ActorRow { id: id(EVENT).to_vec(), name: "a".into(), account: account.id.clone(), ..ActorRow::default() };
    actor.set_status(ActorStatus::Enabled);
    actor.last_seen = 1_795_255_200_000;
    let told = parsed(answer::registration(&account, Answer::Accepted, "CA", &[actor.clone()]));
    assert_eq!(
        (&told["registration_status"], &told["signed_certificate"], &told["server_ca"]),
        (&json!("accepted"), &json!("CERT"), &json!("CA"))
    );
    let wanted = json!({"id": EVENT, "name": "a", "kind": "consumer", "status": "enabled", "account_id": OTHER, "roles": [], "visible": true, "last_seen": "2026-11-21T10:00:00Z"});
    assert_eq!(told["actor_list"][0], wanted);
    assert_eq!(
        parsed(answer::registration(&account, Answer::Rejected, "CA", &[])),
        json!({"status": "error", "registration_status": "rejected"})
    );
    assert_eq!(parsed(answer::registration(&account, Answer::Pending, "CA", &[]))["signed_certificate"], Value::Null);
    assert_eq!(parsed(answer::account(&account))["account"]["type"], "actor");
    assert_eq!(parsed(answer::actors(&[actor]))["actors"][0]["id"], EVENT);
}

#[test]
fn a_worker_can_send_back_what_was_delivered_to_it() {
    let binary = JsonEvent { items: vec![vec![0xff], b"a".to_vec()], ..event() };
    let events = [event(), binary];
    let context = context();
    let body =
        Delivered { envelope: id(OTHER), event_ids: &[id(EVENT)], events: &events, last: true, context: &context }
            .body();
    let Ok(OutputBody::Send { context: read, envelope, .. }) = OutputBody::read(body.as_bytes()) else {
        panic!("{body}")
    };
    assert_eq!((read, &envelope.events[..]), (Some(context), &events[..]));
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!((&body["events"][0]["encoding"], &body["events"][1]["encoding"]), (&Value::Null, &json!("binary")));
}

#[test]
fn what_is_no_body_is_an_error_with_a_short_text() {
    let long = format!("{{\"id\":\"{}\"}}", "x".repeat(100_000));
    for body in [
        "",
        "null",
        "[]",
        "1",
        "{",
        "{\"id\":7}",
        "{\"events\":{}}",
        "{\"last\":\"yes\"}",
        "{\"events\":[{\"index\":-1}]}",
        "{\"events\":[{\"checksum\":4294967296}]}",
        &long,
    ] {
        let error = OutputBody::read(body.as_bytes()).expect_err(&body[..body.len().min(40)]).to_string();
        assert!(error.len() < 200, "{error}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        drop((OutputBody::read(&bytes), EndBody::read(&bytes), LogBody::read(&bytes), RegistrationBody::read(&bytes)));
    }

    #[test]
    fn a_damaged_body_is_answered(at in 0_usize..300, with in any::<u8>()) {
        let mut body = whole().to_string().into_bytes();
        if let Some(byte) = body.get_mut(at) {
            *byte = with;
        }
        drop((OutputBody::read(&body), EndBody::read(&body)));
    }
}

#[test]
fn events_without_ids_are_a_whole_envelope_where_programs_send_no_fragments() {
    let body = json!({"events": [{"type": "test", "items": ["a"]}]}).to_string();
    let last = |read: Result<OutputBody, BodyError>| match read {
        Ok(OutputBody::Send { envelope, .. }) => envelope.last,
        other => panic!("{other:?}"),
    };
    assert!(last(OutputBody::read_whole(body.as_bytes())) && !last(OutputBody::read(body.as_bytes())));
    let fragment = json!({"id": OTHER, "events": [{"id": EVENT, "type": "test", "index": 1, "items": ["a"]}]});
    assert!(!last(OutputBody::read_whole(fragment.to_string().as_bytes())), "who gives an id sends fragments");
    let named = OutputBody::read_whole(body.as_bytes()).map(|body| body.with_output("other"));
    assert!(matches!(named, Ok(OutputBody::Send { output, .. }) if output == "other"));
}
