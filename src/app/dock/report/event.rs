//! Events of processes: spawn and exit.

use crate::doors::hms::wire::message::Message;
use crate::doors::hms::wire::op::Op;
use crate::doors::hms::wire::payload::{ExitCode, encode_pid};
use bytes::{Bytes, BytesMut};

/// One event of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    /// The service.
    pub(crate) service: String,
    /// What happened.
    pub(crate) kind: EventKind,
}

/// What happened to a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// A process runs.
    Spawn(u32),
    /// A process ended, or the service is given up when the code is a text.
    Exit(ExitCode),
}

impl Event {
    /// The frame of the event, with `dock` as its origin.
    pub(crate) fn encode(&self, dock: &str) -> Bytes {
        match &self.kind {
            EventKind::Spawn(pid) => frame(Op::Spawn, &self.service, dock, encode_pid(Some(*pid))),
            EventKind::Exit(code) => frame(Op::Exit, &self.service, dock, code.encode()),
        }
    }
}

/// A message that nobody answers. Ids are checked long before they come here, so no message is too long.
pub(super) fn frame(op: Op, service: &str, dock: &str, payload: Bytes) -> Bytes {
    let mut out = BytesMut::new();
    let message = Message::new(op, service).with_origin(dock).with_payload(payload);
    if let Err(error) = message.encode_message(&mut out) {
        tracing::error!(service, %error, "a message could not be encoded");
        return Bytes::new();
    }
    out.freeze()
}
