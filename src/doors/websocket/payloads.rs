//! The contents of client frames, checked field by field. Pure.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use rollbook_core::event::headers::HeaderList;
use rollbook_core::service::{Capability, Instance, InstanceRegister, Service};

use super::settings::NAME;
use crate::bus::client::call::{Answer, Responder};
use crate::bus::delivery::acknowledgement::Acknowledgement;
use crate::bus::subscribe::request::Subscribe;
use crate::bus::write::draft::Draft;

/// A frame of a client.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum ClientFrame {
    Register(RegisterPayload),
    Message(MessagePayload),
    /// The response to a request, or its failure.
    Answer {
        id: String,
        answer: Answer,
    },
    Broadcast {
        id: Option<String>,
        payload: Bytes,
    },
    /// The client got a command of the operator.
    Done {
        id: u64,
        /// Whether the client takes the command.
        handled: bool,
    },
    Publish(Box<PublishPayload>),
    Subscribe(Box<SubscribePayload>),
    Ack {
        id: String,
        said: Acknowledgement,
    },
    Unsubscribe {
        id: String,
    },
    Disconnect,
    Ping,
    /// Means nothing, but counts as a sign of life.
    Pong,
}

impl ClientFrame {
    /// The id under which the client expects an answer.
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
#[derive(Debug, Clone, PartialEq)]
pub(super) struct RegisterPayload {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) methods: Vec<String>,
    pub(super) instance: Option<String>,
    /// JSON; empty when the frame has none.
    pub(super) metadata: String,
    /// What the bus subscribes to for the client.
    pub(super) listeners: Vec<SubscribePayload>,
}

impl RegisterPayload {
    /// Builds the registration of a service with one capability, which has the name of the service.
    pub(super) fn into_register(self) -> InstanceRegister {
        let Self { name, version, methods, instance, metadata, .. } = self;
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
        // Display name and type stay empty, so that the service keeps those it has.
        let service = Service { id: name, version, ..Service::default() };
        InstanceRegister { service, instance }
    }
}

/// A message for a service.
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

/// An event to publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PublishPayload {
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) response_subject: String,
    pub(super) key: String,
    pub(super) trace_id: String,
    pub(super) event_id: String,
    pub(super) created_at: Option<String>,
    pub(super) delay: Option<Duration>,
    pub(super) at: String,
    pub(super) headers: HeaderList,
    pub(super) payload: Option<Bytes>,
}

impl PublishPayload {
    /// Builds the draft of the event.
    pub(super) fn draft(&self) -> Draft<'_> {
        Draft {
            id: (&*self.event_id).into(),
            trace_id: (&*self.trace_id).into(),
            key: (&*self.key).into(),
            subject: (&*self.subject).into(),
            response_subject: (&*self.response_subject).into(),
            created_at: self.created_at.as_deref().map(Cow::from),
            delay: self.delay,
            at: (&*self.at).into(),
            headers: self.headers.clone(),
            payload: self
                .payload
                .as_deref()
                .and_then(|payload| serde_json::from_slice(payload).ok())
                .map(Cow::Borrowed),
        }
    }
}

/// A subscription of a stream.
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
