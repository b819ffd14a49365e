//! Errors and ends of streams, as nrpc writes them in JSON.

use serde_json::json;

use crate::doors::nats::xbus::proto::nrpc::ErrorType;

/// The answer to a call that is malformed or not allowed.
#[must_use]
pub fn error(kind: ErrorType, message: &str) -> String {
    json!({"__error__": {"type": kind.name(), "message": message}}).to_string()
}

/// The end of an answer of so many messages.
#[must_use]
pub fn end(messages: u32) -> String {
    json!({"__error__": {"type": ErrorType::EndOfStream.name(), "msgCount": messages}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_whose_fault_it_is() {
        assert_eq!(error(ErrorType::Client, "no"), r#"{"__error__":{"type":"CLIENT","message":"no"}}"#);
        assert_eq!(end(2), r#"{"__error__":{"type":"EOS","msgCount":2}}"#);
    }
}
