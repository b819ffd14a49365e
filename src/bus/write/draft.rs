//! An event as a client sends it: checked field by field, then encoded for the book. Pure.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use memchr::memchr2;
use rollbook_core::entry::{
    FLAG_CREATE, FLAG_HEADERS, FLAG_KEYED, FLAG_RESTORE, Wait, begin_publish, delay_publish, finish_publish,
};
use rollbook_core::event::headers::HeaderList;
use rollbook_core::event::{Event, is_event_id};
use rollbook_core::limits::FIELD_BYTES_MAX;
use rollbook_core::subjects::subject::{Namespace, Subject, validate_response_subject};
use rollbook_core::time::{Timestamp, ZERO_YEAR_SECONDS};
use serde_json::value::RawValue;

use super::notification::{claims_sender, is_notification};
use crate::bus::error::Fault;

/// 9999-12-31T23:59:59Z.
const MAX_YEAR_SECONDS: i64 = 253_402_300_799;
const NANOS_PER_MILLI: u128 = 1_000_000;

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
    /// For how long the event waits before it is published; `None` when it does not, or waits until `at`.
    pub delay: Option<Duration>,
    /// Until when the event waits, as RFC 3339; empty when it does not, or waits for `delay`.
    pub at: Cow<'a, str>,
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
    /// Position; -1 for a message of an inbox, and for an event that waits.
    pub index: i64,
    /// When the event is due, if it waits: `id` is then the id under which it waits, or the first of several waits.
    pub due: Option<Timestamp>,
}

/// Whether clients may publish to a namespace.
pub type Writable<'e> = dyn Fn(&str) -> bool + 'e;

impl Draft<'_> {
    /// Checks the event and encodes a publish of it alone. `now` is its time when the client sent none.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn publish(self, now: Timestamp, writable: &Writable<'_>) -> Result<Parsed, Fault> {
        let wait = self.wait()?;
        let created_at = self.created_at(due(wait, now))?;
        self.check_subjects()?;
        self.check_fields()?;
        let event = self.event(created_at);
        let namespace = namespace(&self.subject, writable)?;
        if namespace == Namespace::INBOX {
            if wait.is_some() {
                return Err(Fault::bad("delay and at: a message of an inbox is not stored, so it cannot wait"));
            }
            let mut record = Vec::new();
            event.encode(&mut record).map_err(|error| Fault::bad(error.to_string()))?;
            return Ok(Parsed::Inbox { subject: self.subject.into_owned(), record, created_at });
        }
        let frame = frame(namespace, std::slice::from_ref(&event), wait)?;
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

    /// How long the event waits.
    ///
    /// # Errors
    /// It says both for how long and until when, or a time that is none.
    pub fn wait(&self) -> Result<Option<Wait>, Fault> {
        match (self.delay, &*self.at) {
            (None, "") => Ok(None),
            (Some(_), at) if !at.is_empty() => Err(Fault::bad("delay and at: only one of them")),
            (Some(delay), _) => {
                let millis = delay.as_nanos().div_ceil(NANOS_PER_MILLI);
                Ok(Some(Wait::For(u64::try_from(millis).unwrap_or(u64::MAX))))
            }
            (None, at) => {
                let time = parse_rfc3339(at).ok_or_else(|| Fault::bad("invalid at: not a time of RFC 3339"))?;
                let seconds = u64::try_from(time.seconds).unwrap_or(0).saturating_mul(1000);
                Ok(Some(Wait::Until(seconds.saturating_add(u64::from(time.nanos).div_ceil(1_000_000)))))
            }
        }
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

/// The time of an event that says none: when it is due, or now.
#[must_use]
pub fn due(wait: Option<Wait>, now: Timestamp) -> Timestamp {
    match wait {
        None | Some(Wait::For(0)) => now,
        Some(Wait::Until(at)) => now.max(Timestamp::from_millis(at)),
        Some(Wait::For(millis)) => {
            let nanos = (millis % 1000).saturating_mul(1_000_000).saturating_add(now.nanos.into());
            let seconds = (millis / 1000).saturating_add(nanos / 1_000_000_000);
            let nanos = u32::try_from(nanos % 1_000_000_000).unwrap_or_default();
            // What is beyond the years of RFC 3339 is refused by the rules.
            let seconds = now.seconds.saturating_add_unsigned(seconds).min(MAX_YEAR_SECONDS);
            Timestamp { seconds, nanos }
        }
    }
}

/// Encodes the events of a publish, which wait as long as it says.
///
/// # Errors
/// They do not fit.
pub fn frame(namespace: &str, events: &[Event<'_>], wait: Option<Wait>) -> Result<Vec<u8>, Fault> {
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
    if let Some(wait) = wait {
        delay_publish(&mut out, wait).map_err(|error| failed(&error))?;
    }
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
    (ZERO_YEAR_SECONDS..=MAX_YEAR_SECONDS).contains(&seconds).then_some(())?;
    Some(Timestamp { seconds, nanos: u32::try_from(nanos).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Timestamp {
        parse_rfc3339(text).unwrap()
    }

    #[test]
    fn an_event_that_waits_and_says_no_time_has_the_time_at_which_it_is_due() {
        let now = time("2026-01-01T00:00:00.9Z");
        for (wait, wanted) in [
            (None, "2026-01-01T00:00:00.9Z"),
            (Some(Wait::For(0)), "2026-01-01T00:00:00.9Z"),
            (Some(Wait::For(1250)), "2026-01-01T00:00:02.15Z"),
            (Some(Wait::Until(0)), "2026-01-01T00:00:00.9Z"),
            (Some(Wait::Until(1_800_000_000_500)), "2027-01-15T08:00:00.5Z"),
        ] {
            assert_eq!(due(wait, now), time(wanted), "{wait:?}");
        }
        assert_eq!(due(Some(Wait::For(u64::MAX)), now).seconds, MAX_YEAR_SECONDS, "still a time that can be written");
    }

    #[test]
    fn a_wait_is_never_shorter_than_its_text_says() {
        let until = |at: &'static str| Draft { at: at.into(), ..Draft::default() }.wait();
        assert_eq!(until("1970-01-01T00:00:01.000001Z"), Ok(Some(Wait::Until(1001))));
        assert_eq!(until("0001-01-01T00:00:00Z"), Ok(Some(Wait::Until(0))));
        assert_eq!(until(""), Ok(None));
        assert!(until("1970-01-01").is_err());
        let long = |delay| Draft { delay: Some(delay), ..Draft::default() }.wait();
        assert_eq!(long(Duration::from_nanos(1)), Ok(Some(Wait::For(1))));
        assert_eq!(long(Duration::MAX), Ok(Some(Wait::For(u64::MAX))));
        let both = Draft { delay: Some(Duration::ZERO), at: "2030-01-01T00:00:00Z".into(), ..Draft::default() };
        assert!(both.wait().is_err());
    }
}
