//! The kinds of faults that clients get, and their codes. `net::http::status` maps each kind to an HTTP status; doors
//! with codes of their own have their own table.

use rollbook_core::error::Refusal;

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The request is invalid.
    BadRequest,
    /// The request is larger than allowed.
    TooLarge,
    /// The named thing does not exist.
    NotFound,
    /// The thing exists already, or is something else.
    Conflict,
    /// Somebody else has changed the thing meanwhile.
    Stale,
    /// The client has shown no credential, or one that does not count.
    Unauthenticated,
    /// The client may not do this.
    Forbidden,
    /// The client must register first.
    NotRegistered,
    /// No instance offers the capability.
    NoCapability,
    /// Instances offer the capability, but none of them the action.
    NoAction,
    /// No instance that offers the capability can be asked now.
    NoProvider,
    /// The provider disconnected before it answered.
    ProviderLost,
    /// The deadline passed without an answer.
    DeadlineExceeded,
    /// Too many requests of the client, or to the provider, are in flight.
    Overloaded,
    /// The node or the cluster cannot do this now; later, or another node, may succeed.
    Unavailable,
    /// The disk is full.
    StorageFull,
    /// The node stops, or the caller has disconnected.
    Cancelled,
    /// The node has failed.
    Internal,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::BadRequest,
        Self::TooLarge,
        Self::NotFound,
        Self::Conflict,
        Self::Stale,
        Self::Unauthenticated,
        Self::Forbidden,
        Self::NotRegistered,
        // In front of the other two: see `from_code`.
        Self::NoProvider,
        Self::NoCapability,
        Self::NoAction,
        Self::ProviderLost,
        Self::DeadlineExceeded,
        Self::Overloaded,
        Self::Unavailable,
        Self::StorageFull,
        Self::Cancelled,
        Self::Internal,
    ];

    /// The code that clients and other nodes get. Kinds that clients treat alike share one.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest | Self::TooLarge | Self::NotFound | Self::Stale => "bad_request",
            Self::Conflict => "conflict",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotRegistered => "not_registered",
            Self::NoCapability | Self::NoAction | Self::NoProvider => "no_provider",
            Self::ProviderLost => "provider_lost",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Overloaded => "overloaded",
            Self::Unavailable | Self::StorageFull => "unavailable",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
        }
    }

    /// The kind of a code, the most general one where kinds share it; `None` for an unknown code.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// The kind of a refusal of the rules or the cluster, for a client that writes to the book.
impl From<&Refusal> for FaultKind {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NamespaceNotFound(_) | Refusal::NamespaceReserved(_) | Refusal::Malformed(_) => Self::BadRequest,
            Refusal::ConsumerNotFound(_)
            | Refusal::NodeNotFound(_)
            | Refusal::ServiceNotFound(_)
            | Refusal::InstanceNotFound(_)
            | Refusal::SecurityNotFound(_)
            | Refusal::XbusNotFound(_)
            | Refusal::DockNotFound(_)
            | Refusal::ScheduleNotFound(_) => Self::NotFound,
            Refusal::NamespaceExists(_)
            | Refusal::KeyProcessed(_)
            | Refusal::EventIdExists(_)
            | Refusal::ConsumerSubject { .. }
            | Refusal::ConsumerKind(_)
            | Refusal::NamespacesExhausted
            | Refusal::ConsumersExhausted(_)
            | Refusal::Membership(_)
            | Refusal::Security(_)
            | Refusal::Xbus(_)
            | Refusal::Dock(_) => Self::Conflict,
            Refusal::RevisionMismatch(_) => Self::Stale,
            Refusal::Overloaded(_) | Refusal::Unavailable(_) | Refusal::OutcomeUnknown(_) => Self::Unavailable,
            Refusal::InsufficientStorage(_) => Self::StorageFull,
            Refusal::Storage => Self::Internal,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_reads_back_as_a_kind_of_the_same_code() {
        for kind in FaultKind::ALL {
            assert_eq!(FaultKind::from_code(kind.code()).map(FaultKind::code), Some(kind.code()), "{kind:?}");
        }
        assert_eq!(FaultKind::from_code("no_provider"), Some(FaultKind::NoProvider));
        assert_eq!(FaultKind::from_code("unavailable"), Some(FaultKind::Unavailable));
        assert_eq!(FaultKind::from_code("bad_request"), Some(FaultKind::BadRequest));
        assert_eq!(FaultKind::from_code("teapot"), None);
    }
}
