//! The one numbered list of refusals: why the bus said no.

use alloc::boxed::Box;
use alloc::string::String;

use crate::time::Timestamp;

/// Which event of a publish was stored before, and what is known of the first one.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Repeated {
    /// Which event of the publish, from 0.
    #[prost(uint32, tag = "1")]
    pub position: u32,
    /// Sequence number of the first; 0 when it is not known, or is in the same publish.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// Its id.
    #[prost(string, tag = "3")]
    pub id: String,
    /// When it was created, as far as it is known.
    #[prost(message, optional, tag = "4")]
    pub created_at: Option<Timestamp>,
}

/// Why a request was refused. The number is stable across releases; the text is for people.
///
/// A refusal means that nothing was stored, except [`Refusal::OutcomeUnknown`], which says
/// that it cannot be known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The namespace is neither created nor may it be created by a publish.
    #[error("namespace not found: {0}")]
    NamespaceNotFound(String),
    /// Clients may not write to this namespace.
    #[error("namespace {0} is reserved")]
    NamespaceReserved(String),
    /// A namespace of this name exists.
    #[error("namespace exists: {0}")]
    NamespaceExists(String),
    /// The cluster holds as many namespaces as it may.
    #[error("too many namespaces")]
    NamespacesExhausted,
    /// The dedupe key was used on this subject within the window.
    #[error("key was processed before")]
    KeyProcessed(Option<Box<Repeated>>),
    /// An event of this id is stored in the namespace.
    #[error("event id already exists")]
    EventIdExists(Option<Box<Repeated>>),
    /// The durable consumer was created for another subject.
    #[error("consumer {name} exists with subject {subject}")]
    ConsumerSubject {
        /// Name of the consumer.
        name: String,
        /// The pattern it was created with.
        subject: String,
    },
    /// A group of this name exists where a consumer was asked for, or the reverse.
    #[error("consumer {0} exists with another kind")]
    ConsumerKind(String),
    /// No durable consumer of this name.
    #[error("consumer not found: {0}")]
    ConsumerNotFound(String),
    /// The namespace holds as many durable consumers as it may.
    #[error("too many consumers in namespace {0}")]
    ConsumersExhausted(String),
    /// The frame could not be read: written by a newer node, or damaged.
    #[error("malformed command: {0}")]
    Malformed(String),
    /// Too much is waiting; come back later.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// No leader or no quorum; nothing was stored.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The answer did not come in time: the write may or may not have been stored.
    #[error("unavailable: outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// Free disk space is below the reserve.
    #[error("insufficient storage: {0}")]
    InsufficientStorage(String),
    /// The store failed.
    #[error("failed to append event to log")]
    Storage,
    /// There is no node of this number in the cluster.
    #[error("node not found: {0}")]
    NodeNotFound(String),
    /// The cluster cannot be changed like this now.
    #[error("membership: {0}")]
    Membership(String),
    /// It was changed by somebody else meanwhile.
    #[error("changed meanwhile: {0}")]
    RevisionMismatch(String),
    /// No service of this id.
    #[error("service not found: {0}")]
    ServiceNotFound(String),
    /// No connected instance of this id.
    #[error("instance not found: {0}")]
    InstanceNotFound(String),
}

impl Refusal {
    /// Stable number of this refusal.
    #[must_use]
    pub const fn number(&self) -> u16 {
        match self {
            Self::NamespaceNotFound(_) => 1,
            Self::NamespaceReserved(_) => 2,
            Self::NamespaceExists(_) => 3,
            Self::NamespacesExhausted => 4,
            Self::KeyProcessed(_) => 5,
            Self::EventIdExists(_) => 6,
            Self::ConsumerSubject { .. } => 7,
            Self::ConsumerKind(_) => 8,
            Self::ConsumerNotFound(_) => 9,
            Self::ConsumersExhausted(_) => 10,
            Self::Malformed(_) => 11,
            Self::Overloaded(_) => 12,
            Self::Unavailable(_) => 13,
            Self::OutcomeUnknown(_) => 14,
            Self::InsufficientStorage(_) => 15,
            Self::Storage => 16,
            Self::NodeNotFound(_) => 17,
            Self::Membership(_) => 18,
            Self::RevisionMismatch(_) => 19,
            Self::ServiceNotFound(_) => 20,
            Self::InstanceNotFound(_) => 21,
        }
    }

    /// Short machine-readable name, used in problem+json and as a metric label.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NamespaceNotFound(_) => "namespace_not_found",
            Self::NamespaceReserved(_) => "namespace_reserved",
            Self::NamespaceExists(_) => "namespace_exists",
            Self::NamespacesExhausted => "namespaces_exhausted",
            Self::KeyProcessed(_) => "key_processed",
            Self::EventIdExists(_) => "event_id_exists",
            Self::ConsumerSubject { .. } => "consumer_subject",
            Self::ConsumerKind(_) => "consumer_kind",
            Self::ConsumerNotFound(_) => "consumer_not_found",
            Self::ConsumersExhausted(_) => "consumers_exhausted",
            Self::Malformed(_) => "malformed",
            Self::Overloaded(_) => "overloaded",
            Self::Unavailable(_) => "unavailable",
            Self::OutcomeUnknown(_) => "outcome_unknown",
            Self::InsufficientStorage(_) => "insufficient_storage",
            Self::Storage => "storage",
            Self::NodeNotFound(_) => "node_not_found",
            Self::Membership(_) => "membership",
            Self::RevisionMismatch(_) => "revision_mismatch",
            Self::ServiceNotFound(_) => "service_not_found",
            Self::InstanceNotFound(_) => "instance_not_found",
        }
    }

    /// One of each, in the order of their numbers: the table of docs/refusals.md.
    #[must_use]
    pub fn all() -> alloc::vec::Vec<Self> {
        let s = String::from;
        alloc::vec![
            Self::NamespaceNotFound(s("<name>")),
            Self::NamespaceReserved(s("<name>")),
            Self::NamespaceExists(s("<name>")),
            Self::NamespacesExhausted,
            Self::KeyProcessed(None),
            Self::EventIdExists(None),
            Self::ConsumerSubject { name: s("<name>"), subject: s("<subject>") },
            Self::ConsumerKind(s("<name>")),
            Self::ConsumerNotFound(s("<name>")),
            Self::ConsumersExhausted(s("<namespace>")),
            Self::Malformed(s("<detail>")),
            Self::Overloaded(s("<detail>")),
            Self::Unavailable(s("<detail>")),
            Self::OutcomeUnknown(s("<detail>")),
            Self::InsufficientStorage(s("<detail>")),
            Self::Storage,
            Self::NodeNotFound(s("<number>")),
            Self::Membership(s("<detail>")),
            Self::RevisionMismatch(s("<detail>")),
            Self::ServiceNotFound(s("<id>")),
            Self::InstanceNotFound(s("<id>")),
        ]
    }

    /// What a publish repeats, when that is why it was refused and the rules said which event it is.
    #[must_use]
    pub fn repeated(&self) -> Option<&Repeated> {
        match self {
            Self::KeyProcessed(repeated) | Self::EventIdExists(repeated) => repeated.as_deref(),
            _ => None,
        }
    }

    /// The same refusal of a publish that repeats this.
    #[must_use]
    pub fn with_repeated(self, repeated: Option<Repeated>) -> Self {
        match self {
            Self::KeyProcessed(_) => Self::KeyProcessed(repeated.map(Box::new)),
            Self::EventIdExists(_) => Self::EventIdExists(repeated.map(Box::new)),
            other => other,
        }
    }

    /// The words that this refusal carries, in order.
    #[must_use]
    pub fn details(&self) -> alloc::vec::Vec<&str> {
        match self {
            Self::NamespaceNotFound(a)
            | Self::NamespaceReserved(a)
            | Self::NamespaceExists(a)
            | Self::ConsumerKind(a)
            | Self::ConsumerNotFound(a)
            | Self::ConsumersExhausted(a)
            | Self::Malformed(a)
            | Self::Overloaded(a)
            | Self::Unavailable(a)
            | Self::OutcomeUnknown(a)
            | Self::InsufficientStorage(a)
            | Self::NodeNotFound(a)
            | Self::Membership(a)
            | Self::RevisionMismatch(a)
            | Self::ServiceNotFound(a)
            | Self::InstanceNotFound(a) => alloc::vec![a],
            Self::ConsumerSubject { name, subject } => alloc::vec![name, subject],
            Self::NamespacesExhausted | Self::KeyProcessed(_) | Self::EventIdExists(_) | Self::Storage => {
                alloc::vec::Vec::new()
            }
        }
    }

    /// The same refusal with other words; those that are missing are empty.
    #[must_use]
    pub fn with_details(&self, details: alloc::vec::Vec<String>) -> Self {
        let mut refusal = self.clone();
        let mut details = details.into_iter();
        let mut next = || details.next().unwrap_or_default();
        match &mut refusal {
            Self::NamespaceNotFound(a)
            | Self::NamespaceReserved(a)
            | Self::NamespaceExists(a)
            | Self::ConsumerKind(a)
            | Self::ConsumerNotFound(a)
            | Self::ConsumersExhausted(a)
            | Self::Malformed(a)
            | Self::Overloaded(a)
            | Self::Unavailable(a)
            | Self::OutcomeUnknown(a)
            | Self::InsufficientStorage(a)
            | Self::NodeNotFound(a)
            | Self::Membership(a)
            | Self::RevisionMismatch(a)
            | Self::ServiceNotFound(a)
            | Self::InstanceNotFound(a) => *a = next(),
            Self::ConsumerSubject { name, subject } => (*name, *subject) = (next(), next()),
            Self::NamespacesExhausted | Self::KeyProcessed(_) | Self::EventIdExists(_) | Self::Storage => {}
        }
        refusal
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_dense_and_in_the_order_of_the_list() {
        for (at, refusal) in Refusal::all().iter().enumerate() {
            assert_eq!(usize::from(refusal.number()), at + 1, "{refusal:?}");
        }
    }
}
