//! What a request means: parameters to a decision, with the error texts of the protocol. Pure.

use std::borrow::Cow;
use std::time::Duration;

use rollbook_core::pattern::Pattern;

use super::codec::Rejected;
use crate::bus::duration;
use crate::bus::window::Patience;

/// Redelivery time when the client names none.
const REDELIVERY: Duration = Duration::from_secs(5);
/// Deliveries of an event when the client names no count.
const DELIVERIES: u32 = 3;

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Start {
    Oldest,
    Newest,
    After(String),
}

/// A subscription as it was asked for.
#[derive(Debug, Clone)]
pub(super) struct Subscribe {
    pub(super) pattern: Pattern,
    pub(super) start: Start,
    /// `Some` with `ack=manual`.
    pub(super) manual: Option<Patience>,
    pub(super) consumer_id: Option<String>,
    pub(super) durable: Option<Durable>,
}

/// A named cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Durable {
    /// Name of the cursor.
    pub(super) name: String,
    /// Members share it.
    pub(super) group: bool,
    /// Stable name of this member in a group.
    pub(super) member: Option<String>,
}

/// The parameters of a request, first one of a name counts.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// Absent and empty are the same.
    fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

fn bad(text: impl Into<Cow<'static, str>>) -> Rejected {
    Rejected { status: 400, text: text.into() }
}

/// Reads the pattern: the first check of every subscription.
pub(super) fn pattern(query: &Query<'_>) -> Result<Pattern, Rejected> {
    let text = query.get("subject").ok_or_else(|| bad("missing subject in query string"))?;
    Pattern::parse(text).map_err(|error| bad(error.to_string()))
}

/// Reads the rest of a subscription.
pub(super) fn subscribe(
    query: &Query<'_>,
    pattern: Pattern,
    last_event_id: Option<&str>,
) -> Result<Subscribe, Rejected> {
    let manual = match query.given("ack") {
        None | Some("none") => false,
        Some("manual") => true,
        Some(other) => return Err(bad(format!("invalid ack: {other}"))),
    };
    let redelivery = redelivery(query.given("redelivery"))?;
    let count_max = deliveries(query.given("redelivery_count"))?;
    let consumer_id = query.given("consumer_id");
    if consumer_id.is_some_and(|id| !is_consumer_id(id)) {
        return Err(bad("invalid consumer_id in query string"));
    }
    let durable = durable(query)?;
    if durable.is_some() && pattern.is_inbox() {
        return Err(bad("inbox subjects cannot have a durable consumer"));
    }
    let start = match last_event_id.filter(|id| !id.is_empty()) {
        Some(id) => Start::After(id.to_owned()),
        None => match query.given("start") {
            None | Some("newest") => Start::Newest,
            Some("oldest") => Start::Oldest,
            Some(id) => Start::After(id.to_owned()),
        },
    };
    Ok(Subscribe {
        pattern,
        start,
        manual: manual.then_some(Patience { redelivery, count_max }),
        consumer_id: consumer_id.map(str::to_owned),
        durable,
    })
}

fn redelivery(text: Option<&str>) -> Result<Duration, Rejected> {
    let Some(text) = text else { return Ok(REDELIVERY) };
    let wrong = || bad(format!("invalid redelivery: {text}"));
    let parsed = duration::parse(text).map_err(|_| wrong())?;
    Ok(if parsed.is_zero() { REDELIVERY } else { parsed })
}

fn deliveries(text: Option<&str>) -> Result<u32, Rejected> {
    let Some(text) = text else { return Ok(DELIVERIES) };
    let count: i64 = text.parse().map_err(|_| bad(format!("invalid redelivery_count: {text}")))?;
    Ok(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
}

fn durable(query: &Query<'_>) -> Result<Option<Durable>, Rejected> {
    let name = |parameter: &'static str| match query.given(parameter) {
        None => Ok(None),
        Some(text) if is_name(text) => Ok(Some(text.to_owned())),
        Some(text) => Err(bad(format!("invalid {parameter}: {text}"))),
    };
    let (consumer, group) = (name("consumer")?, name("group")?);
    Ok(match (consumer, group) {
        (None, None) => None,
        (Some(name), None) => Some(Durable { name, group: false, member: None }),
        (member, Some(name)) => Some(Durable { name, group: true, member }),
    })
}

/// 1 to 64 of `[A-Za-z0-9_-]`.
fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn is_consumer_id(text: &str) -> bool {
    text.strip_prefix("c_").is_some_and(is_name)
}

/// An acknowledgement as it was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) consumer_id: String,
    pub(super) event_id: String,
    /// The event id is not of the server's form: fine only while such an event is in flight.
    pub(super) unusual: bool,
}

/// The refusal of an event id that nobody knows.
pub(super) fn invalid_event_id() -> Rejected {
    bad("invalid event_id in query string")
}

/// Reads an acknowledgement.
pub(super) fn ack(query: &Query<'_>) -> Result<Ack, Rejected> {
    let consumer_id = query.given("consumer_id").ok_or_else(|| bad("missing consumer_id in query string"))?;
    if !consumer_id.starts_with("c_") {
        return Err(bad("invalid consumer_id in query string"));
    }
    let event_id = query.given("event_id").ok_or_else(|| bad("missing event_id in query string"))?;
    let unusual = !event_id.starts_with("e_");
    Ok(Ack { consumer_id: consumer_id.to_owned(), event_id: event_id.to_owned(), unusual })
}
