//! The kinds of faults that clients are told of, and the one table of their codes. Which status of HTTP a kind has is in
//! `net::http::status`; doors with codes of their own map kinds to them.

use rollbook_core::error::Refusal;

/// What kind of fault it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// The client asks for something that cannot be.
    BadRequest,
    /// What the client sends is larger than it may be.
    TooLarge,
    /// There is none of what the client names.
    NotFound,
    /// It is there already, or is something else.
    Conflict,
    /// It was changed by somebody else meanwhile.
    Stale,
    /// This client may not do it.
    Forbidden,
    /// The client must register first.
    NotRegistered,
    /// No instance offers the capability that is asked for.
    NoCapability,
    /// Instances offer the capability, but none of them the action.
    NoAction,
    /// Those who offer the capability cannot be asked now.
    NoProvider,
    /// The provider went away before it answered.
    ProviderLost,
    /// The time was over before there was an answer.
    DeadlineExceeded,
    /// Too much of the client, or for the provider, is in flight.
    Overloaded,
    /// The node or the cluster cannot do it now: later, or elsewhere.
    Unavailable,
    /// There is no room on the disk.
    StorageFull,
    /// The node stops, or the caller is gone.
    Cancelled,
    /// The node has failed.
    Internal,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 17] = [
        Self::BadRequest,
        Self::TooLarge,
        Self::NotFound,
        Self::Conflict,
        Self::Stale,
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

    /// Short machine-readable name, as clients and other nodes are told it. Kinds that a client treats alike share one.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::BadRequest | Self::TooLarge | Self::NotFound | Self::Stale => "bad_request",
            Self::Conflict => "conflict",
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

    /// The kind of that code, the most general one where kinds share it; `None` when there is no such code. What is
    /// missing of a provider is not in the code: another node is asked for a provider that was found.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }
}

/// What a refusal of the rules or the cluster means for whoever wrote to the book.
impl From<&Refusal> for FaultKind {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NamespaceNotFound(_) | Refusal::NamespaceReserved(_) | Refusal::Malformed(_) => Self::BadRequest,
            Refusal::ConsumerNotFound(_)
            | Refusal::NodeNotFound(_)
            | Refusal::ServiceNotFound(_)
            | Refusal::InstanceNotFound(_) => Self::NotFound,
            Refusal::NamespaceExists(_)
            | Refusal::KeyProcessed(_)
            | Refusal::EventIdExists(_)
            | Refusal::ConsumerSubject { .. }
            | Refusal::ConsumerKind(_)
            | Refusal::NamespacesExhausted
            | Refusal::ConsumersExhausted(_)
            | Refusal::Membership(_) => Self::Conflict,
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
