//! Reads the JSON of a publish, and writes the frames of a stream. Pure.

use std::borrow::Cow;
use std::cell::Cell;
use std::fmt;
use std::time::Duration;

use memchr::{memchr2, memchr2_iter};
use rollbook_core::event::Event;
use rollbook_core::limits::BATCH_EVENTS_MAX;
use rollbook_core::subjects::subject::Namespace;
use rollbook_core::time::Timestamp;
use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::value::RawValue;

use crate::base::json::{self, Wait};
use crate::base::slot::Slot;
use crate::bus::error::Fault;
use crate::bus::read::encoder::{EVENT_SLOTS, EventEncoder};
use crate::bus::read::event_json;
use crate::bus::read::redelivery::Redelivery;
use crate::bus::write::draft::{Draft, Parsed, Publish, Writable, due, frame, namespace, parse_rfc3339};
use crate::bus::write::headers::HeadersJson;

use super::headers::RequestHeaders;

/// The part of an event that is being read, so that an error can name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Part {
    #[default]
    Frame,
    /// The value of the field of this name. `None` stands for a field that the protocol does not know.
    Text(Option<&'static str>),
    /// The headers, which are an object.
    Headers,
    /// The payload, or the text between the payload and the next name.
    Payload,
}

/// The fields of an event that are strings.
const TEXTS: [&str; 8] = ["id", "trace_id", "key", "subject", "response_subject", "created_at", "delay", "at"];

/// How far the reader of an event came, for the text of an error.
#[derive(Debug, Default)]
struct Progress {
    part: Cell<Part>,
    /// Whether the field of a time holds no valid time.
    bad_time: Cell<bool>,
    /// Whether a payload is nested deeper than allowed.
    too_deep: Cell<bool>,
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

/// Reads one event and records the progress.
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
            let known = TEXTS.iter().find(|known| **known == name.as_ref()).copied();
            self.0.part.set(Part::Text(known));
            let field = match name.as_ref() {
                "id" => &mut draft.id,
                "trace_id" => &mut draft.trace_id,
                "key" => &mut draft.key,
                "subject" => &mut draft.subject,
                "response_subject" => &mut draft.response_subject,
                "at" => &mut draft.at,
                "delay" => {
                    draft.delay = map.next_value::<Option<Wait>>()?.map(|Wait(time)| time);
                    self.0.part.set(Part::Frame);
                    continue;
                }
                "created_at" => {
                    let text = text(&mut map)?;
                    self.0.bad_time.set(!text.is_empty() && parse_rfc3339(&text).is_none());
                    draft.created_at = Some(text);
                    self.0.part.set(Part::Frame);
                    continue;
                }
                "payload" => {
                    self.0.part.set(Part::Payload);
                    let payload: &RawValue = map.next_value()?;
                    if !json::is_shallow(payload.get().as_bytes(), json::DEPTH_MAX) {
                        self.0.too_deep.set(true);
                    }
                    draft.payload = Some(Cow::Borrowed(payload));
                    continue;
                }
                "headers" => {
                    self.0.part.set(Part::Headers);
                    draft.headers = map.next_value::<Option<HeadersJson>>()?.unwrap_or_default().0;
                    self.0.part.set(Part::Frame);
                    continue;
                }
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    self.0.part.set(Part::Frame);
                    continue;
                }
            };
            *field = text(&mut map)?;
            self.0.part.set(Part::Frame);
        }
        Ok(draft)
    }
}

/// Reads a member that is text. `null`, an empty text and a missing member mean the same.
fn text<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Cow<'de, str>, A::Error> {
    Ok(map.next_value::<Option<Text<'de>>>()?.map_or(Cow::Borrowed(""), |Text(text)| text))
}

/// Reads an array of events.
struct BatchSeed<'p>(&'p Progress);

impl<'de> Visitor<'de> for BatchSeed<'_> {
    type Value = Vec<Draft<'de>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of events")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let mut drafts = Vec::new();
        while let Some(draft) = items.next_element_seed(EventSeed(self.0))? {
            if drafts.len() >= BATCH_EVENTS_MAX {
                return Err(A::Error::custom(format_args!("more than {BATCH_EVENTS_MAX} events")));
            }
            drafts.push(draft);
        }
        Ok(drafts)
    }
}

/// The data that a publish is read with, beside its body.
pub(super) struct Context<'c> {
    /// The time for events without a time of their own.
    pub(super) now: Timestamp,
    /// The namespaces that clients may publish to.
    pub(super) enabled: &'c Writable<'c>,
    /// The headers of the request, which apply to all its events.
    pub(super) common: &'c RequestHeaders,
    /// How long all events of the request wait that do not say it themselves.
    pub(super) wait: CommonWait<'c>,
}

/// How long all events of a request wait that do not say it themselves.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct CommonWait<'c> {
    pub(super) delay: Option<Duration>,
    pub(super) at: &'c str,
}

impl<'c> CommonWait<'c> {
    /// Adds the wait to an event that has none.
    fn add_to<'d>(self, draft: &mut Draft<'d>)
    where
        'c: 'd,
    {
        if draft.delay.is_none() && draft.at.is_empty() {
            (draft.delay, draft.at) = (self.delay, Cow::Borrowed(self.at));
        }
    }
}

/// Reads the body of a publish.
pub(super) fn parse_publish(body: &[u8], context: &Context<'_>) -> Result<Parsed, Fault> {
    let progress = Progress::default();
    let parsed = parse(body, context, &progress)?;
    if progress.too_deep.get() {
        return Err(too_deep());
    }
    Ok(parsed)
}

/// The refusal of a payload that is nested too deep.
pub(super) fn too_deep() -> Fault {
    Fault::bad(format!("invalid payload: {}", json::TOO_DEEP))
}

/// Reads the body of a restore. Payloads may have any depth, because an older release may have stored them.
pub(super) fn parse_restore(body: &[u8], context: &Context<'_>) -> Result<Parsed, Fault> {
    parse(body, context, &Progress::default())
}

fn parse(body: &[u8], context: &Context<'_>, progress: &Progress) -> Result<Parsed, Fault> {
    let body = json::without_mark(body);
    let start = body.iter().position(|byte| !byte.is_ascii_whitespace()).ok_or_else(|| Fault::bad("empty body"))?;
    let text = std::str::from_utf8(body).map_err(|error| {
        let at = error.valid_up_to();
        Fault::bad(format!("body is not valid UTF-8; from byte {at} on: an event is JSON in UTF-8"))
    })?;
    match body.get(start) {
        Some(b'[') => parse_batch(text, context, progress),
        Some(b'{') => parse_single(text, context, progress),
        _ => Err(Fault::bad(format!("expected opening brace; a body is {EXAMPLE}, or an array of such events"))),
    }
}

/// A valid event, for texts of errors.
const EXAMPLE: &str = r#"{"subject":"app.orders","payload":{"n":1}}"#;

/// The refusal of a `delay` that is no time.
const INVALID_DELAY: &str =
    "invalid delay: a time with its unit, as in \"10s\" or \"1h30m\", or a number of milliseconds";

/// The line and column of an error in the JSON.
fn place(error: &serde_json::Error) -> String {
    format!("line {}, column {}", error.line(), error.column())
}

fn parse_single(text: &str, context: &Context<'_>, progress: &Progress) -> Result<Parsed, Fault> {
    let mut json = serde_json::Deserializer::from_str(text);
    let draft = EventSeed(progress).deserialize(&mut json);
    let draft = draft.map_err(|error| match (error.classify(), progress.part.get()) {
        (Category::Eof | Category::Io, _) => Fault::bad("incomplete event"),
        (_, Part::Payload) if progress.bad_time.get() => Fault::bad("invalid timestamp format"),
        (_, Part::Payload) => Fault::bad(format!("invalid payload: not valid JSON; {}", place(&error))),
        (_, Part::Text(Some("delay"))) => Fault::bad(INVALID_DELAY),
        (_, Part::Text(Some(field))) => {
            Fault::bad(format!("expected string; \"{field}\" is one in double quotes: {}", place(&error)))
        }
        (_, Part::Headers) => Fault::bad(format!("invalid headers: {error}")),
        (_, Part::Text(None) | Part::Frame) => Fault::bad(format!(
            "expected string; {}: names of fields are in double quotes, as in {EXAMPLE}",
            place(&error)
        )),
    })?;
    // An error of the time comes before errors of later fields.
    draft.created_at(context.now)?;
    json.end().map_err(|error| {
        let place = place(&error);
        Fault::bad(format!("unexpected data after event; {place}: many events are an array, [{{...}},{{...}}]"))
    })?;
    publish_one(draft, text.len(), context)
}

/// Builds the publish of one event, whose body had so many bytes.
pub(super) fn publish_one<'c>(mut draft: Draft<'c>, bytes: usize, context: &Context<'c>) -> Result<Parsed, Fault> {
    context.common.add_to(std::slice::from_mut(&mut draft), bytes)?;
    context.wait.add_to(&mut draft);
    draft.publish(context.now, context.enabled)
}

fn parse_batch(text: &str, context: &Context<'_>, progress: &Progress) -> Result<Parsed, Fault> {
    let mut json = serde_json::Deserializer::from_str(text);
    let drafts = json.deserialize_seq(BatchSeed(progress)).and_then(|drafts| json.end().map(|()| drafts));
    let drafts = drafts.map_err(|error| match error.classify() {
        Category::Eof => Fault::bad("unexpected end of JSON input"),
        Category::Io | Category::Syntax | Category::Data => match progress.part.get() {
            Part::Text(Some("delay")) if error.is_data() => Fault::bad(format!("invalid batch: {INVALID_DELAY}")),
            Part::Text(Some(field)) if error.is_data() => {
                Fault::bad(format!("invalid batch: expected string; \"{field}\" is one: {}", place(&error)))
            }
            _ => Fault::bad(format!("invalid batch: {error}")),
        },
    })?;
    publish_all(drafts, text.len(), context)
}

/// Builds the publish of many events, whose body had so many bytes.
pub(super) fn publish_all<'c>(
    mut drafts: Vec<Draft<'c>>,
    bytes: usize,
    context: &Context<'c>,
) -> Result<Parsed, Fault> {
    let &Context { now, enabled, common, wait } = context;
    drafts.iter_mut().for_each(|draft| wait.add_to(draft));
    let wait = drafts.first().map_or(Ok(None), Draft::wait).map_err(|fault| of_item(1, fault))?;
    let now = due(wait, now);
    // Errors of single events come first.
    let times = (1..).zip(&drafts).map(|(item, draft)| draft.created_at(now).map_err(|fault| of_item(item, fault)));
    let times: Vec<Timestamp> = times.collect::<Result<_, _>>()?;
    if drafts.is_empty() {
        return Err(Fault::bad("empty batch"));
    }
    let answered = |draft: &Draft<'_>| !draft.response_subject.is_empty();
    refuse_where(&drafts, answered, "batch items must not have response subject")?;
    let waits_else = |draft: &Draft<'_>| draft.wait() != Ok(wait);
    refuse_where(&drafts, waits_else, "all events in batch must wait for the same time")?;
    common.add_to(&mut drafts, bytes)?;
    let mut events = Vec::with_capacity(drafts.len());
    for (item, (draft, created_at)) in (1..).zip(drafts.iter().zip(times)) {
        draft.check_subjects().and_then(|()| draft.check_fields()).map_err(|fault| of_item(item, fault))?;
        events.push(draft.event(created_at));
    }
    let is_inbox = |draft: &Draft<'_>| draft.subject.split('.').next() == Some(Namespace::INBOX);
    refuse_where(&drafts, is_inbox, "batch cannot publish to the reserved _bus_ namespace")?;
    let first = events.first().map_or("", |event| event.subject);
    let common = namespace(first, enabled)?;
    // A namespace that is not enabled is reported before a second namespace.
    let mut other = false;
    for event in &events {
        let name = event.subject.split('.').next().unwrap_or_default();
        if name != common {
            namespace(event.subject, enabled)?;
            other = true;
        }
    }
    if other {
        return Err(Fault::bad("all events in batch must belong to the same namespace"));
    }
    let frame = frame(common, &events, wait)?;
    Ok(Parsed::Publish(Publish { namespace: common.to_owned(), frame, single: None }))
}

/// Refuses the first event of an array that `is_refused` selects.
fn refuse_where(
    drafts: &[Draft<'_>],
    is_refused: impl Fn(&Draft<'_>) -> bool,
    text: &'static str,
) -> Result<(), Fault> {
    let item = (1..).zip(drafts).find(|(_, draft)| is_refused(draft));
    item.map_or(Ok(()), |(item, _)| Err(of_item(item, Fault::bad(text))))
}

/// Adds the number of the event in the array, counted from 1, to the text of a fault.
fn of_item(item: u64, fault: Fault) -> Fault {
    Fault { text: format!("{}; item {item} of the array", fault.text).into(), ..fault }
}

/// Writes the frames of a stream of events.
#[derive(Debug)]
pub(super) struct Frames {
    /// Whether a frame says that its event comes again. In the form of the specification it is the same, byte for byte.
    tells: bool,
}

/// Frames in the form of the specification.
pub(super) static FRAMES: Frames = Frames { tells: false };
/// Frames for clients that asked for more than one event at a time.
pub(super) static TELLING_FRAMES: Frames = Frames { tells: true };

/// The slot of the encoded frames. First deliveries are the same in both forms, and others are for one stream.
static SLOT: Slot = Slot::of(&EVENT_SLOTS);

impl EventEncoder for Frames {
    fn slot(&self) -> usize {
        SLOT.number()
    }

    fn event(&self, index: i64, event: &Event<'_>, again: Option<&Redelivery>, out: &mut Vec<u8>) {
        let again = again.filter(|_| self.tells);
        message(index, event, out, |out| event_json::write_delivery(index, event, again, out));
    }

    fn keep_alive(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b": ping\n\n");
    }

    fn gap(&self, first: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(format!(": events are missing, the first that is kept has index {first}\n\n").as_bytes());
    }

    fn begin(&self, id: &str, out: &mut Vec<u8>) {
        // Browsers keep the id of a block without data and deliver no event.
        out.extend_from_slice(format!("id: {id}\n\n").as_bytes());
    }

    fn failure(&self, text: &str, out: &mut Vec<u8>) {
        out.extend_from_slice(b"event: error\n");
        data_lines(text.as_bytes(), out);
        out.push(b'\n');
    }

    fn end_with_retry(&self, retry_millis: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("retry: {retry_millis}\n\n").as_bytes());
    }
}

/// Appends a message with the id of the event. `data` writes the data.
pub(super) fn message(index: i64, event: &Event<'_>, out: &mut Vec<u8>, data: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(b"id: ");
    event.write_id(u64::try_from(index).unwrap_or(0), out);
    out.extend_from_slice(b"\nevent: msg\ndata: ");
    let start = out.len();
    data(out);
    // This is rare: only pretty-printed payloads hold line breaks.
    if memchr2(b'\n', b'\r', out.get(start..).unwrap_or_default()).is_some() {
        let data = out.split_off(start);
        out.truncate(start.saturating_sub(b"data: ".len()));
        data_lines(&data, out);
    } else {
        out.push(b'\n');
    }
    out.push(b'\n');
}

/// Writes data as one `data:` line for each line of the data. A bare CR is a line break too.
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
