//! What a client asks for: the operations that the parser makes of its bytes.

use std::fmt;
use std::num::NonZeroU32;

use bytes::Bytes;

/// One operation of a client. `+OK` and `INFO` of a client mean nothing: the parser skips them.
///
/// The fields of a message are slices of the buffer that the bytes were read into, and hold all of that buffer: whoever
/// keeps a small one for long copies it. Those of other operations are copies.
#[derive(Clone, PartialEq, Eq)]
pub enum ClientOp {
    /// `CONNECT`: the JSON behind the verb, not looked at yet. May come more than once, see
    /// [`super::connect::Connect::update`].
    Connect(Bytes),
    /// `PUB` or `HPUB`.
    Publish(Publish),
    /// `SUB`.
    Subscribe(Subscribe),
    /// `UNSUB`.
    Unsubscribe(Unsubscribe),
    /// `PING`.
    Ping,
    /// `PONG`.
    Pong,
}

/// A message that a client publishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    /// The subject, not checked: at least one byte, no blanks.
    pub subject: Bytes,
    /// The subject that answers go to, not checked: at least one byte, no blanks.
    pub reply: Option<Bytes>,
    /// The header block of an `HPUB`, not looked at. Absent for a `PUB` and for an `HPUB` with a block of 0 bytes, which
    /// nats-server delivers as a `MSG`.
    pub headers: Option<Bytes>,
    /// What follows the headers.
    pub payload: Bytes,
}

/// A subscription that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// The subject, not checked: at least one byte, no blanks.
    pub subject: Bytes,
    /// The name of the queue group, not checked: at least one byte, no blanks.
    pub queue: Option<Bytes>,
    /// The name that the client gave the subscription: any bytes but blanks. Most clients count.
    pub sid: Bytes,
}

/// The end of a subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// The name that the client gave the subscription.
    pub sid: Bytes,
    /// Messages after which the subscription ends, counted from its SUB. Absent: the subscription ends at once. A number
    /// that is 0, has more than nine digits or is none counts as absent, as in nats-server 2.15.
    pub max: Option<NonZeroU32>,
}

impl Publish {
    /// Bytes of headers and payload.
    #[must_use]
    pub fn size(&self) -> usize {
        self.headers.as_ref().map_or(0, Bytes::len).saturating_add(self.payload.len())
    }
}

impl fmt::Debug for ClientOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // The JSON has passwords and tokens.
            Self::Connect(json) => write!(f, "Connect({} bytes, hidden)", json.len()),
            Self::Publish(publish) => publish.fmt(f),
            Self::Subscribe(subscribe) => subscribe.fmt(f),
            Self::Unsubscribe(unsubscribe) => unsubscribe.fmt(f),
            Self::Ping => f.write_str("Ping"),
            Self::Pong => f.write_str("Pong"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_of_a_connect_does_not_show_in_debug_texts() {
        let connect = ClientOp::Connect(Bytes::from_static(br#"{"pass":"hunter2"}"#));
        assert_eq!(format!("{connect:?}"), "Connect(18 bytes, hidden)");
    }
}
