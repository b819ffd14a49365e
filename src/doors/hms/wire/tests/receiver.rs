//! A peer that answers everything with success, and remembers what it was told.

use bytes::BytesMut;
use serde_json::{Value, json};

use super::super::answer::{Answer, encode_error};
use super::super::decoder::{BodyTooLong, Decoder};
use super::super::frame::{Frame, FrameKind};
use super::super::handshake::Handshake;
use super::super::message::Message;
use super::super::op::Op;
use super::super::payload::{ExitCode, parse_pid, parse_service};
use super::super::request_ids::RequestIds;
use super::hex;

/// What the original would emit.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Event {
    pub(super) name: &'static str,
    pub(super) args: Vec<Value>,
    /// Whether the original hands a callback to the listener.
    pub(super) has_callback: bool,
}

/// One end of a connection.
pub(super) struct Receiver {
    pub(super) decoder: Decoder,
    pub(super) pending: RequestIds<Op>,
    pub(super) events: Vec<Event>,
    pub(super) reply: BytesMut,
    /// Whether a handshake is taken as it comes. The vectors have handshakes of nobody.
    pub(super) any_handshake: bool,
}

impl Receiver {
    pub(super) fn new(max_body: u32) -> Self {
        Self {
            decoder: Decoder::new(max_body),
            pending: RequestIds::default(),
            events: Vec::new(),
            reply: BytesMut::new(),
            any_handshake: false,
        }
    }

    pub(super) fn receive(&mut self, bytes: &[u8]) -> Result<(), BodyTooLong> {
        self.decoder.feed(bytes);
        while let Some(frame) = self.decoder.next_frame()? {
            match frame.kind {
                FrameKind::Message | FrameKind::Request => self.message(&frame),
                FrameKind::Response | FrameKind::Error => self.answer(&frame),
                FrameKind::Ping => {
                    self.emit("ping", Vec::new(), false);
                    Frame::pong(frame.id).encode(&mut self.reply).unwrap();
                }
                FrameKind::Unknown(_) => {}
            }
        }
        Ok(())
    }

    fn message(&mut self, frame: &Frame) {
        let parsed = Message::parse(&frame.body).map_err(|error| error.to_string());
        let outcome = parsed.and_then(|message| Ok((message.op, arguments(&message, self.any_handshake)?)));
        match outcome {
            Ok((op, args)) => {
                self.emit(op.name(), args, !op.is_event());
                if frame.kind == FrameKind::Request {
                    // The listener of the vectors calls back without a value, which is `null` where there must be one.
                    Answer::json(&Value::Null).encode(op, frame.id, &mut self.reply).unwrap();
                }
            }
            Err(text) if frame.kind == FrameKind::Request => encode_error(&text, frame.id, &mut self.reply).unwrap(),
            Err(_) => {}
        }
    }

    fn answer(&mut self, frame: &Frame) {
        let Some(op) = self.pending.remove(frame.id) else { return };
        let args = match Answer::parse(Some(op), frame.kind, &frame.body).map(Option::unwrap) {
            Ok(Answer::Json(result)) => vec![Value::Null, serde_json::from_str(result.get()).unwrap()],
            Ok(Answer::Done) => vec![Value::Null, Value::Null],
            Ok(Answer::Error(text)) => vec![json!(text), Value::Null],
            Err(error) => vec![json!(error.to_string()), Value::Null],
        };
        self.emit("getcb", args, false);
    }

    fn emit(&mut self, name: &'static str, args: Vec<Value>, has_callback: bool) {
        self.events.push(Event { name, args, has_callback });
    }
}

/// The arguments that the original hands to the listener of a message.
pub(super) fn arguments(message: &Message, any_handshake: bool) -> Result<Vec<Value>, String> {
    let (id, origin, payload) = (json!(message.id), json!(message.origin()), &message.payload);
    match message.op {
        Op::Handshake if any_handshake => Ok(vec![serde_json::from_slice(payload).unwrap()]),
        Op::Handshake => {
            let handshake = Handshake::parse(payload).map_err(|error| error.to_string())?;
            Ok(vec![serde_json::from_slice(&handshake.encode()).unwrap()])
        }
        Op::Add | Op::Update | Op::Sync => {
            let service = parse_service(message.op, payload).map_err(|error| error.to_string())?;
            Ok(vec![id, service.map_or(Value::Null, Value::Object)])
        }
        Op::List | Op::Ps => Ok(Vec::new()),
        Op::Stdout | Op::Stderr => Ok(vec![id, origin, json!({ "__buffer_hex": hex(payload) })]),
        Op::Spawn => Ok(vec![id, origin, json!(parse_pid(payload).map_err(|error| error.to_string())?)]),
        Op::Exit => {
            let code = match ExitCode::parse(payload).map_err(|error| error.to_string())? {
                ExitCode::Number(code) => json!(code),
                ExitCode::Null => Value::Null,
                ExitCode::Text(text) => json!(text),
            };
            Ok(vec![id, origin, code])
        }
        _ => Ok(vec![id]),
    }
}
