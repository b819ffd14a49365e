//! An event on its way into the book, as a client says it: checked field by field. Pure.

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

use super::notification::{is_notification, says_from};
use crate::bus::error::Fault;

/// The fields of one event as they came.
#[derive(Debug, Default)]
pub struct Draft<'a> {
    /// Empty: the server makes it.
    pub id: Cow<'a, str>,
    /// Empty: none.
    pub trace_id: Cow<'a, str>,
    /// Deduplication key; empty: none.
    pub key: Cow<'a, str>,
    /// Its subject.
    pub subject: Cow<'a, str>,
    /// Where an answer is expected; empty: nowhere.
    pub response_subject: Cow<'a, str>,
    /// RFC 3339; none: now.
    pub created_at: Option<Cow<'a, str>>,
    /// Names and values beside the payload.
    pub headers: HeaderList,
    /// JSON as it came, or made of what is none.
    pub payload: Option<Cow<'a, RawValue>>,
}

/// What a publish asks for.
#[derive(Debug, PartialEq, Eq)]
pub enum Parsed {
    /// Store these; the frame is whole.
    Publish(Publish),
    /// Give it to whoever listens to the inbox.
    Inbox {
        /// The inbox.
        subject: String,
        /// The message as a record.
        record: Vec<u8>,
        /// When it was created.
        created_at: Timestamp,
    },
}

/// A publish that may go to the bus.
#[derive(Debug, PartialEq, Eq)]
pub struct Publish {
    /// Where it goes.
    pub namespace: String,
    /// All events of it.
    pub frame: Vec<u8>,
    /// Of a single event: what its answer needs.
    pub single: Option<Single>,
}

/// Id and time of a single event.
#[derive(Debug, PartialEq, Eq)]
pub struct Single {
    /// Empty when the server makes it.
    pub id: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What became of a publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Id of the event.
    pub id: String,
    /// Its time.
    pub created_at: Timestamp,
    /// Its position; -1 for a message of an inbox.
    pub index: i64,
}

/// Tells whether clients may publish to a namespace.
pub type Writable<'e> = dyn Fn(&str) -> bool + 'e;

impl Draft<'_> {
    /// What a publish of this event alone asks for; `now` is its time when it brings none.
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

    /// Checks its subject and that of the answer.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check_subjects(&self) -> Result<(), Fault> {
        if self.subject.is_empty() {
            return Err(Fault::bad("subject is required"));
        }
        let wild = |text: &str| memchr2(b'*', b'>', text.as_bytes()).is_some();
        if wild(&self.subject) {
            return Err(Fault::bad("subject should not have * or >"));
        }
        if wild(&self.response_subject) {
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
        if is_notification(&self.subject) && self.payload.as_deref().is_some_and(says_from) {
            return Err(Fault::bad("payload: in the namespace notify only the bus says who a message is from"));
        }
        Ok(())
    }

    /// The event that it is.
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

    /// The time of an event: its own, or now. Go's zero time means "not set".
    ///
    /// # Errors
    /// It says a time that is none.
    pub fn created_at(&self, now: Timestamp) -> Result<Timestamp, Fault> {
        let Some(text) = self.created_at.as_ref().filter(|text| !text.is_empty()) else { return Ok(now) };
        let time = parse_rfc3339(text).ok_or_else(|| Fault::bad("invalid timestamp format"))?;
        Ok(if time.seconds == ZERO_YEAR_SECONDS && time.nanos == 0 { now } else { time })
    }
}

/// The namespace of a subject that clients may write to, or the inbox.
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

/// Lets a publish create its namespace.
pub fn allow_create(frame: &mut [u8]) {
    if let Some(flags) = frame.get_mut(1) {
        *flags |= FLAG_CREATE;
    }
}

/// Says that the events of a publish are copies of stored ones: their keys may come again.
pub fn restores(frame: &mut [u8]) {
    if let Some(flags) = frame.get_mut(1) {
        *flags |= FLAG_RESTORE;
    }
}

/// All events of a publish in one piece.
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
