//! Messages that go into the book, and their acknowledgements in the form of JetStream.

use std::task::{Context as Task, Poll};

use bytes::Bytes;
use bytestring::ByteString;
use futures_util::FutureExt as _;
use serde::Serialize;

use super::Client;
use super::operations::refusal;
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::error::{Fault, First};
use crate::bus::live::filter::LiveSubject;
use crate::bus::live::message::LiveMessage;
use crate::bus::write::draft::Published;
use crate::doors::nats::api_error::ApiError;
use crate::doors::nats::outcome::{Outcome, Recorded};
use crate::doors::nats::record::draft;
use crate::doors::nats::wire::error::ProtocolError;
use crate::net::http::status::status;

/// The code of JetStream for a message that is not stored.
const NOT_STORED: u32 = 10_077;
/// The code of JetStream for a request that is wrong.
const BAD_REQUEST: u32 = 10_003;

/// An acknowledgement: that of JetStream, and the id of the event.
#[derive(Debug, Serialize)]
struct Acknowledgement<'a> {
    stream: &'a str,
    seq: u64,
    #[serde(skip_serializing_if = "str::is_empty")]
    event_id: &'a str,
    /// The id under which the event waits.
    #[serde(skip_serializing_if = "str::is_empty")]
    delayed_id: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<ApiError<'a>>,
}

impl Client {
    /// Begins to store a message. What is stored keeps the order of the messages.
    ///
    /// # Errors
    /// The client may not, as far as that is known at once.
    pub(super) fn record(&mut self, message: &LiveMessage, task: &mut Task<'_>) -> Result<(), ProtocolError> {
        let text = ByteString::from(&*message.subject);
        let subject = LiveSubject::parse(text).map_err(|_| ProtocolError::InvalidPublishSubject)?;
        let namespace = message.subject.split('.').next().unwrap_or_default().to_owned();
        // Copies: what waits must not hold the buffer of the read.
        let reply = ByteString::from(&*message.reply);
        let access = self.live.access().clone();
        let parsed = draft(message, &namespace)
            .and_then(|draft| draft.publish(clock::timestamp(), &|name| access.is_writable(name)));
        let stored = async move { access.publish(parsed?).await };
        let mut recorded: Recorded =
            async move { Outcome { subject, reply, namespace, stored: stored.await } }.boxed_local();
        // The first poll hands the message to the proposer, so it is done at once: messages keep their order.
        match recorded.poll_unpin(task) {
            Poll::Ready(outcome) => self.acknowledge(outcome),
            Poll::Pending => {
                self.recorded.push(recorded);
                Ok(())
            }
        }
    }

    /// Tells the client what became of a message.
    ///
    /// # Errors
    /// The client may not publish there, which it hears with and without a reply subject.
    pub(super) fn acknowledge(&mut self, outcome: Outcome) -> Result<(), ProtocolError> {
        let Outcome { subject, reply, namespace, stored } = outcome;
        if let Ok(reply) = LiveSubject::parse(reply) {
            self.live.answer(&reply, acknowledgement(&namespace, &stored));
        }
        match stored {
            Err(fault) if matches!(fault.kind, FaultKind::Forbidden | FaultKind::Unauthenticated) => {
                Err(refusal(&fault, &subject))
            }
            Err(fault) => {
                tracing::debug!(namespace, reason = %fault, "a message is not stored");
                Ok(())
            }
            Ok(_) => Ok(()),
        }
    }
}

fn acknowledgement(stream: &str, stored: &Result<Option<Published>, Fault>) -> Bytes {
    let none = Acknowledgement { stream, seq: 0, event_id: "", delayed_id: "", duplicate: false, error: None };
    let acknowledgement = match stored {
        Ok(Some(Published { id, due: Some(_), .. })) => Acknowledgement { delayed_id: id, ..none },
        Ok(Some(Published { id, index, .. })) => {
            Acknowledgement { seq: u64::try_from(*index).unwrap_or_default(), event_id: id, ..none }
        }
        Ok(None) => none,
        Err(Fault { kind: FaultKind::Conflict, first: Some(first), .. }) => {
            let First { id, index, waits, .. } = &**first;
            let (event_id, delayed_id) = if *waits { ("", id.as_str()) } else { (id.as_str(), "") };
            Acknowledgement { seq: *index, event_id, delayed_id, duplicate: true, ..none }
        }
        Err(fault) => {
            let code = status(fault.kind).as_u16();
            let err_code = if code < 500 { BAD_REQUEST } else { NOT_STORED };
            Acknowledgement { error: Some(ApiError { code, err_code, description: &fault.text }), ..none }
        }
    };
    serde_json::to_vec(&acknowledgement).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use rollbook_core::time::Timestamp;

    use super::*;

    fn text(stored: Result<Option<Published>, Fault>) -> String {
        String::from_utf8(acknowledgement("app", &stored).to_vec()).unwrap()
    }

    #[test]
    fn an_acknowledgement_is_that_of_jetstream_with_the_id_of_the_event() {
        let published = Published { id: "e_1".to_owned(), created_at: Timestamp::default(), index: 7, due: None };
        assert_eq!(text(Ok(Some(published.clone()))), r#"{"stream":"app","seq":7,"event_id":"e_1"}"#);
        let waiting = Published { id: "d_1_2_3".to_owned(), index: -1, due: Some(Timestamp::default()), ..published };
        assert_eq!(text(Ok(Some(waiting))), r#"{"stream":"app","seq":0,"delayed_id":"d_1_2_3"}"#);
        let first = First { id: "e_0".to_owned(), created_at: None, index: 3, waits: false };
        let repeated = Fault { first: Some(Box::new(first)), ..Fault::new(FaultKind::Conflict, "x") };
        assert_eq!(text(Err(repeated)), r#"{"stream":"app","seq":3,"event_id":"e_0","duplicate":true}"#);
    }

    #[test]
    fn a_message_that_is_not_stored_is_an_error_with_the_codes_of_jetstream() {
        let refused = text(Err(Fault::new(FaultKind::Forbidden, "no")));
        assert_eq!(refused, r#"{"stream":"app","seq":0,"error":{"code":403,"err_code":10003,"description":"no"}}"#);
        assert!(text(Err(Fault::unavailable("later"))).contains(r#""code":503,"err_code":10077"#));
    }
}
