//! What a server tells a client that did wrong: the texts of `-ERR`, and whether the connection stays.

use bytestring::ByteString;

/// An error of the client protocol. `Display` is the text that stands between the quotes of `-ERR`.
///
/// Clients compare some of these texts without regard to case, so the words must not change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A line or payload that is none of the protocol. nats-server 2.15 sends this text for unknown verbs and for a
    /// payload without its line end, and closes without a text for bad arguments; rollbook always sends the text.
    #[error("Unknown Protocol Operation")]
    UnknownOperation,
    /// A line that is longer than the limit.
    #[error("maximum control line exceeded")]
    ControlLineTooLong,
    /// A payload, with its headers, that is larger than the limit. Known before the payload comes.
    #[error("Maximum Payload Violation")]
    PayloadTooLarge,
    /// HPUB from a connection that did not ask for headers in its CONNECT.
    #[error("message headers not supported")]
    HeadersNotSupported,
    /// The client is not who it must be, or sent another operation before its CONNECT.
    #[error("Authorization Violation")]
    AuthorizationViolation,
    /// No CONNECT came in time.
    #[error("Authentication Timeout")]
    AuthenticationTimeout,
    /// Plain text where a TLS handshake must come first.
    #[error("Secure Connection - TLS Required")]
    TlsRequired,
    /// A CONNECT with a `protocol` that is neither 0 nor 1.
    #[error("invalid client protocol")]
    InvalidClientProtocol,
    /// A CONNECT with `no_responders` and without `headers`.
    #[error("no responders requires headers support")]
    NoRespondersWithoutHeaders,
    /// The client answered none of the last PINGs.
    #[error("Stale Connection")]
    StaleConnection,
    /// The client does not read what is sent to it.
    #[error("Slow Consumer")]
    SlowConsumer,
    /// The node has as many connections as it may have.
    #[error("maximum connections exceeded")]
    TooManyConnections,
    /// Ours: the name in the CONNECT asks for a version of Xbus that this node does not speak.
    #[error("incompatible xbus protocol version")]
    IncompatibleXbusVersion,
    /// The subject of a SUB is none.
    #[error("Invalid Subject")]
    InvalidSubject,
    /// The subject of a PUB or HPUB is none, or has wildcards.
    #[error("Invalid Publish Subject")]
    InvalidPublishSubject,
    /// The client may not publish to this subject.
    #[error("Permissions Violation for Publish to \"{subject}\"")]
    PublishDenied {
        /// The subject as the client wrote it.
        subject: ByteString,
    },
    /// The client may not subscribe to this subject.
    #[error("Permissions Violation for Subscription to \"{subject}\"")]
    SubscriptionDenied {
        /// The subject as the client wrote it.
        subject: ByteString,
    },
    /// The client may not subscribe to this subject as a member of this queue group.
    #[error("Permissions Violation for Subscription to \"{subject}\" using queue \"{queue}\"")]
    QueueSubscriptionDenied {
        /// The subject as the client wrote it.
        subject: ByteString,
        /// The name of the queue group.
        queue: ByteString,
    },
    /// Ours: the roles of the client allow so many messages and bytes a second.
    #[error("maximum publish rate exceeded")]
    PublishRateExceeded,
    /// The connection has as many subscriptions as it may have.
    #[error("maximum subscriptions exceeded")]
    TooManySubscriptions,
}

impl ProtocolError {
    /// Whether the connection ends with this error. Otherwise the operation alone is dropped.
    #[must_use]
    pub fn closes(&self) -> bool {
        !matches!(
            self,
            Self::InvalidSubject
                | Self::InvalidPublishSubject
                | Self::PublishDenied { .. }
                | Self::SubscriptionDenied { .. }
                | Self::QueueSubscriptionDenied { .. }
                | Self::PublishRateExceeded
                | Self::TooManySubscriptions
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_that_clients_know() {
        let (subject, queue) = (ByteString::from_static("a.b"), ByteString::from_static("q"));
        let texts = [
            (ProtocolError::UnknownOperation, "Unknown Protocol Operation", true),
            (ProtocolError::PayloadTooLarge, "Maximum Payload Violation", true),
            (ProtocolError::InvalidSubject, "Invalid Subject", false),
            (ProtocolError::InvalidPublishSubject, "Invalid Publish Subject", false),
            (ProtocolError::TooManySubscriptions, "maximum subscriptions exceeded", false),
            (
                ProtocolError::PublishDenied { subject: subject.clone() },
                "Permissions Violation for Publish to \"a.b\"",
                false,
            ),
            (
                ProtocolError::QueueSubscriptionDenied { subject, queue },
                "Permissions Violation for Subscription to \"a.b\" using queue \"q\"",
                false,
            ),
        ];
        for (error, text, closes) in texts {
            assert_eq!((error.to_string().as_str(), error.closes()), (text, closes));
        }
    }
}
