//! Messages between two nodes about clients: requests, commands and questions.

use std::time::{Duration, Instant};

use bytes::Bytes;
use prost::Message;
use rollbook_core::service::Connection;

use crate::base::fault::FaultKind;
use crate::bus::call::types::RemoteRequest;
use crate::bus::client::call::{Answer, Caller, Outcome, Payload, Request, Responder};
use crate::bus::client::clients::CloseReason;
use crate::bus::error::Fault;

/// A request for a client of the receiving node.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct Call {
    #[prost(message, required, tag = "1")]
    pub(in crate::bus) to: Connection,
    #[prost(string, tag = "2")]
    id: String,
    #[prost(string, tag = "3")]
    capability: String,
    #[prost(string, tag = "4")]
    action: String,
    #[prost(bytes = "bytes", tag = "5")]
    json: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "6")]
    attachments: Vec<Bytes>,
    #[prost(string, tag = "7")]
    service: String,
    #[prost(string, tag = "8")]
    instance: String,
    #[prost(uint64, tag = "9")]
    left_ms: u64,
    #[prost(string, tag = "10")]
    key: String,
    #[prost(string, optional, tag = "11")]
    responder: Option<String>,
    #[prost(bool, tag = "12")]
    one_way: bool,
    #[prost(string, optional, tag = "13")]
    traceparent: Option<String>,
    /// The number of the request at the sending node; 0 when that node does not send one: see
    /// [`Frame::Abandon`](super::frame::Frame::Abandon).
    #[prost(uint64, tag = "14")]
    pub(in crate::bus) number: u64,
}

impl Call {
    /// The message for a request that has `left` until its deadline. Nodes do not share a clock.
    pub(in crate::bus) fn new(remote_request: &RemoteRequest, left: Duration) -> Self {
        let RemoteRequest { to, number, request, payload } = remote_request;
        Self {
            to: *to,
            number: *number,
            id: request.id.clone(),
            capability: request.capability.clone(),
            action: request.action.clone(),
            json: payload.json.clone(),
            attachments: payload.attachments.clone(),
            service: request.from.service.clone(),
            instance: request.from.instance.clone(),
            left_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            key: request.key.clone(),
            responder: match &request.responder {
                Responder::Named(name) => Some(name.clone()),
                Responder::Caller | Responder::Nobody => None,
            },
            one_way: request.responder == Responder::Nobody,
            traceparent: request.traceparent.clone(),
        }
    }

    /// The request, with a deadline at most `longest` from now.
    pub(in crate::bus) fn into_request(self, now: Instant, longest: Duration) -> (Request, Payload) {
        let payload = Payload { json: self.json, attachments: self.attachments };
        let request = Request {
            id: self.id,
            capability: self.capability,
            action: self.action,
            from: Caller { service: self.service, instance: self.instance, connection: None },
            deadline: now + Duration::from_millis(self.left_ms).min(longest),
            retries: 0,
            key: self.key,
            responder: match self.responder {
                _ if self.one_way => Responder::Nobody,
                Some(name) => Responder::Named(name),
                None => Responder::Caller,
            },
            traceparent: self.traceparent,
        };
        (request, payload)
    }
}

/// The outcome of a [`Call`].
#[derive(Clone, PartialEq, Message)]
struct EncodedOutcome {
    #[prost(bool, tag = "1")]
    success: bool,
    #[prost(bytes = "bytes", tag = "2")]
    json: Bytes,
    #[prost(bytes = "bytes", repeated, tag = "3")]
    attachments: Vec<Bytes>,
    /// Code of the fault; empty when there is an answer.
    #[prost(string, tag = "4")]
    code: String,
    #[prost(string, tag = "5")]
    text: String,
}

/// Encodes the outcome of a [`Call`].
pub(in crate::bus) fn encode_outcome(outcome: Outcome) -> Bytes {
    let encoded = match outcome {
        Ok(Answer { success, body: Payload { json, attachments } }) => {
            EncodedOutcome { success, json, attachments, ..EncodedOutcome::default() }
        }
        Err(fault) => {
            EncodedOutcome { code: fault.code().to_owned(), text: fault.text.into_owned(), ..EncodedOutcome::default() }
        }
    };
    encoded.encode_to_vec().into()
}

/// Reads [`encode_outcome`] back.
pub(in crate::bus) fn decode_outcome(bytes: Bytes) -> Outcome {
    let strange = |_| Fault::unavailable("an answer of an unknown kind");
    let EncodedOutcome { success, json, attachments, code, text } = EncodedOutcome::decode(bytes).map_err(strange)?;
    match FaultKind::from_code(&code) {
        Some(kind) => Err(Fault::new(kind, text)),
        None => Ok(Answer { success, body: Payload { json, attachments } }),
    }
}

/// A command of the operator for a client of the receiving node.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct ClientCommand {
    #[prost(message, required, tag = "1")]
    pub(in crate::bus) to: Connection,
    #[prost(string, tag = "2")]
    pub(in crate::bus) name: String,
    #[prost(bytes = "bytes", tag = "3")]
    pub(in crate::bus) json: Bytes,
    #[prost(uint64, tag = "4")]
    pub(in crate::bus) wait_ms: u64,
}

/// Closes the connection of a client of the receiving node.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct CloseClient {
    #[prost(message, required, tag = "1")]
    pub(in crate::bus) to: Connection,
    #[prost(uint32, tag = "2")]
    why: u32,
    /// The connection that took its place; empty when there is none, or when a node of an earlier release sends the
    /// message.
    #[prost(string, tag = "3")]
    pub(in crate::bus) by: String,
}

impl CloseClient {
    /// Another connection took the place of the client.
    pub(in crate::bus) fn replaced(to: Connection, by: &str) -> Self {
        Self { by: by.to_owned(), ..Self::new(to, CloseReason::Replaced) }
    }

    pub(in crate::bus) const fn new(to: Connection, why: CloseReason) -> Self {
        let why = match why {
            CloseReason::Draining => 1,
            CloseReason::Replaced => 2,
            CloseReason::Removed => 3,
            CloseReason::Unresponsive => 4,
            CloseReason::Unauthenticated => 5,
            CloseReason::Forbidden => 6,
        };
        Self { to, why, by: String::new() }
    }

    pub(in crate::bus) const fn why(&self) -> CloseReason {
        match self.why {
            2 => CloseReason::Replaced,
            3 => CloseReason::Removed,
            4 => CloseReason::Unresponsive,
            5 => CloseReason::Unauthenticated,
            6 => CloseReason::Forbidden,
            _ => CloseReason::Draining,
        }
    }
}

/// Names a client by its serial number and the id that its door gave it: serial numbers begin anew with each process.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct KickClient {
    #[prost(uint64, tag = "1")]
    pub(in crate::bus) serial: u64,
    #[prost(string, tag = "2")]
    pub(in crate::bus) id: String,
}

/// Bytes for the same door of another node.
#[derive(Clone, PartialEq, Message)]
pub(in crate::bus) struct DoorMessage {
    #[prost(string, tag = "1")]
    pub(in crate::bus) door: String,
    #[prost(bytes = "bytes", tag = "2")]
    pub(in crate::bus) message: Bytes,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn requests_and_outcomes_read_back() {
        let now = Instant::now();
        let request = Request {
            id: "r1".to_owned(),
            capability: "users".to_owned(),
            action: "get".to_owned(),
            from: Caller { service: "s".to_owned(), instance: "i".to_owned(), connection: None },
            deadline: now + Duration::from_secs(3),
            retries: 0,
            key: "k".to_owned(),
            responder: Responder::Caller,
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        };
        for responder in [Responder::Caller, Responder::Named(String::new()), Responder::Nobody] {
            let request = Request { responder, ..request.clone() };
            let payload = Payload { json: Bytes::from_static(b"{}"), attachments: vec![Bytes::from_static(&[1, 2])] };
            let remote_request = RemoteRequest {
                to: Connection::default(),
                number: 7,
                request: Arc::new(request.clone()),
                payload: payload.clone(),
            };
            let call = Call::new(&remote_request, Duration::from_secs(3));
            assert_eq!(call.number, 7);
            let (back, same) = call.into_request(now, Duration::from_secs(60));
            assert_eq!((format!("{back:?}"), same), (format!("{request:?}"), payload));
        }
        let answer = Answer { success: true, body: Payload::json(&b"[1]"[..]) };
        let refused = Answer { success: false, body: Payload::default() };
        for outcome in [Ok(answer), Ok(refused), Err(Fault::provider_lost()), Err(Fault::overloaded("x"))] {
            assert_eq!(decode_outcome(encode_outcome(outcome.clone())), outcome);
        }
        for why in [
            CloseReason::Draining,
            CloseReason::Replaced,
            CloseReason::Removed,
            CloseReason::Unresponsive,
            CloseReason::Unauthenticated,
            CloseReason::Forbidden,
        ] {
            assert_eq!(CloseClient::new(Connection::default(), why).why(), why);
        }
    }
}
