//! What docks tell, and what they are asked to do.

use bytes::Bytes;
use rollbook_core::dock::event::{DockEvent, DockEventKind};

use super::super::wire::answer::{Answer, InvalidAnswer};
use super::super::wire::message::Message;
use super::super::wire::op::Op;
use super::super::wire::payload::{ExitCode, encode_pid, parse_pid};
use crate::base::clock;
use crate::bus::docks::hub::DockHub;
use crate::bus::docks::order::DockOp;
use crate::bus::docks::output::{OutputKind, OutputPublisher};
use crate::bus::docks::table::{DockInfo, DockPlace};
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;

/// Longest text of an exit that is put into the book, in bytes.
const EXIT_TEXT_BYTES_MAX: usize = 1024;

/// A connected dock.
#[derive(Debug)]
pub(super) struct Dock {
    docks: DockHub,
    id: String,
    publisher: OutputPublisher,
    /// Its place among the docks, by which it gets its orders.
    pub(super) place: DockPlace,
}

/// The operation of an order.
pub(super) const fn op_of(op: DockOp) -> Op {
    match op {
        DockOp::Update => Op::Update,
        DockOp::Remove => Op::Remove,
        DockOp::Ps => Op::Ps,
        DockOp::Start => Op::Start,
        DockOp::Stop => Op::Stop,
        DockOp::Restart => Op::Restart,
        DockOp::Sync => Op::Sync,
    }
}

impl Dock {
    /// A dock is connected.
    ///
    /// # Errors
    /// The client may not be this dock, or another dock has its id.
    pub(super) async fn attach(docks: DockHub, who: &Identity, info: DockInfo) -> Result<Self, Fault> {
        let id = info.id.clone();
        let place = docks.attach(who, info).await?;
        let publisher = docks.publisher(&id);
        Ok(Self { docks, id, publisher, place })
    }

    /// The id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Takes what a dock tells of a process. What is malformed is left out: a relayed message must not end a client. The
    /// dock is the one that is connected, whatever the message says.
    pub(super) fn tell(&mut self, message: &Message) {
        let Message { op, id, payload, .. } = message;
        match op {
            Op::Stdout => self.output(OutputKind::Stdout, id, payload),
            Op::Stderr => self.output(OutputKind::Stderr, id, payload),
            Op::Spawn => {
                let Ok(pid) = parse_pid(payload) else { return };
                self.output(OutputKind::Spawn, id, &encode_pid(pid));
                self.record(DockEventKind::Spawned, id, |event| event.pid = pid.map(u64::from));
            }
            Op::Exit => {
                let Ok(code) = ExitCode::parse(payload) else { return };
                self.output(OutputKind::Exit, id, &code.encode());
                match code {
                    ExitCode::Number(code) => self.record(DockEventKind::Exited, id, |event| event.code = Some(code)),
                    ExitCode::Null => self.record(DockEventKind::Exited, id, |_| {}),
                    ExitCode::Text(text) => {
                        let kind = match text.starts_with("crashed") {
                            true => DockEventKind::Crashed,
                            false => DockEventKind::Exited,
                        };
                        let end = text.floor_char_boundary(EXIT_TEXT_BYTES_MAX);
                        let text = text.get(..end).unwrap_or_default().to_owned();
                        self.record(kind, id, |event| event.text = Some(text));
                    }
                }
            }
            _ => {}
        }
    }

    fn output(&mut self, kind: OutputKind, id: &str, data: &[u8]) {
        self.publisher.publish(kind, id, data);
        if let Some(lines) = self.docks.lines() {
            lines.take(kind, &self.id, id, data);
        }
    }

    /// Wakes those who got messages. To be called at the end of what came at once.
    pub(super) fn flush(&mut self) {
        self.publisher.flush();
    }

    fn record(&self, kind: DockEventKind, id: &str, fill: impl FnOnce(&mut DockEvent)) {
        let mut event =
            DockEvent { definition: id.to_owned(), dock: self.id.clone(), at: clock::millis(), ..DockEvent::default() };
        event.set_kind(kind);
        fill(&mut event);
        self.docks.record(event);
    }
}

/// The answer of a dock, as whoever gave the order gets it.
pub(super) fn answered(op: Op, parsed: Result<Option<Answer>, InvalidAnswer>) -> Option<Result<Bytes, String>> {
    match parsed {
        Ok(None) => None,
        Ok(Some(Answer::Done)) => Some(Ok(Bytes::new())),
        Ok(Some(Answer::Json(json))) if op.is_answered_with_json() => Some(Ok(Bytes::from(json.get().to_owned()))),
        Ok(Some(Answer::Json(_))) => Some(Ok(Bytes::new())),
        Ok(Some(Answer::Error(text))) => Some(Err(text)),
        Err(error) => Some(Err(error.to_string())),
    }
}
