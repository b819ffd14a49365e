//! Why the bus refuses a request of a client. Each door maps the kind of a fault to its own codes; no number of a
//! protocol is here.

use std::borrow::Cow;
use std::fmt;

use rollbook_cluster::error::ReadError;
use rollbook_core::error::{Refusal, Repeated};
use rollbook_core::time::Timestamp;
use rollbook_core::timed::delayed::DelayedId;

use crate::base::fault::FaultKind;

/// Why a client does not get what it asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The class of the fault, which doors map to their codes.
    pub kind: FaultKind,
    /// An explanation for people.
    pub text: Cow<'static, str>,
    /// The stored event that a single publish repeats, when the refusal names one.
    pub first: Option<Box<First>>,
    /// After how many seconds a retry may succeed, when the bus knows; else doors say what fits their clients.
    pub retry_after: Option<u64>,
}

/// The stored event that a publish repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// Id of the event.
    pub id: String,
    /// Time of the event, if it is known.
    pub created_at: Option<Timestamp>,
    /// Position of the event; 0 while it waits.
    pub index: u64,
    /// Whether the event waits for its time. `id` is then the id under which it waits.
    pub waits: bool,
}

impl First {
    /// When the event is due, if it waits.
    #[must_use]
    pub fn due(&self) -> Option<Timestamp> {
        let id = DelayedId::parse(&self.id).filter(|_| self.waits)?;
        Some(Timestamp::from_millis(id.due))
    }
}

/// The store of the node failed.
impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::internal(error.to_string())
    }
}

impl Fault {
    /// A fault of this kind.
    pub fn new(kind: FaultKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, text: text.into(), first: None, retry_after: None }
    }

    /// The request is invalid.
    pub fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultKind::BadRequest, text)
    }

    /// Too many requests or bytes are in flight.
    pub fn overloaded(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultKind::Overloaded, text)
    }

    /// The node cannot do this now; later, or another node, may succeed.
    pub fn unavailable(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultKind::Unavailable, text)
    }

    /// The node has failed.
    pub fn internal(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultKind::Internal, text)
    }

    /// The client must register first.
    #[must_use]
    pub const fn not_registered() -> Self {
        Self::fixed(FaultKind::NotRegistered, "register first")
    }

    /// The provider disconnected before it answered.
    #[must_use]
    pub const fn provider_lost() -> Self {
        Self::fixed(FaultKind::ProviderLost, "the provider was lost before it answered")
    }

    /// The deadline of a request passed without an answer.
    #[must_use]
    pub const fn deadline_exceeded() -> Self {
        Self::fixed(FaultKind::DeadlineExceeded, "no answer in time")
    }

    /// The node stops, or the caller has disconnected.
    #[must_use]
    pub const fn cancelled() -> Self {
        Self::fixed(FaultKind::Cancelled, "cancelled")
    }

    /// A fault with a constant text.
    const fn fixed(kind: FaultKind, text: &'static str) -> Self {
        Self { kind, text: Cow::Borrowed(text), first: None, retry_after: None }
    }

    /// The code of the kind, as clients see it.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// Why a batch is refused. The text names the event that is the reason.
    #[must_use]
    pub fn of_batch(refusal: &Refusal) -> Self {
        let kind = FaultKind::from(refusal);
        let Some(repeated) = refusal.repeated() else { return Self::new(kind, refusal.to_string()) };
        let item = u64::from(repeated.position).saturating_add(1);
        let stored = match repeated.sequence {
            0 if repeated.waits => format!(", which waits as {}", repeated.id),
            0 => String::new(),
            sequence => format!(", index {sequence}"),
        };
        Self::new(kind, format!("{refusal}: item {item} of the batch{stored}"))
    }

    /// Why a registration or a notification is refused. Services need fewer distinctions than publishers: either a
    /// retry may succeed later, or the request is invalid.
    #[must_use]
    pub fn of_service(refusal: &Refusal) -> Self {
        let kind = match (refusal, FaultKind::from(refusal)) {
            (Refusal::Overloaded(_), _) => FaultKind::Overloaded,
            (_, FaultKind::Unavailable | FaultKind::StorageFull | FaultKind::Internal) => FaultKind::Unavailable,
            _ => FaultKind::BadRequest,
        };
        Self::new(kind, refusal.to_string())
    }
}

/// Why a publish or a stream is refused.
impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Self {
        let first = refusal.repeated().filter(|repeated| repeated.sequence > 0 || repeated.waits).map(|repeated| {
            let Repeated { sequence, id, created_at, waits, .. } = repeated.clone();
            Box::new(First { id, created_at, index: sequence, waits })
        });
        Self { first, ..Self::new(FaultKind::from(&refusal), refusal.to_string()) }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Fault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishers_and_services_are_told_the_same_refusal_in_their_ways() {
        let codes = |refusal: Refusal| (Fault::of_service(&refusal).code(), Fault::from(refusal).code());
        for (refusal, wanted) in [
            (Refusal::Overloaded(String::new()), ("overloaded", "unavailable")),
            (Refusal::Unavailable(String::new()), ("unavailable", "unavailable")),
            (Refusal::OutcomeUnknown(String::new()), ("unavailable", "unavailable")),
            (Refusal::InsufficientStorage(String::new()), ("unavailable", "unavailable")),
            (Refusal::Storage, ("unavailable", "internal")),
            (Refusal::KeyProcessed(None), ("bad_request", "conflict")),
            (Refusal::Malformed(String::new()), ("bad_request", "bad_request")),
            (Refusal::InstanceNotFound(String::new()), ("bad_request", "bad_request")),
        ] {
            assert_eq!(codes(refusal.clone()), wanted, "{refusal:?}");
        }
    }
}
