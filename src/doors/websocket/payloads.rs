//! What the frames of clients say, checked field by field. Pure.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use rollbook_core::event::headers::HeaderList;
use rollbook_core::service::{Capability, Instance, InstanceRegister, Service};

use super::settings::NAME;
use crate::bus::client::call::{Answer, Responder};
use crate::bus::subscribe::request::Subscribe;
use crate::bus::write::draft::Draft;

/// What a client says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ClientFrame {
    Register(RegisterPayload),
    Message(MessagePayload),
    /// An answer, or the failure of what was asked.
    Answer {
        id: String,
        answer: Answer,
    },
    Broadcast {
        id: Option<String>,
        payload: Bytes,
    },
    /// A command of the operator was understood.
    Done {
        id: u64,
        /// Something there takes it.
        handled: bool,
    },
    Publish(Box<PublishPayload>),
    Subscribe(Box<SubscribePayload>),
    Ack {
        id: String,
        event: String,
    },
    Unsubscribe {
        id: String,
    },
    Disconnect,
    Ping,
    /// Means nothing, but is a sign of life.
    Pong,
}

impl ClientFrame {
    /// The id under which it is answered.
    pub(super) fn id(&self) -> Option<&str> {
        match self {
            Self::Message(message) => Some(&message.id),
            Self::Publish(publishes) => Some(&publishes.id),
            Self::Subscribe(subscribes) => Some(&subscribes.id),
            Self::Ack { id, .. } | Self::Unsubscribe { id } => Some(id),
            _ => None,
        }
    }
}

/// A registration: of a service, or of a consumer when there are no methods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RegisterPayload {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) methods: Vec<String>,
    pub(super) instance: Option<String>,
    /// JSON; empty when there is none.
    pub(super) metadata: String,
}

impl RegisterPayload {
    /// What it means: a service with one capability of its own name.
    pub(super) fn into_register(self) -> InstanceRegister {
        let Self { name, version, methods, instance, metadata } = self;
        let capability = Capability { name: name.clone(), description: String::new(), actions: methods };
        let instance = Instance {
            id: instance.unwrap_or_else(|| uuid::Uuid::new_v4().to_string()),
            service: name.clone(),
            door: NAME.to_owned(),
            version: version.clone(),
            capabilities: vec![capability],
            metadata,
            ..Instance::default()
        };
        // No name for people and no kind: those that the service may have stay.
        let service = Service { id: name, version, ..Service::default() };
        InstanceRegister { service, instance }
    }
}

/// A message on its way to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MessagePayload {
    pub(super) id: String,
    pub(super) service: String,
    pub(super) method: String,
    pub(super) consumer: Option<String>,
    pub(super) responder: Responder,
    pub(super) payload: Bytes,
    pub(super) timeout: Option<Duration>,
    pub(super) key: String,
    pub(super) traceparent: Option<String>,
}

/// An event for the book.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublishPayload {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) response_subject: String,
    pub(super) key: String,
    pub(super) trace_id: String,
    pub(super) event_id: String,
    pub(super) created_at: Option<String>,
    pub(super) headers: HeaderList,
    pub(super) payload: Option<Bytes>,
}

impl PublishPayload {
    /// As the book takes it.
    pub(super) fn draft(&self) -> Draft<'_> {
        Draft {
            id: (&*self.event_id).into(),
            trace_id: (&*self.trace_id).into(),
            key: (&*self.key).into(),
            subject: (&*self.subject).into(),
            response_subject: (&*self.response_subject).into(),
            created_at: self.created_at.as_deref().map(Cow::from),
            headers: self.headers.clone(),
            payload: self
                .payload
                .as_deref()
                .and_then(|payload| serde_json::from_slice(payload).ok())
                .map(Cow::Borrowed),
        }
    }
}

/// A stream of the book.
#[derive(Debug, Clone)]
pub(super) struct SubscribePayload {
    pub(super) id: String,
    pub(super) wanted: Subscribe,
}

impl PartialEq for SubscribePayload {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}
