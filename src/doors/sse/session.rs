//! Turns the parameters of a request into a subscription, a publish or an acknowledgement, with the error texts of
//! the protocol. Pure.

use std::borrow::Cow;
use std::time::Duration;

use rollbook_core::subjects::pattern::Pattern;

use crate::base::duration;
use crate::bus::delivery::window::RedeliveryPolicy;
use crate::bus::error::Fault;
use crate::bus::subscribe::request::{self, Start, Subscribe, is_name};

/// The parameters of a request. The first one of a name counts.
#[derive(Debug)]
pub(super) struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).collect())
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_ref())
    }

    /// The value of a parameter. An empty value counts as absent.
    fn given(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }
}

/// Reads the pattern, which is the first check of every subscription.
pub(super) fn pattern(query: &Query<'_>) -> Result<Pattern, Fault> {
    let text = query.get("subject").ok_or_else(|| Fault::bad("missing subject in query string"))?;
    Pattern::parse(text).map_err(|error| Fault::bad(error.to_string()))
}

/// Reads whether a publish is part of a restore.
pub(super) fn restores(query: &Query<'_>) -> Result<bool, Fault> {
    match query.given("restore") {
        None | Some("false") => Ok(false),
        Some("true") => Ok(true),
        Some(other) => Err(Fault::bad(format!("invalid restore: {other}"))),
    }
}

/// Reads the subject that a publish of CloudEvents names for all its events.
pub(super) fn publish_subject<'q>(query: &'q Query<'_>) -> Option<&'q str> {
    query.given("subject")
}

/// Reads the other parameters of a subscription.
pub(super) fn subscribe(query: &Query<'_>, pattern: Pattern, last_event_id: Option<&str>) -> Result<Subscribe, Fault> {
    let manual = match query.given("ack") {
        None | Some("none") => false,
        Some("manual") => true,
        Some(other) => return Err(Fault::bad(format!("invalid ack: {other}"))),
    };
    let redelivery = redelivery(query.given("redelivery"))?;
    let count_max = deliveries(query.given("redelivery_count"))?;
    let consumer_id = query.given("consumer_id");
    if consumer_id.is_some_and(|id| !is_consumer_id(id)) {
        return Err(Fault::bad("invalid consumer_id in query string"));
    }
    let start = last_event_id.filter(|id| !id.is_empty()).map(|id| Start::Resume(id.to_owned()));
    let start = start.unwrap_or_else(|| Start::parse(query.given("start")));
    let manual = manual.then_some(RedeliveryPolicy { redelivery, count_max });
    let wanted = Subscribe { pattern, start, manual, consumer_id: consumer_id.map(str::to_owned), durable: None };
    wanted.named(query.given("consumer"), query.given("group"))
}

fn redelivery(text: Option<&str>) -> Result<Duration, Fault> {
    let Some(text) = text else { return Ok(RedeliveryPolicy::default().redelivery) };
    let time = duration::parse(text).map_err(|_| Fault::bad(format!("invalid redelivery: {text}")))?;
    let short = || Fault::bad(format!("invalid redelivery: {text}, at least 100ms"));
    request::redelivery(Some(time)).ok_or_else(short)
}

fn deliveries(text: Option<&str>) -> Result<u32, Fault> {
    let Some(text) = text else { return Ok(RedeliveryPolicy::default().count_max) };
    let count: i64 = text.parse().map_err(|_| Fault::bad(format!("invalid redelivery_count: {text}")))?;
    Ok(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
}

fn is_consumer_id(text: &str) -> bool {
    text.strip_prefix("c_").is_some_and(is_name)
}

/// A request to acknowledge an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) consumer_id: String,
    pub(super) event_id: String,
    /// Whether the id is not of the server's form. Such an id is valid only while an event with that id is in flight.
    pub(super) unusual: bool,
}

/// The fault for the id of an event that does not exist.
pub(super) fn invalid_event_id() -> Fault {
    Fault::bad("invalid event_id in query string")
}

/// Reads an acknowledgement.
pub(super) fn ack(query: &Query<'_>) -> Result<Ack, Fault> {
    let consumer_id = query.given("consumer_id").ok_or_else(|| Fault::bad("missing consumer_id in query string"))?;
    if !consumer_id.starts_with("c_") {
        return Err(Fault::bad("invalid consumer_id in query string"));
    }
    let event_id = query.given("event_id").ok_or_else(|| Fault::bad("missing event_id in query string"))?;
    let unusual = !event_id.starts_with("e_");
    Ok(Ack { consumer_id: consumer_id.to_owned(), event_id: event_id.to_owned(), unusual })
}
