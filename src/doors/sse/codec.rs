//! Bytes to events and events to bytes: the JSON of a publish, the frames of a stream. Pure.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;

use memchr::{memchr2, memchr2_iter};
use rollbook_core::entry::{FLAG_CREATE, FLAG_KEYED, begin_publish, finish_publish};
use rollbook_core::event::{Event, is_event_id};
use rollbook_core::limits::{BATCH_EVENTS_MAX, FIELD_BYTES_MAX};
use rollbook_core::subject::{Namespace, Subject, validate_response_subject};
use rollbook_core::time::{Timestamp, ZERO_YEAR_SECONDS};
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::bus::event_json;
use crate::bus::wire::Wire;

/// Why a publish is refused before the bus is asked: status and text for the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rejected {
    pub(super) status: u16,
    pub(super) text: Cow<'static, str>,
}

fn bad(text: impl Into<Cow<'static, str>>) -> Rejected {
    Rejected { status: 400, text: text.into() }
}

/// The fields of one event as they came.
#[derive(Debug, Default)]
struct Draft<'a> {
    id: Cow<'a, str>,
    trace_id: Cow<'a, str>,
    key: Cow<'a, str>,
    subject: Cow<'a, str>,
    response_subject: Cow<'a, str>,
    created_at: Option<Cow<'a, str>>,
    payload: Option<&'a RawValue>,
}

/// Which part of an event was being read when an error came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    Frame,
    Text,
    /// The payload, or what follows it up to the next name.
    Payload,
}

/// How far reading an event came, for the text of an error.
#[derive(Debug, Default)]
struct Progress {
    part: Cell<Part>,
    /// A time was there and is none.
    bad_time: Cell<bool>,
}

/// A string, borrowed when it holds no escapes.
struct Text<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Text<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// Reads one event, and notes how far it is.
struct EventSeed<'p>(&'p Progress);

impl<'de> DeserializeSeed<'de> for EventSeed<'_> {
    type Value = Draft<'de>;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for EventSeed<'_> {
    type Value = Draft<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an event object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut draft = Draft::default();
        while let Some(Text(name)) = map.next_key()? {
            self.0.part.set(Part::Text);
            let field = match name.as_ref() {
                "id" => &mut draft.id,
                "trace_id" => &mut draft.trace_id,
                "key" => &mut draft.key,
                "subject" => &mut draft.subject,
                "response_subject" => &mut draft.response_subject,
                "created_at" => {
                    let text = map.next_value::<Text<'de>>()?.0;
                    self.0.bad_time.set(!text.is_empty() && parse_rfc3339(&text).is_none());
                    draft.created_at = Some(text);
                    self.0.part.set(Part::Frame);
                    continue;
                }
                "payload" => {
                    self.0.part.set(Part::Payload);
                    draft.payload = Some(map.next_value()?);
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    self.0.part.set(Part::Frame);
                    continue;
                }
            };
            *field = map.next_value::<Text<'de>>()?.0;
            self.0.part.set(Part::Frame);
        }
        Ok(draft)
    }
}

/// Reads an array of events.
struct BatchSeed;

impl<'de> Visitor<'de> for BatchSeed {
    type Value = Vec<Draft<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let progress = Progress::default();
        let mut drafts = Vec::new();
        while let Some(draft) = items.next_element_seed(EventSeed(&progress))? {
            if drafts.len() >= BATCH_EVENTS_MAX {
                return Err(A::Error::custom(format_args!("more than {BATCH_EVENTS_MAX} events")));
            }
            drafts.push(draft);
        }
        Ok(drafts)
    }
}

/// What a publish asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Parsed {
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
pub(super) struct Publish {
    pub(super) namespace: String,
    pub(super) frame: Vec<u8>,
    /// Of a single event: what its answer needs.
    pub(super) single: Option<Single>,
}

/// Id and time of a single event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Single {
    /// Empty when the server makes it.
    pub(super) id: String,
    pub(super) created_at: Timestamp,
}

/// Tells whether clients may publish to a namespace.
pub(super) type Enabled<'e> = dyn Fn(&str) -> bool + 'e;

/// Reads the body of a publish; `now` is the time of events that bring none.
pub(super) fn parse_publish(body: &[u8], now: Timestamp, enabled: &Enabled<'_>) -> Result<Parsed, Rejected> {
    let start = body.iter().position(|byte| !byte.is_ascii_whitespace()).ok_or_else(|| bad("empty body"))?;
    let text = std::str::from_utf8(body).map_err(|_| bad("body is not valid UTF-8"))?;
    match body.get(start) {
        Some(b'[') => parse_batch(text, now, enabled),
        Some(b'{') => parse_single(text, now, enabled),
        _ => Err(bad("expected opening brace")),
    }
}

fn parse_single(text: &str, now: Timestamp, enabled: &Enabled<'_>) -> Result<Parsed, Rejected> {
    let progress = Progress::default();
    let mut json = serde_json::Deserializer::from_str(text);
    let draft = EventSeed(&progress).deserialize(&mut json);
    let draft = draft.map_err(|error| match (error.classify(), progress.part.get()) {
        (Category::Eof | Category::Io, _) => bad("incomplete event"),
        (_, Part::Payload) if progress.bad_time.get() => bad("invalid timestamp format"),
        (_, Part::Payload) => bad("invalid payload: not valid JSON"),
        (_, Part::Text | Part::Frame) => bad("expected string"),
    })?;
    let created_at = created_at(&draft, now)?;
    json.end().map_err(|_| bad("unexpected data after event"))?;
    check_subjects(&draft)?;
    check_fields(&draft)?;
    let event = event(&draft, created_at);
    let namespace = namespace(&draft.subject, enabled)?;
    if namespace == Namespace::INBOX {
        let mut record = Vec::new();
        event.encode(&mut record).map_err(|error| bad(error.to_string()))?;
        return Ok(Parsed::Inbox { subject: draft.subject.into_owned(), record, created_at });
    }
    let frame = frame(namespace, std::slice::from_ref(&event))?;
    let single = Some(Single { id: draft.id.into_owned(), created_at });
    Ok(Parsed::Publish(Publish { namespace: namespace.to_owned(), frame, single }))
}

fn parse_batch(text: &str, now: Timestamp, enabled: &Enabled<'_>) -> Result<Parsed, Rejected> {
    let mut json = serde_json::Deserializer::from_str(text);
    let drafts = json.deserialize_seq(BatchSeed).and_then(|drafts| json.end().map(|()| drafts));
    let drafts = drafts.map_err(|error| match error.classify() {
        Category::Eof => bad("unexpected end of JSON input"),
        Category::Io | Category::Syntax | Category::Data => bad(format!("invalid batch: {error}")),
    })?;
    // What an event by itself is refused for first.
    let times: Vec<Timestamp> = drafts.iter().map(|draft| created_at(draft, now)).collect::<Result<_, _>>()?;
    if drafts.is_empty() {
        return Err(bad("empty batch"));
    }
    if drafts.iter().any(|draft| !draft.response_subject.is_empty()) {
        return Err(bad("batch items must not have response subject"));
    }
    let mut events = Vec::with_capacity(drafts.len());
    for (draft, created_at) in drafts.iter().zip(times) {
        check_subjects(draft)?;
        check_fields(draft)?;
        events.push(event(draft, created_at));
    }
    if drafts.iter().any(|draft| draft.subject.split('.').next() == Some(Namespace::INBOX)) {
        return Err(bad("batch cannot publish to the reserved _bus_ namespace"));
    }
    let first = events.first().map_or("", |event| event.subject);
    let common = namespace(first, enabled)?;
    // A name that is not enabled is told before a second name.
    let mut other = false;
    for event in &events {
        let name = event.subject.split('.').next().unwrap_or_default();
        if name != common {
            namespace(event.subject, enabled)?;
            other = true;
        }
    }
    if other {
        return Err(bad("all events in batch must belong to the same namespace"));
    }
    let frame = frame(common, &events)?;
    Ok(Parsed::Publish(Publish { namespace: common.to_owned(), frame, single: None }))
}

fn check_subjects(draft: &Draft<'_>) -> Result<(), Rejected> {
    if draft.subject.is_empty() {
        return Err(bad("subject is required"));
    }
    let wild = |text: &str| memchr2(b'*', b'>', text.as_bytes()).is_some();
    if wild(&draft.subject) {
        return Err(bad("subject should not have * or >"));
    }
    if wild(&draft.response_subject) {
        return Err(bad("response subject should not have * or >"));
    }
    Subject::validate(&draft.subject).map_err(|error| bad(error.to_string()))?;
    if !draft.response_subject.is_empty() {
        validate_response_subject(&draft.response_subject).map_err(|error| bad(error.to_string()))?;
    }
    Ok(())
}

fn check_fields(draft: &Draft<'_>) -> Result<(), Rejected> {
    if !draft.id.is_empty() && !is_event_id(&draft.id) {
        return Err(bad("invalid event id"));
    }
    for (name, text) in [("key", &draft.key), ("trace_id", &draft.trace_id)] {
        if text.len() > FIELD_BYTES_MAX {
            return Err(bad(format!("{name} is longer than {FIELD_BYTES_MAX} bytes")));
        }
    }
    Ok(())
}

/// The namespace of a subject that clients may write to, or the inbox.
fn namespace<'s>(subject: &'s str, enabled: &Enabled<'_>) -> Result<&'s str, Rejected> {
    let name = subject.split('.').next().unwrap_or_default();
    if name == Namespace::DEAD || name == Namespace::ROLL {
        return Err(bad(format!("namespace {name} is reserved")));
    }
    if name != Namespace::INBOX && (Namespace::parse(name).is_err() || !enabled(name)) {
        return Err(bad(format!("namespace not found: {name}")));
    }
    Ok(name)
}

fn event<'a>(draft: &'a Draft<'_>, created_at: Timestamp) -> Event<'a> {
    Event {
        id: &draft.id,
        trace_id: &draft.trace_id,
        key: &draft.key,
        subject: &draft.subject,
        response_subject: &draft.response_subject,
        created_at,
        payload: draft.payload.map(|payload| payload.get().as_bytes()),
    }
}

/// Lets a publish create its namespace.
pub(super) fn allow_create(frame: &mut [u8]) {
    if let Some(flags) = frame.get_mut(1) {
        *flags |= FLAG_CREATE;
    }
}

fn frame(namespace: &str, events: &[Event<'_>]) -> Result<Vec<u8>, Rejected> {
    let failed = |error: &dyn fmt::Display| bad(error.to_string());
    let payloads: usize = events.iter().map(|event| event.payload.map_or(0, <[u8]>::len).saturating_add(96)).sum();
    let mut out = Vec::with_capacity(payloads.saturating_add(80));
    begin_publish(&mut out, namespace).map_err(|error| failed(&error))?;
    let mut flags = 0;
    for event in events {
        event.encode(&mut out).map_err(|error| failed(&error))?;
        if !event.key.is_empty() || !event.id.is_empty() {
            flags |= FLAG_KEYED;
        }
    }
    let count = u32::try_from(events.len()).map_err(|error| failed(&error))?;
    finish_publish(&mut out, 0, flags, count).map_err(|error| failed(&error))?;
    Ok(out)
}

/// The time of an event: its own, or now. Go's zero time means "not set".
fn created_at(draft: &Draft<'_>, now: Timestamp) -> Result<Timestamp, Rejected> {
    let Some(text) = draft.created_at.as_ref().filter(|text| !text.is_empty()) else { return Ok(now) };
    let time = parse_rfc3339(text).ok_or_else(|| bad("invalid timestamp format"))?;
    Ok(if time.seconds == ZERO_YEAR_SECONDS && time.nanos == 0 { now } else { time })
}

/// Strict RFC 3339 with up to nine fraction digits, years 0001 to 9999.
fn parse_rfc3339(text: &str) -> Option<Timestamp> {
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

/// How this door writes its streams.
#[derive(Debug)]
pub(super) struct Frames;

/// The one value of it.
pub(super) static FRAMES: Frames = Frames;

impl Wire for Frames {
    fn slot(&self) -> usize {
        0
    }

    fn event(&self, index: i64, event: &Event<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"id: ");
        event.write_id(u64::try_from(index).unwrap_or(0), out);
        out.extend_from_slice(b"\nevent: msg\ndata: ");
        let start = out.len();
        event_json::write(index, event, out);
        // Rare: only payloads that came pretty-printed hold line breaks.
        if memchr2(b'\n', b'\r', out.get(start..).unwrap_or_default()).is_some() {
            let data = out.split_off(start);
            out.truncate(start.saturating_sub(b"data: ".len()));
            data_lines(&data, out);
        } else {
            out.push(b'\n');
        }
        out.push(b'\n');
    }

    fn keep_alive(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b": ping\n\n");
    }

    fn failure(&self, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"event: error\n");
        data_lines(text.as_bytes(), out);
        out.push(b'\n');
    }

    fn farewell(&self, retry_millis: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("retry: {retry_millis}\n\n").as_bytes());
    }
}

/// Writes data as one `data:` line for each of its lines; a bare CR is a line break too.
fn data_lines(data: &[u8], out: &mut Vec<u8>) {
    let mut start = 0;
    let mut line = |from: usize, to: usize| {
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(data.get(from..to).unwrap_or_default());
        out.push(b'\n');
    };
    for at in memchr2_iter(b'\n', b'\r', data) {
        if at < start {
            continue;
        }
        line(start, at);
        let crlf = data.get(at) == Some(&b'\r') && data.get(at + 1) == Some(&b'\n');
        start = at + if crlf { 2 } else { 1 };
    }
    line(start, data.len());
}
