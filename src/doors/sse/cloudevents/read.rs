//! Reads CloudEvents into events of the log.

use std::borrow::Cow;
use std::fmt;

use actix_web::http::header::HeaderMap;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use percent_encoding::percent_decode;
use rollbook_core::event::headers::HeaderList;
use rollbook_core::event::is_event_id;
use rollbook_core::limits::{BATCH_EVENTS_MAX, FIELD_BYTES_MAX};
use serde::de::{Deserializer as _, Error as _, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::attributes::{self, LITERAL, PREFIX, SPECVERSION, SUBJECT_EXTENSION};
use super::{content_type, essence};
use crate::base::json;
use crate::bus::error::Fault;
use crate::bus::write::draft::{Draft, Parsed, parse_rfc3339};
use crate::doors::sse::codec::{Context, publish_all, publish_one, too_deep};

fn invalid(what: impl fmt::Display) -> Fault {
    Fault::bad(format!("invalid CloudEvent: {what}"))
}

/// Reads a body in structured mode.
pub(super) fn structured(body: &[u8], subject: Option<&str>, context: &Context<'_>) -> Result<Parsed, Fault> {
    let text = text(body)?;
    publish_one(document(text)?.draft(subject)?, text.len(), context)
}

/// Reads a body in batched mode.
pub(super) fn batched(body: &[u8], subject: Option<&str>, context: &Context<'_>) -> Result<Option<Parsed>, Fault> {
    let text = text(body)?;
    let mut json = serde_json::Deserializer::from_str(text);
    let items = json.deserialize_seq(Items).and_then(|items| json.end().map(|()| items));
    let items = items.map_err(|error| Fault::bad(format!("invalid batch: {error}")))?;
    if items.is_empty() {
        return Ok(None);
    }
    let mut drafts = Vec::with_capacity(items.len());
    for (item, number) in items.iter().zip(1_usize..) {
        let draft = document(item.get()).and_then(|event| event.draft(subject));
        drafts.push(
            draft.map_err(|fault| Fault {
                text: format!("{}: item {number} of the batch", fault.text).into(),
                ..fault
            })?,
        );
    }
    publish_all(drafts, text.len(), context).map(Some)
}

/// Reads a body in binary mode.
pub(super) fn binary(
    body: &[u8],
    headers: &HeaderMap,
    subject: Option<&str>,
    context: &Context<'_>,
) -> Result<Parsed, Fault> {
    let mut event = CloudEvent::default();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(PREFIX) else { continue };
        event.set(name, header_text(value.as_bytes()).map_err(|what| invalid(format_args!("{name} {what}")))?)?;
    }
    let kind = content_type(headers);
    if let Some(kind) = kind {
        event.set("datacontenttype", kind.to_owned().into())?;
    }
    if !body.is_empty() {
        let payload = data(body, kind)?;
        // A text, or bytes, are longer as JSON.
        context.common.check_bytes(payload.get().len())?;
        event.payload = Some(payload);
    }
    publish_one(event.draft(subject)?, body.len(), context)
}

fn text(body: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(json::without_mark(body)).map_err(|_| Fault::bad("body is not valid UTF-8"))
}

/// Reads the items of an array, up to the limit of a batch.
struct Items;

impl<'de> Visitor<'de> for Items {
    type Value = Vec<&'de RawValue>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of CloudEvents")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut found = Vec::new();
        while let Some(item) = items.next_element()? {
            if found.len() >= BATCH_EVENTS_MAX {
                return Err(A::Error::custom(format_args!("more than {BATCH_EVENTS_MAX} events")));
            }
            found.push(item);
        }
        Ok(found)
    }
}

/// A CloudEvent while it is read.
#[derive(Default)]
struct CloudEvent<'a> {
    id: Cow<'a, str>,
    r#type: Cow<'a, str>,
    /// The subject in the log that the event names.
    subject: Cow<'a, str>,
    time: Option<Cow<'a, str>>,
    /// All attributes without a field of their own.
    headers: HeaderList,
    payload: Option<Cow<'a, RawValue>>,
}

impl<'a> CloudEvent<'a> {
    /// Sets an attribute.
    fn set(&mut self, name: &str, value: Cow<'a, str>) -> Result<(), Fault> {
        let twice = || invalid(format_args!("{name} is there twice"));
        let place = match name {
            "id" => &mut self.id,
            "type" => &mut self.r#type,
            SUBJECT_EXTENSION => &mut self.subject,
            "time" => {
                parse_rfc3339(&value).ok_or_else(|| invalid("time is a time of RFC 3339"))?;
                return if self.time.replace(value).is_some() { Err(twice()) } else { Ok(()) };
            }
            "specversion" if value != SPECVERSION => return Err(invalid("specversion: only 1.0 is understood")),
            _ if !attributes::is_name(name) => {
                return Err(invalid("names of attributes are lower-case letters and digits"));
            }
            _ => return self.push_header(name, &value),
        };
        if value.is_empty() {
            return Err(invalid(format_args!("{name} is empty")));
        }
        if std::mem::replace(place, value).is_empty() { Ok(()) } else { Err(twice()) }
    }

    /// Stores an attribute in a header.
    fn push_header(&mut self, name: &str, value: &str) -> Result<(), Fault> {
        let header = format!("{PREFIX}{name}");
        if self.headers.headers().get(&header).is_some() {
            return Err(invalid(format_args!("{name} is there twice")));
        }
        self.headers.push(&header, value).map_err(invalid)
    }

    /// Builds the event of the log.
    fn draft(self, subject: Option<&str>) -> Result<Draft<'a>, Fault> {
        let Self { id, r#type, subject: own, time, mut headers, payload } = self;
        let present = |name| headers.headers().get(name).is_some_and(|value| !value.is_empty());
        for (name, there) in [
            ("specversion", present("ce-specversion")),
            ("id", !id.is_empty()),
            ("source", present("ce-source")),
            ("type", !r#type.is_empty()),
        ] {
            if !there {
                return Err(invalid(format_args!("{name} is missing")));
            }
        }
        let requested = subject.map(|subject| Cow::Owned(subject.to_owned()));
        let subject = requested.or((!own.is_empty()).then_some(own)).unwrap_or_else(|| r#type.clone());
        if subject != r#type {
            headers.push("ce-type", &r#type).map_err(invalid)?;
        }
        // An id that cannot be the id of an event becomes the key, so that a repetition within the dedupe window is
        // not stored.
        let (id, key) = if is_event_id(&id) { (id, Cow::default()) } else { (Cow::default(), id) };
        if !key.is_empty() {
            if key.len() > FIELD_BYTES_MAX {
                return Err(invalid(format_args!("id is longer than {FIELD_BYTES_MAX} bytes")));
            }
            headers.push("ce-id", &key).map_err(invalid)?;
        }
        Ok(Draft { id, key, subject, created_at: time, headers, payload, ..Draft::default() })
    }
}

/// Reads an event from JSON.
fn document(text: &str) -> Result<CloudEvent<'_>, Fault> {
    let members = json::members(text).ok_or_else(|| invalid("it is not a JSON object"))?;
    let mut event = CloudEvent::default();
    for (name, value) in members {
        let json = value.get();
        let payload = match name.as_ref() {
            "data" => {
                check_depth(json)?;
                Cow::Borrowed(value)
            }
            _ if json == "null" => continue,
            "data_base64" => {
                let text = json::text(json).filter(|text| BASE64_STANDARD.decode(text.as_bytes()).is_ok());
                Cow::Owned(bytes(&text.ok_or_else(|| invalid("data_base64 is not base64"))?)?)
            }
            name => {
                let text = json::text(json);
                let literal = text.is_none() && attributes::is_literal(json);
                let no_value = || invalid(format_args!("{name} is no string, boolean or integer"));
                event.set(name, text.or(literal.then_some(Cow::Borrowed(json))).ok_or_else(no_value)?)?;
                if literal {
                    event.headers.push(LITERAL, name).map_err(invalid)?;
                }
                continue;
            }
        };
        if event.payload.replace(payload).is_some() {
            return Err(invalid("its data is there twice"));
        }
    }
    Ok(event)
}

fn check_depth(json: &str) -> Result<(), Fault> {
    if json::is_shallow(json.as_bytes(), json::DEPTH_MAX) { Ok(()) } else { Err(too_deep()) }
}

/// Turns the data of binary mode into a payload: JSON stays as it came, text becomes a JSON string, other data
/// becomes base64.
fn data<'a>(body: &'a [u8], kind: Option<&str>) -> Result<Cow<'a, RawValue>, Fault> {
    let is_json = attributes::is_json(kind);
    let parsed = serde_json::from_slice::<&RawValue>(json::without_mark(body));
    match parsed {
        Ok(payload) if is_json => {
            check_depth(payload.get())?;
            return Ok(Cow::Borrowed(payload));
        }
        Err(error) if is_json && kind.is_some() => {
            return Err(Fault::bad(format!("invalid payload: not valid JSON; {error}")));
        }
        _ => {}
    }
    let is_text =
        kind.is_some_and(|kind| essence(kind).to_ascii_lowercase().starts_with("text/") && !has_other_charset(kind));
    match std::str::from_utf8(body) {
        Ok(text) if is_text => raw(serde_json::Value::from(text).to_string()).map(Cow::Owned),
        _ => bytes(&BASE64_STANDARD.encode(body)).map(Cow::Owned),
    }
}

fn has_other_charset(kind: &str) -> bool {
    let lower = kind.to_ascii_lowercase();
    let charset = lower.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("charset="));
    charset.is_some_and(|charset| !matches!(charset.trim_matches('"'), "utf-8" | "us-ascii"))
}

/// Writes bytes as a payload, in the form that all JSON doors use.
fn bytes(base64: &str) -> Result<Box<RawValue>, Fault> {
    raw(format!("{{\"$base64\":{}}}", serde_json::Value::from(base64)))
}

fn raw(json: String) -> Result<Box<RawValue>, Fault> {
    RawValue::from_string(json).map_err(|error| Fault::internal(error.to_string()))
}

/// Reads the value of an attribute from a header: with or without quotes, and percent-encoded where HTTP has no
/// character.
fn header_text(value: &[u8]) -> Result<Cow<'static, str>, &'static str> {
    let quoted = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    let plain = match quoted {
        Some(quoted) => Cow::Owned(unescaped(quoted)),
        None => Cow::Borrowed(value),
    };
    let decoded = percent_decode(&plain).decode_utf8().map_err(|_| "is not UTF-8")?;
    Ok(decoded.into_owned().into())
}

/// Removes the escapes of a quoted string.
fn unescaped(quoted: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(quoted.len());
    let mut rest = quoted.iter();
    while let Some(byte) = rest.next() {
        out.push(if *byte == b'\\' { *rest.next().unwrap_or(byte) } else { *byte });
    }
    out
}
