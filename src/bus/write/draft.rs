//! An event as a client sends it: checked field by field, then encoded for the book. Pure.

use std::borrow::Cow;
use std::fmt;

use memchr::memchr2;
use rollbook_core::entry::{FLAG_CREATE, FLAG_HEADERS, FLAG_KEYED, FLAG_RESTORE, begin_publish, finish_publish};
use rollbook_core::event::headers::HeaderList;
use rollbook_core::event::{Event, is_event_id};
use rollbook_core::limits::FIELD_BYTES_MAX;
use rollbook_core::subjects::subject::{Namespace, Subject, validate_response_subject};
use rollbook_core::time::{Timestamp, ZERO_YEAR_SECONDS};
use serde_json::value::RawValue;

use super::notification::{claims_sender, is_notification};
use crate::bus::error::Fault;

/// The fields of an event, as the client sent them.
#[derive(Debug, Default)]
pub struct Draft<'a> {
    /// Event id; empty when the server makes one.
    pub id: Cow<'a, str>,
    /// Trace id; empty when there is none.
    pub trace_id: Cow<'a, str>,
    /// Deduplication key; empty when there is none.
    pub key: Cow<'a, str>,
    /// The subject.
    pub subject: Cow<'a, str>,
    /// Where an answer is expected; empty when none is.
    pub response_subject: Cow<'a, str>,
    /// Time as RFC 3339; `None` means now.
    pub created_at: Option<Cow<'a, str>>,
    /// Names and values beside the payload.
    pub headers: HeaderList,
    /// The payload: JSON.
    pub payload: Option<Cow<'a, RawValue>>,
}

/// A checked publish.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Events to store.
    Publish(Publish),
    /// A message for the listeners of an inbox.
    Inbox {
        /// The inbox subject.
        subject: String,
        /// The message as a record.
        record: Vec<u8>,
        /// When the message was created.
        created_at: Timestamp,
    },
}

/// Events to store in one namespace.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish {
    /// The namespace.
    pub namespace: String,
    /// All events, encoded.
    pub frame: Vec<u8>,
    /// Id and time, when there is a single event: the answer contains them.
    pub single: Option<Single>,
}

/// Id and time of a single event.
#[derive(Debug, PartialEq, Eq)]
pub struct Single {
    /// Event id; empty when the server makes one.
    pub id: String,
    /// When the event was created.
    pub created_at: Timestamp,
}

/// A published event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Event id.
    pub id: String,
    /// When the event was created.
    pub created_at: Timestamp,
    /// Position; -1 for a message of an inbox.
    pub index: i64,
}

/// Whether clients may publish to a namespace.
pub type Writable<'e> = dyn Fn(&str) -> bool + 'e;

impl Draft<'_> {
    /// Checks the event and encodes a publish of it alone. `now` is its time when the client sent none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn publish(self, now: Timestamp, writable: &Writable<'_>) -> Result<Parsed, Fault> {
        let created_at = self.created_at(now)?;
        self.check_subjects()?;
        self.check_fields()?;
        let event = self.event(created_at);
        let namespace = namespace(&self.subject, writable)?;
        if namespace == Namespace::INBOX {
            let mut record = Vec::new();
            event.encode(&mut record).map_err(|error| Fault::bad(error.to_string()))?;
            return Ok(Parsed::Inbox { subject: self.subject.into_owned(), record, created_at });
        }
        let frame = frame(namespace, std::slice::from_ref(&event))?;
        let single = Some(Single { id: self.id.into_owned(), created_at });
        Ok(Parsed::Publish(Publish { namespace: namespace.to_owned(), frame, single }))
    }

    /// Checks the subject and the response subject.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_subjects(&self) -> Result<(), Fault> {
        if self.subject.is_empty() {
            return Err(Fault::bad("subject is required"));
        }
        let has_wildcard = |text: &str| memchr2(b'*', b'>', text.as_bytes()).is_some();
        if has_wildcard(&self.subject) {
            return Err(Fault::bad("subject should not have * or >"));
        }
        if has_wildcard(&self.response_subject) {
            return Err(Fault::bad("response subject should not have * or >"));
        }
        Subject::validate(&self.subject).map_err(|error| Fault::bad(error.to_string()))?;
        if !self.response_subject.is_empty() {
            validate_response_subject(&self.response_subject).map_err(|error| Fault::bad(error.to_string()))?;
        }
        Ok(())
    }

    /// Checks the other fields.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_fields(&self) -> Result<(), Fault> {
        if !self.id.is_empty() && !is_event_id(&self.id) {
            return Err(Fault::bad("invalid event id"));
        }
        for (name, text) in [("key", &self.key), ("trace_id", &self.trace_id)] {
            if text.len() > FIELD_BYTES_MAX {
                return Err(Fault::bad(format!("{name} is longer than {FIELD_BYTES_MAX} bytes")));
            }
        }
        if is_notification(&self.subject) && self.payload.as_deref().is_some_and(claims_sender) {
            return Err(Fault::bad("payload: in the namespace notify only the bus says who a message is from"));
        }
        Ok(())
    }

    /// The event, borrowed from this draft.
    #[must_use]
    pub fn event(&self, created_at: Timestamp) -> Event<'_> {
        Event {
            id: &self.id,
            trace_id: &self.trace_id,
            key: &self.key,
            subject: &self.subject,
            response_subject: &self.response_subject,
            created_at,
            headers: self.headers.headers(),
            payload: self.payload.as_deref().map(|payload| payload.get().as_bytes()),
        }
    }

    /// The time of the event, or `now`. Go's zero time means that no time was set.
    ///
    /// # Errors
    /// It says a time that is none.
    pub fn created_at(&self, now: Timestamp) -> Result<Timestamp, Fault> {
        let Some(text) = self.created_at.as_ref().filter(|text| !text.is_empty()) else { return Ok(now) };
        let time = parse_rfc3339(text).ok_or_else(|| Fault::bad("invalid timestamp format"))?;
        Ok(if time.seconds == ZERO_YEAR_SECONDS && time.nanos == 0 { now } else { time })
    }
}

/// The namespace of a subject, if clients may write to it.
///
/// # Errors
/// It is reserved, or not there.
pub fn namespace<'s>(subject: &'s str, writable: &Writable<'_>) -> Result<&'s str, Fault> {
    let name = subject.split('.').next().unwrap_or_default();
    if name == Namespace::DEAD || name == Namespace::ROLL {
        return Err(Fault::bad(format!("namespace {name} is reserved")));
    }
    if name != Namespace::INBOX && (Namespace::parse(name).is_err() || !writable(name)) {
        return Err(Fault::bad(format!("namespace not found: {name}")));
    }
    Ok(name)
}

/// Sets the flag by which a publish may create its namespace.
pub fn allow_create(frame: &mut [u8]) {
    if let Some(flags) = frame.get_mut(1) {
        *flags |= FLAG_CREATE;
    }
}

/// Sets the flag that the events are copies of stored ones: their keys may repeat.
pub fn restores(frame: &mut [u8]) {
    if let Some(flags) = frame.get_mut(1) {
        *flags |= FLAG_RESTORE;
    }
}

/// Encodes the events of a publish.
///
/// # Errors
/// They do not fit.
pub fn frame(namespace: &str, events: &[Event<'_>]) -> Result<Vec<u8>, Fault> {
    let failed = |error: &dyn fmt::Display| Fault::bad(error.to_string());
    let bytes = |event: &Event<'_>| event.payload.map_or(0, <[u8]>::len).saturating_add(event.headers.len());
    let payloads: usize = events.iter().map(|event| bytes(event).saturating_add(96)).sum();
    let mut out = Vec::with_capacity(payloads.saturating_add(80));
    begin_publish(&mut out, namespace).map_err(|error| failed(&error))?;
    let mut flags = 0;
    for event in events {
        event.encode(&mut out).map_err(|error| failed(&error))?;
        if !event.key.is_empty() || !event.id.is_empty() {
            flags |= FLAG_KEYED;
        }
        if !event.headers.is_empty() {
            flags |= FLAG_HEADERS;
        }
    }
    let count = u32::try_from(events.len()).map_err(|error| failed(&error))?;
    finish_publish(&mut out, 0, flags, count).map_err(|error| failed(&error))?;
    Ok(out)
}

/// Strict RFC 3339 with up to nine fraction digits, years 0001 to 9999.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<Timestamp> {
    let shape = |at: usize, byte: &u8| match at {
        4 | 7 => *byte == b'-',
        10 => *byte == b'T',
        13 | 16 => *byte == b':',
        _ => byte.is_ascii_digit(),
    };
    let (start, rest) = text.as_bytes().split_at_checked(19)?;
    if !start.iter().enumerate().all(|(at, byte)| shape(at, byte)) || start.get(17..19)? > b"59".as_slice() {
        return None;
    }
    let zone = match rest.strip_prefix(b".") {
        Some(fraction) => {
            let digits = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            (1..=9).contains(&digits).then_some(())?;
            fraction.get(digits..)?
        }
        None => rest,
    };
    let offset = |zone: &[u8]| match zone {
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|digit| digit.is_ascii_digit()),
        _ => zone == b"Z",
    };
    if !offset(zone) {
        return None;
    }
    let time: jiff::Timestamp = text.parse().ok()?;
    let (seconds, nanos) = (time.as_second(), time.subsec_nanosecond());
    // jiff counts fractions towards zero, we count them upwards.
    let (seconds, nanos) = if nanos < 0 { (seconds - 1, nanos + 1_000_000_000) } else { (seconds, nanos) };
    (ZERO_YEAR_SECONDS..=253_402_300_799).contains(&seconds).then_some(())?;
    Some(Timestamp { seconds, nanos: u32::try_from(nanos).ok()? })
}
