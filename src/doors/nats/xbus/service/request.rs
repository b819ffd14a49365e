//! A call of a client: who calls, what is called, and where the replies go.

use bytes::Bytes;
use rollbook_core::security::principal::Kind;

use super::reply::{Answer, Replies};
use crate::bus::access::Access;
use crate::bus::error::Fault;
use crate::doors::nats::xbus::json::control::{FromJson, ToJson};
use crate::doors::nats::xbus::subject::Called;

/// What waits for a client.
pub trait Backlog: std::fmt::Debug + Send + Sync {
    /// Bytes.
    fn waiting(&self) -> usize;
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The book and the live subjects for the client, with its identity.
    pub access: Access,
    /// The number of the connection at this node.
    pub connection: u64,
    /// What waits for the client: a stream pauses while that is much.
    pub backlog: std::sync::Arc<dyn Backlog>,
}

impl Caller {
    /// The name of the account that the client has shown to be, if it has shown one.
    #[must_use]
    pub fn account_name(&self) -> Option<&str> {
        let principal = self.access.identity().principal();
        (principal.kind() == Kind::Actor && !self.access.identity().is_nobody()).then(|| principal.name())
    }
}

/// A call.
#[derive(Debug)]
pub struct Request {
    /// Who calls.
    pub caller: Caller,
    /// What is called.
    pub called: Called,
    /// The payload; a copy, so that what waits does not hold the buffer of the connection.
    pub payload: Bytes,
    /// Sends more than the one message that a handler answers.
    pub replies: Replies,
}

impl Request {
    /// Whether the payload is JSON, and so is the answer.
    #[must_use]
    pub const fn is_json(&self) -> bool {
        self.called.json
    }

    /// Reads the payload in its dialect.
    ///
    /// # Errors
    /// The payload is another message, or none.
    pub fn read<T: prost::Message + Default + FromJson>(&self) -> Result<T, Fault> {
        if self.is_json() {
            return T::from_json(&self.payload).map_err(|error| Fault::bad(error.to_string()));
        }
        self.proto()
    }

    /// A message as an answer, in the dialect of the call.
    pub fn message(&self, message: &(impl prost::Message + ToJson)) -> Answer {
        if self.is_json() { Answer::json(message.to_json()) } else { Answer::proto(message) }
    }

    /// Reads a payload of protobuf.
    ///
    /// # Errors
    /// The payload is another message, or none.
    pub fn proto<T: prost::Message + Default>(&self) -> Result<T, Fault> {
        T::decode(&*self.payload)
            .map_err(|error| Fault::bad(format!("the payload is not the message of the call: {error}")))
    }
}
