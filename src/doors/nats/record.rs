//! Messages of NATS as events of the book, and back.
//!
//! A payload of NATS is any bytes, that of an event is JSON. A payload that is JSON is stored as it came. Text that is no
//! JSON is stored as a JSON string, and other bytes as a JSON string in base64; the header `Bus-Encoding` says so, and
//! through this door the bytes come out as they went in.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use rollbook_core::event::headers::HeaderList;
use serde_json::value::RawValue;

use super::wire::headers::{self, Headers};
use crate::base::duration;
use crate::bus::error::Fault;
use crate::bus::live::message::LiveMessage;
use crate::bus::live_events::LiveEventEncoder;
use crate::bus::read::stored_event::StoredEvent;
use crate::bus::write::draft::Draft;

/// Says how a payload that is no JSON is stored.
const ENCODING: &str = "Bus-Encoding";
/// The payload is text.
const TEXT: &str = "text";
/// The payload is bytes.
const BINARY: &str = "base64";
/// The name by which a publisher makes a repeated message be stored once.
const MESSAGE_ID: &str = "Nats-Msg-Id";
/// For how long an event waits before it is published, as `10s`, and until when, as a time of RFC 3339.
const DELAY: &str = "Rollbook-Delay";
const AT: &str = "Rollbook-At";
/// Conditions of JetStream that the book does not check. A publisher that relies on them must hear so.
const CONDITIONS: [&str; 4] = [
    "Nats-Expected-Last-Sequence",
    "Nats-Expected-Last-Subject-Sequence",
    "Nats-Expected-Last-Msg-Id",
    "Nats-Expected-Stream",
];
/// The one condition that is checked: the name of the namespace.
const EXPECTED_STREAM: &str = "Nats-Expected-Stream";

/// The event of a message.
///
/// # Errors
/// The headers are none, or ask for something that the book does not do.
pub(super) fn draft(message: &LiveMessage, namespace: &str) -> Result<Draft<'static>, Fault> {
    let (mut list, mut key) = (HeaderList::default(), String::new());
    let (mut delay, mut at) = (None, String::new());
    if !message.headers.is_empty() {
        let block = Headers::parse(&message.headers).map_err(|error| Fault::bad(error.to_string()))?;
        for (name, value) in block.iter() {
            if name.eq_ignore_ascii_case(MESSAGE_ID) {
                value.clone_into(&mut key);
            } else if name.eq_ignore_ascii_case(DELAY) {
                let parsed = duration::parse(value).map_err(|error| Fault::bad(format!("{DELAY}: {error}")))?;
                delay = Some(parsed);
            } else if name.eq_ignore_ascii_case(AT) {
                value.clone_into(&mut at);
            } else if name.eq_ignore_ascii_case(EXPECTED_STREAM) && value == namespace {
                // Checked.
            } else if let Some(condition) = CONDITIONS.iter().find(|known| name.eq_ignore_ascii_case(known)) {
                return Err(Fault::bad(format!("{condition}: rollbook does not check this condition")));
            } else if name.eq_ignore_ascii_case(ENCODING) {
                return Err(Fault::bad(format!("{ENCODING}: rollbook writes this header itself")));
            } else {
                list.push(name, value).map_err(|error| Fault::bad(error.to_string()))?;
            }
        }
    }
    let (payload, encoding) = to_json(&message.payload)?;
    if let Some(encoding) = encoding {
        list.push(ENCODING, encoding).map_err(|error| Fault::bad(error.to_string()))?;
    }
    Ok(Draft {
        key: Cow::Owned(key),
        subject: Cow::Owned(message.subject.to_string()),
        delay,
        at: Cow::Owned(at),
        headers: list,
        payload,
        ..Draft::default()
    })
}

/// A payload as JSON, and how it is encoded if it is none.
fn to_json(payload: &Bytes) -> Result<(Option<Cow<'static, RawValue>>, Option<&'static str>), Fault> {
    let Ok(text) = std::str::from_utf8(payload) else {
        return Ok((Some(Cow::Owned(quoted(&BASE64.encode(payload))?)), Some(BINARY)));
    };
    if text.is_empty() {
        return Ok((None, None));
    }
    match RawValue::from_string(text.to_owned()) {
        // Blanks around the JSON would not come back.
        Ok(json) if json.get().len() == text.len() => Ok((Some(Cow::Owned(json)), None)),
        _ => Ok((Some(Cow::Owned(quoted(text)?)), Some(TEXT))),
    }
}

fn quoted(text: &str) -> Result<Box<RawValue>, Fault> {
    serde_json::value::to_raw_value(text).map_err(|error| Fault::internal(error.to_string()))
}

/// The payload of an event as the bytes that went in.
fn from_json(json: &[u8], encoding: Option<&str>) -> Bytes {
    let text = || serde_json::from_slice::<String>(json).ok();
    let decoded = match encoding {
        Some(TEXT) => text().map(Bytes::from),
        Some(BINARY) => text().and_then(|text| BASE64.decode(text).ok()).map(Bytes::from),
        _ => None,
    };
    // A header of somebody else that only looks like ours.
    decoded.unwrap_or_else(|| Bytes::copy_from_slice(json))
}

/// Events as messages of NATS.
#[derive(Debug)]
pub(super) struct EventMessages;

impl LiveEventEncoder for EventMessages {
    fn message(&self, stored: &StoredEvent) -> Option<LiveMessage> {
        let event = stored.event();
        let encoding = event.headers.get(ENCODING);
        let payload = event.payload.map_or_else(Bytes::new, |json| from_json(json, encoding));
        let names = event.headers.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(ENCODING));
        let id = Some((MESSAGE_ID, event.key)).filter(|(_, key)| !key.is_empty());
        let mut block = BytesMut::new();
        let mut lines = names.chain(id).peekable();
        if lines.peek().is_some() {
            headers::write(&mut block, None, lines).ok()?;
        }
        let reply = ByteString::from(event.response_subject);
        Some(LiveMessage { subject: ByteString::from(event.subject), reply, headers: block.freeze(), payload })
    }
}
