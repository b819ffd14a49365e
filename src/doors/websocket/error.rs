//! The error codes of this door, and the one table that maps the faults of the bus to them.

use crate::base::fault::FaultKind;

/// An error code. The README of this door explains each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ErrorCode {
    BadJson,
    BadMessage,
    BadRegistration,
    NotRegistered,
    AlreadyRegistered,
    Forbidden,
    Unauthenticated,
    ConsumerMismatch,
    DuplicateId,
    UnknownRequest,
    Timeout,
    InstanceLost,
    Overloaded,
    Unavailable,
    Conflict,
    Internal,
}

impl ErrorCode {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::BadJson => "bad_json",
            Self::BadMessage => "bad_message",
            Self::BadRegistration => "bad_registration",
            Self::NotRegistered => "not_registered",
            Self::AlreadyRegistered => "already_registered",
            Self::Forbidden => "forbidden",
            Self::Unauthenticated => "unauthenticated",
            Self::ConsumerMismatch => "consumer_mismatch",
            Self::DuplicateId => "duplicate_id",
            Self::UnknownRequest => "unknown_request",
            Self::Timeout => "timeout",
            Self::InstanceLost => "instance_lost",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::Conflict => "conflict",
            Self::Internal => "internal",
        }
    }

    pub(super) const fn retryable(self) -> bool {
        matches!(self, Self::InstanceLost | Self::Overloaded | Self::Unavailable | Self::Internal)
    }
}

/// The one table that maps the faults of the bus to the codes of this door.
impl From<FaultKind> for ErrorCode {
    fn from(kind: FaultKind) -> Self {
        match kind {
            FaultKind::BadRequest | FaultKind::TooLarge | FaultKind::NotFound | FaultKind::Stale => Self::BadMessage,
            FaultKind::Conflict => Self::Conflict,
            FaultKind::Forbidden => Self::Forbidden,
            FaultKind::Unauthenticated => Self::Unauthenticated,
            FaultKind::NotRegistered => Self::NotRegistered,
            FaultKind::ProviderLost => Self::InstanceLost,
            FaultKind::DeadlineExceeded => Self::Timeout,
            FaultKind::Overloaded => Self::Overloaded,
            // A message that no provider could take has the frame `unhandled`; other frames have this code.
            FaultKind::NoCapability | FaultKind::NoAction | FaultKind::NoProvider => Self::Unavailable,
            FaultKind::Unavailable | FaultKind::StorageFull | FaultKind::Cancelled => Self::Unavailable,
            FaultKind::Internal => Self::Internal,
        }
    }
}

/// Why a frame is refused, with the id of its message if the id could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FrameError {
    pub(super) code: ErrorCode,
    pub(super) id: Option<String>,
    pub(super) text: String,
}

impl FrameError {
    pub(super) fn new(code: ErrorCode, text: impl Into<String>) -> Self {
        Self { code, id: None, text: text.into() }
    }

    pub(super) fn of(self, id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..self }
    }
}
