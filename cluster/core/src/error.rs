//! Refusals: the one numbered list of reasons why the rules or the cluster do not do what a caller asked.

use alloc::boxed::Box;
use alloc::string::{String, ToString as _};

use crate::time::Timestamp;
use crate::timed::delayed::DelayedId;

/// Which event of a publish repeats a stored event, and which stored event that is. A client whose first answer was
/// lost learns from it that the event is stored, and where.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Repeated {
    /// Position of the repeating event within the publish, from 0.
    #[prost(uint32, tag = "1")]
    pub position: u32,
    /// Sequence number of the stored event; 0 when the number is not known, or when both events are in the same
    /// publish.
    #[prost(uint64, tag = "2")]
    pub sequence: u64,
    /// Id of the stored event, or of the waiting one.
    #[prost(string, tag = "3")]
    pub id: String,
    /// When the stored event was created, if known.
    #[prost(message, optional, tag = "4")]
    pub created_at: Option<Timestamp>,
    /// Whether the event waits for its time: then the sequence number is 0, and `id` is the id of the waiting event. From
    /// feature level `TIMED` on.
    #[prost(bool, tag = "5")]
    pub waits: bool,
}

impl Repeated {
    /// What a refusal says of an event that waits for its time.
    #[must_use]
    pub(crate) fn of_waiting(id: DelayedId, created_at: Option<Timestamp>) -> Self {
        Self { id: id.to_string(), created_at, waits: true, ..Self::default() }
    }
}

/// Why a request was refused. Number and code are stable across releases; the text is for people.
///
/// A refusal means that nothing was stored. The exception is [`Refusal::OutcomeUnknown`]: nobody can say whether the
/// write was stored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The namespace does not exist, and the publish may not create it.
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
    /// An event with this dedupe key and subject was stored within the dedupe window.
    #[error("key was processed before")]
    KeyProcessed(Option<Box<Repeated>>),
    /// The namespace holds an event of this id.
    #[error("event id already exists")]
    EventIdExists(Option<Box<Repeated>>),
    /// The durable consumer was created for another subject.
    #[error("consumer {name} exists with subject {subject}")]
    ConsumerSubject {
        /// Name of the consumer.
        name: String,
        /// The pattern with which the consumer was created.
        subject: String,
    },
    /// The caller asked for a consumer and a group of this name exists, or the reverse.
    #[error("consumer {0} exists with another kind")]
    ConsumerKind(String),
    /// The namespace has no durable consumer of this name.
    #[error("consumer not found: {0}")]
    ConsumerNotFound(String),
    /// The namespace holds as many durable consumers as it may.
    #[error("too many consumers in namespace {0}")]
    ConsumersExhausted(String),
    /// The frame or command cannot be read, or breaks a rule of its form.
    #[error("malformed command: {0}")]
    Malformed(String),
    /// Too much work is waiting, or a maximum is reached: the caller can try again later.
    #[error("overloaded: {0}")]
    Overloaded(String),
    /// The cluster cannot do this now, for example without a leader or quorum; nothing was stored.
    #[error("unavailable: {0}")]
    Unavailable(String),
    /// The answer did not arrive in time: the write may be stored or not.
    #[error("unavailable: outcome unknown: {0}")]
    OutcomeUnknown(String),
    /// Free disk space is below the reserve.
    #[error("insufficient storage: {0}")]
    InsufficientStorage(String),
    /// The store of the node failed.
    #[error("failed to append event to log")]
    Storage,
    /// The cluster has no node of this number.
    #[error("node not found: {0}")]
    NodeNotFound(String),
    /// This change of the membership is not possible, or not now.
    #[error("membership: {0}")]
    Membership(String),
    /// The document has another revision than the caller expects: another caller changed it meanwhile.
    #[error("changed meanwhile: {0}")]
    RevisionMismatch(String),
    /// The roll has no service of this id.
    #[error("service not found: {0}")]
    ServiceNotFound(String),
    /// The service has no connected instance of this id.
    #[error("instance not found: {0}")]
    InstanceNotFound(String),
    /// There is no principal, role, credential or issuer of this name.
    #[error("not found: {0}")]
    SecurityNotFound(String),
    /// This change of principals, roles or credentials is not possible.
    #[error("security: {0}")]
    Security(String),
    /// There is no account, actor, pipeline, envelope or process of this name or id.
    #[error("not found: {0}")]
    XbusNotFound(String),
    /// This change of accounts, actors, pipelines, envelopes or processes is not possible.
    #[error("{0}")]
    Xbus(String),
    /// There is no definition or build of this id.
    #[error("not found: {0}")]
    DockNotFound(String),
    /// This change of definitions or builds is not possible.
    #[error("{0}")]
    Dock(String),
    /// There is no schedule of this name.
    #[error("schedule not found: {0}")]
    ScheduleNotFound(String),
}

/// Checks that a row still has the revision that a caller wants, if the caller wants one. 0: there is no row.
pub(crate) fn check_revision(wanted: Option<u64>, present: u64) -> Result<(), Refusal> {
    match wanted.filter(|wanted| *wanted != present) {
        Some(wanted) => Err(Refusal::RevisionMismatch(alloc::format!("revision is {present}, not {wanted}"))),
        None => Ok(()),
    }
}

impl Refusal {
    /// The stable number of this refusal, as nodes send it to each other.
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
            Self::SecurityNotFound(_) => 22,
            Self::Security(_) => 23,
            Self::XbusNotFound(_) => 24,
            Self::Xbus(_) => 25,
            Self::DockNotFound(_) => 26,
            Self::Dock(_) => 27,
            Self::ScheduleNotFound(_) => 28,
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
            Self::SecurityNotFound(_) => "security_not_found",
            Self::Security(_) => "security",
            Self::XbusNotFound(_) => "xbus_not_found",
            Self::Xbus(_) => "xbus",
            Self::DockNotFound(_) => "dock_not_found",
            Self::Dock(_) => "dock",
            Self::ScheduleNotFound(_) => "schedule_not_found",
        }
    }

    /// One refusal of each kind, in the order of the numbers. The table of docs/refusals.md is made of this list.
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
            Self::SecurityNotFound(s("<name>")),
            Self::Security(s("<detail>")),
            Self::XbusNotFound(s("<name>")),
            Self::Xbus(s("<detail>")),
            Self::DockNotFound(s("<id>")),
            Self::Dock(s("<detail>")),
            Self::ScheduleNotFound(s("<name>")),
        ]
    }

    /// The stored event that a refused publish repeats; `None` for other refusals, or when the event is not known.
    #[must_use]
    pub fn repeated(&self) -> Option<&Repeated> {
        match self {
            Self::KeyProcessed(repeated) | Self::EventIdExists(repeated) => repeated.as_deref(),
            _ => None,
        }
    }

    /// The same refusal with another repeated event. Refusals of other kinds stay as they are.
    #[must_use]
    pub fn with_repeated(self, repeated: Option<Repeated>) -> Self {
        match self {
            Self::KeyProcessed(_) => Self::KeyProcessed(repeated.map(Box::new)),
            Self::EventIdExists(_) => Self::EventIdExists(repeated.map(Box::new)),
            other => other,
        }
    }

    /// The texts that this refusal holds, in order: with the number, everything that another node needs to rebuild it.
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
            | Self::InstanceNotFound(a)
            | Self::SecurityNotFound(a)
            | Self::Security(a)
            | Self::XbusNotFound(a)
            | Self::Xbus(a)
            | Self::DockNotFound(a)
            | Self::Dock(a)
            | Self::ScheduleNotFound(a) => alloc::vec![a],
            Self::ConsumerSubject { name, subject } => alloc::vec![name, subject],
            Self::NamespacesExhausted | Self::KeyProcessed(_) | Self::EventIdExists(_) | Self::Storage => {
                alloc::vec::Vec::new()
            }
        }
    }

    /// The same refusal with other texts. A missing text becomes empty.
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
            | Self::InstanceNotFound(a)
            | Self::SecurityNotFound(a)
            | Self::Security(a)
            | Self::XbusNotFound(a)
            | Self::Xbus(a)
            | Self::DockNotFound(a)
            | Self::Dock(a)
            | Self::ScheduleNotFound(a) => *a = next(),
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
