//! A live request and what becomes of it: never through the log, at most once, with a deadline.

use std::time::Instant;

use bytes::Bytes;
use rollbook_core::error::Refusal;
use rollbook_core::service::Connection;

/// JSON text, with the binary parts that its placeholders stand for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Body {
    /// JSON exactly as it came; empty when there is none.
    pub json: Bytes,
    /// In the order of their numbers.
    pub attachments: Vec<Bytes>,
}

impl Body {
    /// JSON without binary parts.
    #[must_use]
    pub fn json(json: impl Into<Bytes>) -> Self {
        Self { json: json.into(), attachments: Vec::new() }
    }

    /// Its text; `null` when there is none.
    #[must_use]
    pub fn text(&self) -> &str {
        match std::str::from_utf8(&self.json) {
            Ok("") | Err(_) => "null",
            Ok(text) => text,
        }
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.attachments.iter().fold(self.json.len(), |sum, part| sum.saturating_add(part.len()))
    }

    /// Whether there is nothing in it.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Who asks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Caller {
    /// The service it is an instance of; empty when it is none.
    pub service: String,
    /// Its instance id; empty when it is none.
    pub instance: String,
    /// Its connection, so that it is not asked itself.
    pub connection: Option<Connection>,
}

/// A request, as the router takes it.
#[derive(Debug, Clone)]
pub struct Request {
    /// The caller's own name for it.
    pub id: String,
    /// A capability, or the id of a service.
    pub capability: String,
    /// What is to be done; may be empty.
    pub action: String,
    /// With what.
    pub payload: Body,
    /// Who asks.
    pub from: Caller,
    /// When nobody waits for the answer any more.
    pub deadline: Instant,
    /// How many other providers may be tried when one is lost: the caller says that doing it twice does no harm.
    pub retries: u32,
    /// Requests with the same key go to the same instance, when the strategy of the capability is `sticky`.
    pub key: String,
}

/// What a provider says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answer {
    /// Whether it did what was asked.
    pub success: bool,
    /// The data, or the error when it did not.
    pub body: Body,
}

/// Why there is no answer. The same codes on every door.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Nobody who could do it is there.
    #[error("{0}")]
    NoProvider(String),
    /// The provider went away before it answered.
    #[error("the provider was lost before it answered")]
    ProviderLost,
    /// The time was over before there was an answer.
    #[error("no answer in time")]
    DeadlineExceeded,
    /// Too much is in flight.
    #[error("{0}")]
    Overloaded(String),
    /// The request itself is wrong.
    #[error("{0}")]
    BadRequest(String),
    /// This client may not do it.
    #[error("{0}")]
    Forbidden(String),
    /// The client must register first.
    #[error("register first")]
    NotRegistered,
    /// The cluster cannot do it now.
    #[error("{0}")]
    Unavailable(String),
    /// The node stops, or the caller is gone.
    #[error("cancelled")]
    Cancelled,
}

impl CallError {
    /// Short machine-readable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoProvider(_) => "no_provider",
            Self::ProviderLost => "provider_lost",
            Self::DeadlineExceeded => "deadline_exceeded",
            Self::Overloaded(_) => "overloaded",
            Self::BadRequest(_) => "bad_request",
            Self::Forbidden(_) => "forbidden",
            Self::NotRegistered => "not_registered",
            Self::Unavailable(_) => "unavailable",
            Self::Cancelled => "cancelled",
        }
    }

    /// The error of that code; `None` when there is no such code.
    #[must_use]
    pub fn from_code(code: &str, text: String) -> Option<Self> {
        Some(match code {
            "no_provider" => Self::NoProvider(text),
            "provider_lost" => Self::ProviderLost,
            "deadline_exceeded" => Self::DeadlineExceeded,
            "overloaded" => Self::Overloaded(text),
            "bad_request" => Self::BadRequest(text),
            "forbidden" => Self::Forbidden(text),
            "not_registered" => Self::NotRegistered,
            "unavailable" => Self::Unavailable(text),
            "cancelled" => Self::Cancelled,
            _ => return None,
        })
    }
}

impl From<Refusal> for CallError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Overloaded(_) => Self::Overloaded(refusal.to_string()),
            Refusal::Unavailable(_)
            | Refusal::OutcomeUnknown(_)
            | Refusal::Storage
            | Refusal::InsufficientStorage(_) => Self::Unavailable(refusal.to_string()),
            refusal => Self::BadRequest(refusal.to_string()),
        }
    }
}

/// What becomes of a request.
pub type Outcome = Result<Answer, CallError>;

/// What a provider gets.
#[derive(Debug, Clone)]
pub struct Handed {
    /// The name under which the provider answers: unique among the requests it has.
    pub id: String,
    /// The number of the request at this node, for doors whose answers carry numbers.
    pub number: u64,
    /// What was asked.
    pub request: std::sync::Arc<Request>,
}
