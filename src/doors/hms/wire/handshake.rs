//! The handshake: who has connected, and what the terminal says about itself.

use bytes::Bytes;
use serde::Serialize;
use serde_json::{Map, Value};

use super::json;
use super::texts::{INVALID_HANDSHAKE, INVALID_HANDSHAKE_REPLY, OTHER_PROTOCOL};

/// Bytes of the longest handshake that is parsed.
pub const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the longest id of a dock. The id follows that of a service in one field of 65535 bytes.
pub const DOCK_ID_BYTES_MAX: usize = 255;
/// Most tags of a dock.
pub const TAGS_MAX: usize = 256;
/// The version of the protocol.
const PROTOCOL: u32 = 1;

/// Who has connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// A client, such as the command line.
    Client {
        /// The version of the software; empty when the client does not say.
        version: String,
        /// Restricts what the client asks for to docks with this id or tag.
        route: Option<String>,
    },
    /// A dock, which runs processes.
    Dock {
        /// The name of the dock.
        id: String,
        /// The version of the software; empty when the dock does not say.
        version: String,
        /// The name of the machine, from hms 3.3.0 on.
        hostname: Option<String>,
        /// Services that have one of these tags, or the id of the dock as a tag, run on the dock.
        tags: Vec<String>,
        /// Whether services without a match run on the dock. Counts only for a dock without tags.
        default: bool,
    },
}

/// Why a handshake is refused. The text is the answer; the connection stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// The peer does not state version 1 of the protocol.
    #[error("{}", OTHER_PROTOCOL)]
    OtherProtocol,
    /// The peer states to be neither a client nor a dock, or the options are no JSON or out of bounds.
    #[error("{}", INVALID_HANDSHAKE)]
    Invalid,
}

/// What the answer to a handshake says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandshakeReply {
    /// `terminal`, or `dock` when the client has connected to a dock.
    pub kind: String,
    /// The version of the software; empty when the peer does not say.
    pub version: String,
}

/// The answer to a handshake does not say who answers. Never on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", INVALID_HANDSHAKE_REPLY)]
pub struct InvalidReply;

/// The options, in the order in which stock peers write them.
#[derive(Serialize)]
#[serde(untagged)]
enum Options<'a> {
    Client {
        r#type: &'a str,
        version: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        route: Option<&'a str>,
        protocol: u32,
    },
    Dock {
        r#type: &'a str,
        version: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        hostname: Option<&'a str>,
        id: &'a str,
        tags: &'a [String],
        default: bool,
        protocol: u32,
    },
    Reply {
        r#type: &'a str,
        version: &'a str,
    },
}

impl Handshake {
    /// Reads the options of a handshake. Numbers are taken as ids, tags and versions too: the stock command line makes
    /// numbers of arguments that look like them.
    ///
    /// # Errors
    ///
    /// The protocol is another one, or the options are not those of a client or a dock.
    pub fn parse(payload: &[u8]) -> Result<Self, HandshakeError> {
        if payload.len() > HANDSHAKE_BYTES_MAX {
            return Err(HandshakeError::Invalid);
        }
        let options = json::parse(payload).ok_or(HandshakeError::Invalid)?;
        let protocol = options.get("protocol").and_then(Value::as_f64);
        let Value::Object(options) = options else { return Err(HandshakeError::OtherProtocol) };
        if protocol != Some(f64::from(PROTOCOL)) {
            return Err(HandshakeError::OtherProtocol);
        }
        match options.get("type").and_then(Value::as_str) {
            Some("client") => {
                let route = text(&options, "route").filter(|route| !route.is_empty());
                Ok(Self::Client { version: text(&options, "version").unwrap_or_default(), route })
            }
            Some("dock") => Self::parse_dock(&options),
            _ => Err(HandshakeError::Invalid),
        }
    }

    fn parse_dock(options: &Map<String, Value>) -> Result<Self, HandshakeError> {
        let id = text(options, "id").filter(|id| is_name(id)).ok_or(HandshakeError::Invalid)?;
        let tags = match options.get("tags") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(tags)) if tags.len() <= TAGS_MAX => {
                tags.iter().map(as_text).collect::<Option<_>>().ok_or(HandshakeError::Invalid)?
            }
            Some(_) => return Err(HandshakeError::Invalid),
        };
        let version = text(options, "version").unwrap_or_default();
        let default = options.get("default").is_some_and(is_true);
        Ok(Self::Dock { id, version, hostname: text(options, "hostname"), tags, default })
    }

    /// The payload of a handshake.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        json::encode(&match self {
            Self::Client { version, route } => {
                Options::Client { r#type: "client", version, route: route.as_deref(), protocol: PROTOCOL }
            }
            Self::Dock { id, version, hostname, tags, default } => Options::Dock {
                r#type: "dock",
                version,
                hostname: hostname.as_deref(),
                id,
                tags,
                default: *default,
                protocol: PROTOCOL,
            },
        })
    }
}

impl HandshakeReply {
    /// What a terminal of this version answers.
    #[must_use]
    pub fn terminal(version: impl Into<String>) -> Self {
        Self { kind: "terminal".to_owned(), version: version.into() }
    }

    /// Reads the answer to a handshake.
    ///
    /// # Errors
    ///
    /// The answer is no JSON object with a type.
    pub fn parse(body: &[u8]) -> Result<Self, InvalidReply> {
        if body.len() > HANDSHAKE_BYTES_MAX {
            return Err(InvalidReply);
        }
        let Some(Value::Object(reply)) = json::parse(body) else { return Err(InvalidReply) };
        let kind = reply.get("type").and_then(Value::as_str).filter(|kind| !kind.is_empty()).ok_or(InvalidReply)?;
        Ok(Self { kind: kind.to_owned(), version: text(&reply, "version").unwrap_or_default() })
    }

    /// The body of the answer: always an object with a type, because a stock client dies of `null`.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        json::encode(&Options::Reply { r#type: &self.kind, version: &self.version })
    }
}

fn text(options: &Map<String, Value>, key: &str) -> Option<String> {
    options.get(key).and_then(as_text)
}

fn as_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Ids of docks are shown on terminals, and split at blanks by what reads them.
fn is_name(id: &str) -> bool {
    !id.is_empty() && id.len() <= DOCK_ID_BYTES_MAX && !id.contains(char::is_control)
}

/// What the original takes for true.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(_) | Value::Object(_) => true,
    }
}
