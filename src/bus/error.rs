//! Why the bus says no to a client. Doors map the kind of a fault to their codes; no number of a protocol is here.

use std::borrow::Cow;
use std::fmt;

use rollbook_core::error::{Refusal, Repeated};
use rollbook_core::time::Timestamp;

use crate::base::fault::FaultKind;

/// Why a client does not get what it asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What doors map to their codes.
    pub kind: FaultKind,
    /// For people.
    pub text: Cow<'static, str>,
    /// The event that is stored already, when the publish of a single one repeats it and it is known.
    pub first: Option<Box<First>>,
}

/// An event that a publish repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct First {
    /// Its id.
    pub id: String,
    /// Its time, as far as it is known.
    pub created_at: Option<Timestamp>,
    /// Its position.
    pub index: u64,
}

impl Fault {
    /// A fault of that kind.
    pub fn new(kind: FaultKind, text: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, text: text.into(), first: None }
    }

    /// The client asks for something that cannot be.
    pub fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultKind::BadRequest, text)
    }

    /// Too much is in flight.
    pub fn overloaded(text: impl Into<Cow<'static, str>>) -> Self {
        Self::new(FaultKind::Overloaded, text)
    }

    /// Not now: later, or elsewhere.
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
        Self::said(FaultKind::NotRegistered, "register first")
    }

    /// The provider of a request went away before it answered.
    #[must_use]
    pub const fn provider_lost() -> Self {
        Self::said(FaultKind::ProviderLost, "the provider was lost before it answered")
    }

    /// The time of a request was over before there was an answer.
    #[must_use]
    pub const fn deadline_exceeded() -> Self {
        Self::said(FaultKind::DeadlineExceeded, "no answer in time")
    }

    /// The node stops, or the caller is gone.
    #[must_use]
    pub const fn cancelled() -> Self {
        Self::said(FaultKind::Cancelled, "cancelled")
    }

    const fn said(kind: FaultKind, text: &'static str) -> Self {
        Self { kind, text: Cow::Borrowed(text), first: None }
    }

    /// The code of its kind.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        self.kind.code()
    }

    /// Why a batch is refused: the text says which of its events is the reason.
    #[must_use]
    pub fn of_batch(refusal: &Refusal) -> Self {
        let kind = FaultKind::from(refusal);
        let Some(repeated) = refusal.repeated() else { return Self::new(kind, refusal.to_string()) };
        let item = u64::from(repeated.position).saturating_add(1);
        let stored = if repeated.sequence == 0 { String::new() } else { format!(", index {}", repeated.sequence) };
        Self::new(kind, format!("{refusal}: item {item} of the batch{stored}"))
    }

    /// Why a registration or a notification is refused. Services are told less than publishers: whether to come again
    /// later, or that something is wrong with what they say.
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
        let first = refusal.repeated().filter(|repeated| repeated.sequence > 0).map(|repeated| {
            let Repeated { sequence, id, created_at, .. } = repeated.clone();
            Box::new(First { id, created_at, index: sequence })
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
        for (refusal, told) in [
            (Refusal::Overloaded(String::new()), ("overloaded", "unavailable")),
            (Refusal::Unavailable(String::new()), ("unavailable", "unavailable")),
            (Refusal::OutcomeUnknown(String::new()), ("unavailable", "unavailable")),
            (Refusal::InsufficientStorage(String::new()), ("unavailable", "unavailable")),
            (Refusal::Storage, ("unavailable", "internal")),
            (Refusal::KeyProcessed(None), ("bad_request", "conflict")),
            (Refusal::Malformed(String::new()), ("bad_request", "bad_request")),
            (Refusal::InstanceNotFound(String::new()), ("bad_request", "bad_request")),
        ] {
            assert_eq!(codes(refusal.clone()), told, "{refusal:?}");
        }
    }
}
