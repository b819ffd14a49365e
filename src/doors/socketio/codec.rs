//! Reads and writes packets of Engine.IO v4 and Socket.IO v5. Pure. Malformed bytes are an error and never a panic.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use bytestring::ByteString;
use serde_json::value::RawValue;

use crate::base::json;
use crate::net::websocket::writer::Frame;

/// Stands between the packets of one polling payload.
const SEPARATOR: char = '\u{1e}';
/// Most binary attachments of one packet, as in socket.io-parser.
const ATTACHMENTS_MAX: usize = 10;
/// Levels of JSON around a payload: the packet, and the argument.
const AROUND: usize = 2;
/// Longest name of a namespace, bytes.
const NAMESPACE_BYTES_MAX: usize = 256;

/// Why bytes are no packet or payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Malformed(pub(super) &'static str);

/// An Engine.IO packet of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Engine {
    Close,
    Ping(ByteString),
    Pong,
    Message(Frame),
    Upgrade,
    /// Open or noop. Only servers send them, and the reference server ignores them too.
    Meaningless,
}

impl Engine {
    /// Reads one message of a WebSocket.
    pub(super) fn decode(frame: Frame) -> Result<Self, Malformed> {
        let text = match frame {
            Frame::Binary(_) => return Ok(Self::Message(frame)),
            Frame::Text(text) => text,
        };
        let rest = |text: &ByteString| text.get(1..).map(|rest| text.slice_ref(rest)).unwrap_or_default();
        Ok(match text.as_bytes().first() {
            Some(b'1') => Self::Close,
            Some(b'2') => Self::Ping(rest(&text)),
            Some(b'3') => Self::Pong,
            Some(b'4') => Self::Message(Frame::Text(rest(&text))),
            Some(b'5') => Self::Upgrade,
            Some(b'0' | b'6') => Self::Meaningless,
            _ => return Err(Malformed("unknown engine packet")),
        })
    }

    /// Reads the packets of a polling payload, up to the first malformed one.
    pub(super) fn decode_payload(body: &ByteString) -> impl Iterator<Item = Result<Self, Malformed>> {
        body.split(SEPARATOR).map(|part| match part.strip_prefix('b') {
            Some(encoded) => {
                let bytes = STANDARD.decode(encoded).map_err(|_| Malformed("not base64"))?;
                Ok(Self::Message(Frame::Binary(bytes.into())))
            }
            None => Self::decode(Frame::Text(body.slice_ref(part))),
        })
    }
}

/// Joins packets into the body of the answer to a poll.
pub(super) fn encode_payload(frames: &[Frame]) -> String {
    let mut payload = String::with_capacity(frames.iter().map(|frame| frame.len().saturating_add(2)).sum());
    for (at, frame) in frames.iter().enumerate() {
        if at > 0 {
            payload.push(SEPARATOR);
        }
        match frame {
            Frame::Text(text) => payload.push_str(text),
            Frame::Binary(bytes) => {
                payload.push('b');
                STANDARD.encode_string(bytes, &mut payload);
            }
        }
    }
    payload
}

/// The type of a Socket.IO packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Connect,
    Disconnect,
    Event,
    Ack,
}

/// A Socket.IO packet of a client. Its binary attachments follow as messages of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Packet {
    pub(super) kind: Kind,
    pub(super) namespace: ByteString,
    pub(super) id: Option<u64>,
    /// The data of the packet: the members of an array, or one object.
    pub(super) data: Vec<ByteString>,
    /// Number of binary attachments that follow.
    pub(super) attachments: usize,
    /// Whether the data of an event or an acknowledgement was nested too deep. The data is left out then.
    pub(super) deep: bool,
}

/// Names of events that only the client library may use.
const RESERVED: [&str; 6] =
    ["connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener"];

/// Whether a client library refuses to receive an event of this name.
pub(super) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name)
}

impl Packet {
    /// The object in a CONNECT packet.
    pub(super) fn object(&self) -> Option<&str> {
        self.data.first().map(|object| &**object)
    }

    /// Reads the text of a packet.
    pub(super) fn decode(text: &ByteString) -> Result<Self, Malformed> {
        let (kind, binary) = match text.as_bytes().first() {
            Some(b'0') => (Kind::Connect, false),
            Some(b'1') => (Kind::Disconnect, false),
            Some(b'2') => (Kind::Event, false),
            Some(b'3') => (Kind::Ack, false),
            Some(b'4') => return Err(Malformed("a client sends no connect error")),
            Some(b'5') => (Kind::Event, true),
            Some(b'6') => (Kind::Ack, true),
            _ => return Err(Malformed("unknown packet type")),
        };
        let mut rest = text.get(1..).unwrap_or_default();
        let mut attachments = 0;
        if binary {
            let (count, after) = rest.split_once('-').ok_or(Malformed("illegal attachments"))?;
            attachments = digits(count).ok_or(Malformed("illegal attachments"))?;
            if attachments > ATTACHMENTS_MAX {
                return Err(Malformed("too many attachments"));
            }
            rest = after;
        }
        let mut namespace = "/";
        if rest.starts_with('/') {
            (namespace, rest) = rest.split_once(',').unwrap_or((rest, ""));
            namespace = namespace.split('?').next().unwrap_or("/");
            if namespace.len() > NAMESPACE_BYTES_MAX {
                return Err(Malformed("namespace is too long"));
            }
        }
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, json) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let id = match number {
            "" => None,
            number => Some(digits(number).ok_or(Malformed("invalid ack id"))?),
        };
        let deep = !json::is_shallow(json.as_bytes(), json::DEPTH_MAX.saturating_add(AROUND));
        let mut data = payload(kind, text, json)?;
        if deep {
            match kind {
                Kind::Event => data.truncate(1),
                Kind::Ack => data.clear(),
                Kind::Connect | Kind::Disconnect => return Err(Malformed("invalid payload: nested too deep")),
            }
        }
        if kind == Kind::Ack && id.is_none() {
            return Err(Malformed("invalid ack id"));
        }
        let namespace = if namespace == "/" { ByteString::from_static("/") } else { text.slice_ref(namespace) };
        Ok(Self { kind, namespace, id, data, attachments, deep })
    }
}

fn digits<T: std::str::FromStr>(text: &str) -> Option<T> {
    // `parse` alone would accept a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Checks that a packet of this type has the data that the type needs.
fn payload(kind: Kind, text: &ByteString, json: &str) -> Result<Vec<ByteString>, Malformed> {
    let invalid = Malformed("invalid payload");
    match kind {
        Kind::Connect if json.is_empty() => Ok(Vec::new()),
        Kind::Connect => {
            let object: &RawValue = serde_json::from_str(json).map_err(|_| invalid)?;
            if object.get().starts_with('{') { Ok(vec![text.slice_ref(object.get())]) } else { Err(invalid) }
        }
        Kind::Disconnect => {
            if json.is_empty() {
                Ok(Vec::new())
            } else {
                Err(invalid)
            }
        }
        Kind::Event | Kind::Ack => {
            let members: Vec<&RawValue> = serde_json::from_str(json).map_err(|_| invalid)?;
            let members: Vec<ByteString> = members.into_iter().map(|member| text.slice_ref(member.get())).collect();
            if kind == Kind::Event {
                let name = members.first().ok_or(invalid)?;
                let number = name.starts_with(|c: char| c == '-' || c.is_ascii_digit());
                if !number && event_name(name).is_none_or(|name| is_reserved(&name)) {
                    return Err(invalid);
                }
            }
            Ok(members)
        }
    }
}

/// The name that a JSON string stands for. `None` means that the text is not a JSON string.
pub(super) fn event_name(name: &ByteString) -> Option<ByteString> {
    let plain = name.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).filter(|name| !name.contains('\\'));
    match plain {
        Some(plain) => Some(name.slice_ref(plain)),
        None => json::text(name).map(|name| ByteString::from(name.into_owned())),
    }
}

/// Whether every placeholder of a binary packet stands for one of its attachments. A placeholder without an
/// attachment breaks the connection of the client that receives the packet.
pub(super) fn placeholders_fit(data: &[ByteString], attachments: usize) -> bool {
    fn fits(json: &str, attachments: usize) -> bool {
        match json.as_bytes().first() {
            Some(b'[') => serde_json::from_str::<Vec<&RawValue>>(json)
                .is_ok_and(|members| members.iter().all(|member| fits(member.get(), attachments))),
            Some(b'{') => {
                let members = json::members(json).unwrap_or_default();
                // The last member of a name counts.
                let of = |name: &str| members.iter().rev().find(|(key, _)| key == name).map(|(_, member)| member.get());
                if of("_placeholder") == Some("true") {
                    let number = of("num").and_then(|number| serde_json::from_str::<json::Whole>(number).ok());
                    let number = number.and_then(|json::Whole(number)| usize::try_from(number).ok());
                    return number.is_some_and(|number| number < attachments);
                }
                members.iter().all(|(_, member)| fits(member.get(), attachments))
            }
            _ => true,
        }
    }
    data.iter().all(|member| fits(member, attachments))
}

/// Writes the head of a packet, including the digit of Engine.IO.
fn head(digits: [char; 2], namespace: &str, id: Option<u64>, attachments: usize) -> String {
    let mut text = String::with_capacity(64);
    text.push('4');
    text.push(if attachments == 0 { digits[0] } else { digits[1] });
    if attachments > 0 {
        text.push_str(&attachments.to_string());
        text.push('-');
    }
    if namespace != "/" {
        text.push_str(namespace);
        text.push(',');
    }
    if let Some(id) = id {
        text.push_str(&id.to_string());
    }
    text
}

/// Writes an event. Each argument is JSON.
pub(super) fn event(namespace: &str, id: Option<u64>, name: &str, args: &[&str], attachments: usize) -> ByteString {
    let mut text = head(['2', '5'], namespace, id, attachments);
    text.push('[');
    text.push_str(&serde_json::Value::from(name).to_string());
    for arg in args {
        text.push(',');
        text.push_str(arg);
    }
    text.push(']');
    text.into()
}

/// Writes an acknowledgement. Each argument is JSON.
pub(super) fn ack(namespace: &str, id: u64, args: &[&str], attachments: usize) -> ByteString {
    let mut text = head(['3', '6'], namespace, Some(id), attachments);
    text.push('[');
    text.push_str(&args.join(","));
    text.push(']');
    text.into()
}

/// Writes the answer to a CONNECT. The client sends the `pid` again to recover its state.
pub(super) fn connected(namespace: &str, sid: &str, pid: Option<&str>) -> ByteString {
    let mut text = head(['0', '0'], namespace, None, 0);
    let object = match pid {
        Some(pid) => serde_json::json!({ "sid": sid, "pid": pid }),
        None => serde_json::json!({ "sid": sid }),
    };
    text.push_str(&object.to_string());
    text.into()
}

/// Writes the refusal of a CONNECT.
pub(super) fn refused(namespace: &str, error: &serde_json::Value) -> ByteString {
    let mut text = head(['4', '4'], namespace, None, 0);
    text.push_str(&error.to_string());
    text.into()
}

/// Writes a DISCONNECT: the client leaves the namespace and does not come back by itself.
pub(super) fn disconnected(namespace: &str) -> ByteString {
    head(['1', '1'], namespace, None, 0).into()
}

/// Writes the answer to an Engine.IO handshake.
pub(super) fn open(sid: &str, upgrade: bool, timing: (u64, u64), payload_bytes_max: usize) -> ByteString {
    let upgrades: &[&str] = if upgrade { &["websocket"] } else { &[] };
    let (interval, timeout) = timing;
    let open = serde_json::json!({
        "sid": sid,
        "upgrades": upgrades,
        "pingInterval": interval,
        "pingTimeout": timeout,
        "maxPayload": payload_bytes_max,
    });
    format!("0{open}").into()
}

/// Turns binary attachments into messages.
pub(super) fn binaries(attachments: Vec<Bytes>) -> impl Iterator<Item = Frame> {
    attachments.into_iter().map(Frame::Binary)
}
