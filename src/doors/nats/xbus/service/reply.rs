//! Replies to calls: protobuf or JSON, one message or a stream, or an error.

use bytes::Bytes;

use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::live::filter::LiveSubject;
use crate::bus::live::message::LiveMessage;
use crate::bus::live::route::Wakes;
use crate::bus::live::subjects::{LiveSubjects, OwnRoutes};
use crate::bus::xbus::envelopes::json::answer;
use crate::doors::nats::xbus::json::error;
use crate::doors::nats::xbus::proto::nrpc::{self, ErrorType};

/// What a handler answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// One message: protobuf, or JSON when the call was JSON.
    Message(Vec<u8>),
    /// The call was understood, and there is nothing to say.
    Void,
    /// Nothing more: the handler has sent what there was, or the call wants no reply.
    Silent,
}

impl Answer {
    /// A message of protobuf.
    pub fn proto(message: &impl prost::Message) -> Self {
        Self::Message(message.encode_to_vec())
    }

    /// A message of JSON.
    pub fn json(text: String) -> Self {
        Self::Message(text.into_bytes())
    }
}

/// Sends the replies of one call. Clones send to the same subject.
#[derive(Debug, Clone)]
pub struct Replies {
    subjects: LiveSubjects,
    /// Nobody hears the replies of a call that names no subject for them.
    to: Option<LiveSubject>,
    json: bool,
}

impl Replies {
    pub(super) const fn new(subjects: LiveSubjects, to: Option<LiveSubject>, json: bool) -> Self {
        Self { subjects, to, json }
    }

    /// Where the replies go, if the call wants some.
    #[must_use]
    pub const fn subject(&self) -> Option<&LiveSubject> {
        self.to.as_ref()
    }

    /// Sends a payload as it is. Returns whether anybody listens.
    pub fn send(&self, payload: Vec<u8>) -> bool {
        let Some(to) = &self.to else { return false };
        let message =
            LiveMessage { subject: to.text().clone(), payload: Bytes::from(payload), ..LiveMessage::default() };
        let mut wakes = Wakes::default();
        self.subjects.publish(to, &message, (&mut OwnRoutes::default(), None), &mut wakes)
    }

    /// Ends a stream of so many messages.
    pub fn end(&self, messages: u32) {
        self.send(if self.json { error::end(messages).into_bytes() } else { nrpc::end_of_stream(messages) });
    }

    /// Sends what a handler answers.
    pub(super) fn finish(&self, answered: Result<Answer, Fault>) {
        let payload = match answered {
            Ok(Answer::Message(payload)) => payload,
            Ok(Answer::Void) if self.json => answer::SUCCESS.into(),
            Ok(Answer::Void) => Vec::new(),
            Ok(Answer::Silent) => return,
            Err(fault) => self.error(&fault),
        };
        self.send(payload);
    }

    /// The payload of an error.
    fn error(&self, fault: &Fault) -> Vec<u8> {
        let kind = error_type(fault.kind);
        if self.json { error::error(kind, &fault.text).into_bytes() } else { nrpc::error(kind, &fault.text) }
    }
}

/// Whose fault it is, as nrpc tells it.
const fn error_type(kind: FaultKind) -> ErrorType {
    match kind {
        FaultKind::BadRequest
        | FaultKind::TooLarge
        | FaultKind::NotFound
        | FaultKind::Conflict
        | FaultKind::Stale
        | FaultKind::Unauthenticated
        | FaultKind::Forbidden
        | FaultKind::NotRegistered => ErrorType::Client,
        FaultKind::Overloaded
        | FaultKind::Unavailable
        | FaultKind::StorageFull
        | FaultKind::DeadlineExceeded
        | FaultKind::Cancelled
        | FaultKind::NoProvider
        | FaultKind::NoCapability
        | FaultKind::NoAction
        | FaultKind::ProviderLost => ErrorType::ServerTooBusy,
        FaultKind::Internal => ErrorType::Server,
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::error::Refusal;

    use super::*;

    #[test]
    fn refusals_tell_clients_whose_fault_it_is() {
        let told = |refusal: Refusal| error_type(Fault::from(refusal).kind);
        let text = || "x".to_owned();
        for refusal in [Refusal::XbusNotFound(text()), Refusal::Xbus(text()), Refusal::Malformed(text())] {
            assert_eq!(told(refusal), ErrorType::Client);
        }
        for refusal in [Refusal::Overloaded(text()), Refusal::Unavailable(text()), Refusal::OutcomeUnknown(text())] {
            assert_eq!(told(refusal), ErrorType::ServerTooBusy);
        }
        assert_eq!(told(Refusal::Storage), ErrorType::Server);
    }

    #[test]
    fn an_error_is_in_the_dialect_of_the_call() {
        let fault = Fault::bad("no");
        let error = |json| Replies::new(LiveSubjects::new(1), None, json).error(&fault);
        assert_eq!(error(false), b"\0\x12\x02no");
        assert_eq!(error(true), br#"{"__error__":{"type":"CLIENT","message":"no"}}"#);
    }
}
