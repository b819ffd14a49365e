//! Writes events of the log as CloudEvents in structured mode, one in each message of a stream.

use std::borrow::Cow;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rollbook_core::event::Event;
use rollbook_core::event::headers::Headers;
use serde::Deserialize;

use super::attributes::{self, LITERAL, PREFIX, SPECVERSION, SUBJECT_EXTENSION};
use crate::base::slot::Slot;
use crate::bus::read::encoder::{EVENT_SLOTS, EventEncoder};
use crate::bus::read::event_json::string;
use crate::bus::read::redelivery::Redelivery;
use crate::doors::sse::codec::{FRAMES, message};

/// Encodes streams of CloudEvents. Only the data differs from other streams of this door.
#[derive(Debug)]
pub(super) struct CloudEvents;

/// The only value of [`CloudEvents`].
pub(super) static CLOUD_EVENTS: CloudEvents = CloudEvents;

/// The slot of the encoded frames.
static SLOT: Slot = Slot::of(&EVENT_SLOTS);

impl EventEncoder for CloudEvents {
    fn slot(&self) -> usize {
        SLOT.number()
    }

    /// No attribute of CloudEvents says that an event comes again.
    fn event(&self, index: i64, event: &Event<'_>, _: Option<&Redelivery>, out: &mut Vec<u8>) {
        message(index, event, out, |out| write(index, event, out));
    }

    fn keep_alive(&self, out: &mut Vec<u8>) {
        FRAMES.keep_alive(out);
    }

    fn gap(&self, first: u64, out: &mut Vec<u8>) {
        FRAMES.gap(first, out);
    }

    fn begin(&self, id: &str, out: &mut Vec<u8>) {
        FRAMES.begin(id, out);
    }

    fn failure(&self, text: &str, out: &mut Vec<u8>) {
        FRAMES.failure(text, out);
    }

    fn end_with_retry(&self, retry_millis: u64, out: &mut Vec<u8>) {
        FRAMES.end_with_retry(retry_millis, out);
    }
}

/// Appends the event as a CloudEvent.
pub(super) fn write(index: i64, event: &Event<'_>, out: &mut Vec<u8>) {
    let headers = event.headers;
    out.extend_from_slice(b"{\"specversion\":");
    string(SPECVERSION, out);
    out.extend_from_slice(b",\"id\":");
    match headers.get("ce-id") {
        Some(id) => string(id, out),
        None => {
            out.push(b'"');
            event.write_id(u64::try_from(index).unwrap_or(0), out);
            out.push(b'"');
        }
    }
    let source = headers.get("ce-source").map_or_else(|| Cow::Owned(source(event.subject)), Cow::Borrowed);
    member("source", &source, out);
    let r#type = headers.get("ce-type").unwrap_or(event.subject);
    member("type", r#type, out);
    if r#type != event.subject {
        member(SUBJECT_EXTENSION, event.subject, out);
    }
    out.extend_from_slice(b",\"time\":\"");
    event.created_at.write(out);
    out.push(b'"');
    header_attributes(headers, out);
    if let Some(payload) = event.payload {
        match base64(payload) {
            Some(bytes) => member("data_base64", &bytes, out),
            None => {
                out.extend_from_slice(b",\"data\":");
                out.extend_from_slice(payload);
            }
        }
    }
    out.push(b'}');
}

/// The source of an event that was not published as a CloudEvent: its namespace.
fn source(subject: &str) -> String {
    const ESCAPED: AsciiSet = NON_ALPHANUMERIC.remove(b'-').remove(b'_');
    let namespace = subject.split('.').next().unwrap_or_default();
    format!("/rollbook/{}", utf8_percent_encode(namespace, &ESCAPED))
}

/// Appends the attributes that are headers. A header without the prefix counts too when its name is valid for an
/// extension, such as `traceparent`. Of several headers with one name the first counts.
fn header_attributes(headers: Headers<'_>, out: &mut Vec<u8>) {
    let mut last = String::new();
    for (name, value) in headers.iter() {
        let lower = name.to_ascii_lowercase();
        if lower == last {
            continue;
        }
        let attribute = match lower.strip_prefix(PREFIX) {
            Some(attribute) => Some(attribute).filter(|name| !attributes::is_mapped(name)),
            None => Some(lower.as_str())
                .filter(|name| !attributes::is_core(name) && headers.get(&format!("{PREFIX}{name}")).is_none()),
        };
        if let Some(attribute) = attribute.filter(|name| attributes::is_name(name)) {
            let literals = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case(LITERAL));
            let is_literal = literals.map(|(_, name)| name).any(|name| name == attribute);
            if is_literal && attributes::is_literal(value) {
                out.extend_from_slice(format!(",\"{attribute}\":{value}").as_bytes());
            } else {
                member(attribute, value, out);
            }
        }
        last = lower;
    }
}

fn member(name: &str, value: &str, out: &mut Vec<u8>) {
    out.push(b',');
    string(name, out);
    out.push(b':');
    string(value, out);
}

/// The base64 of a payload that stands for bytes.
fn base64(payload: &[u8]) -> Option<Cow<'_, str>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bytes<'a> {
        #[serde(rename = "$base64", borrow)]
        base64: Cow<'a, str>,
    }
    // This check comes before the parser, because nearly all payloads are not bytes.
    payload.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"$base64\"")?;
    let Bytes { base64 } = serde_json::from_slice(payload).ok()?;
    BASE64_STANDARD.decode(base64.as_bytes()).is_ok().then_some(base64)
}
