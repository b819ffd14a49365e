//! What comes with an operation: definitions of services, pids, exit codes. The bytes of stdout and stderr are just bytes.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::json;
use super::op::Op;

/// Bytes of the longest definition of a service that is parsed.
pub const SERVICE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of the longest pid or exit code that is parsed.
pub const SCALAR_BYTES_MAX: usize = 4096;

/// The definition of a service, with all its fields in their order. What the fields mean is not a matter of the wire.
pub type Service = Map<String, Value>;

/// A payload is not what its operation needs. The text answers a request; a message frame is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The definition of a service is no JSON.
    #[error("Service is not valid JSON")]
    ServiceJson,
    /// The definition of a service is JSON, but neither an object nor `null`.
    #[error("Service must be an object")]
    ServiceType,
    /// The definition of a service is longer than [`SERVICE_BYTES_MAX`].
    #[error("Service is too large")]
    ServiceTooLarge,
    /// The pid is neither an integer nor `null`.
    #[error("Process id must be a number")]
    Pid,
    /// The exit code is neither an integer nor `null` nor a text.
    #[error("Exit code must be a number, null or a text")]
    ExitCode,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ExitCode {
    /// The process exited with this code.
    Number(i64),
    /// A signal ended the process.
    Null,
    /// A text, such as the name of a signal.
    Text(String),
}

/// Reads the definition that comes with `add`, `update` or `sync`. `null` is `None`, and so is the empty payload that a
/// stock client sends for `add` and `sync` without a definition; with `update` an empty payload is an error.
///
/// # Errors
///
/// The payload is no JSON, is no object, or is too long.
pub fn parse_service(op: Op, payload: &[u8]) -> Result<Option<Service>, PayloadError> {
    if payload.is_empty() && op != Op::Update {
        return Ok(None);
    }
    if payload.len() > SERVICE_BYTES_MAX {
        return Err(PayloadError::ServiceTooLarge);
    }
    match json::parse(payload) {
        Some(Value::Object(service)) => Ok(Some(service)),
        Some(Value::Null) => Ok(None),
        Some(_) => Err(PayloadError::ServiceType),
        None => Err(PayloadError::ServiceJson),
    }
}

/// The payload of a definition; `null` without one, never empty.
#[must_use]
pub fn encode_service(service: Option<&Service>) -> Bytes {
    match service {
        Some(service) => json::encode(service),
        None => Bytes::from_static(b"null"),
    }
}

/// Reads the pid that comes with `spawn`. A stock dock whose command does not exist sends nothing: that is `None`, as is `null`.
///
/// # Errors
///
/// The payload is neither an integer from 0 to 4294967295 nor `null`.
pub fn parse_pid(payload: &[u8]) -> Result<Option<u32>, PayloadError> {
    match scalar(payload) {
        Some(Value::Null) => Ok(None),
        Some(Value::Number(pid)) => {
            pid.as_u64().and_then(|pid| u32::try_from(pid).ok()).map(Some).ok_or(PayloadError::Pid)
        }
        _ => Err(PayloadError::Pid),
    }
}

/// The payload of a pid; `null` without one, never empty: a stock terminal dies of an empty payload.
#[must_use]
pub fn encode_pid(pid: Option<u32>) -> Bytes {
    json::encode(&pid)
}

impl ExitCode {
    /// Reads the code that comes with `exit`. An empty payload is [`ExitCode::Null`]: that the process ended is known.
    ///
    /// # Errors
    ///
    /// The payload is neither an integer nor `null` nor a text.
    pub fn parse(payload: &[u8]) -> Result<Self, PayloadError> {
        match scalar(payload) {
            Some(Value::Null) => Ok(Self::Null),
            Some(Value::Number(code)) => code.as_i64().map(Self::Number).ok_or(PayloadError::ExitCode),
            Some(Value::String(text)) => Ok(Self::Text(text)),
            _ => Err(PayloadError::ExitCode),
        }
    }

    /// The payload of the code, never empty: a stock terminal dies of an empty payload.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        match self {
            Self::Number(code) => json::encode(code),
            Self::Null => Bytes::from_static(b"null"),
            Self::Text(text) => json::encode(text),
        }
    }
}

/// A JSON value of a short payload; an empty one is `null`.
fn scalar(payload: &[u8]) -> Option<Value> {
    match payload.len() {
        0 => Some(Value::Null),
        1..=SCALAR_BYTES_MAX => json::parse(payload),
        _ => None,
    }
}
