//! Turns the parameters of a request into a subscription, a publish or an acknowledgement, with the error texts of
//! the protocol. Pure.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use rollbook_core::subjects::pattern::Pattern;

use super::codec::CommonWait;
use crate::base::duration;
use crate::bus::delivery::acknowledgement::{Acknowledgement, Parameters};
use crate::bus::delivery::filter::HeaderFilter;
use crate::bus::delivery::order::OrderBy;
use crate::bus::delivery::policy::DeliveryPolicy;
use crate::bus::error::Fault;
use crate::bus::subscribe::batch::Batch;
use crate::bus::subscribe::request::{self, Durable, Start, Subscribe, is_name};

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

    /// All values of a parameter.
    fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.as_ref())
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

/// Reads how long the events of a publish wait that do not say it themselves: `delay` or `at`.
pub(super) fn wait<'q>(query: &'q Query<'_>) -> Result<CommonWait<'q>, Fault> {
    let delay = query.given("delay").map(duration::parse).transpose();
    let delay = delay.map_err(|error| Fault::bad(format!("invalid delay: {error}")))?;
    Ok(CommonWait { delay, at: query.given("at").unwrap_or_default() })
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
    let since = time(query, "since")?;
    let start = start.map_or_else(|| Start::named(query.given("start"), since), Ok)?;
    let backoff = query.given("backoff").map_or_else(|| Ok(Arc::default()), request::backoff)?;
    // The form of the specification has one event at a time.
    let in_flight_max = query.given("max_in_flight").map_or(Ok(1), in_flight)?;
    let dead_letter = query.given("dead_letter").map(|text| request::dead_letter(text, &pattern)).transpose()?;
    let policy = DeliveryPolicy { redelivery, backoff, count_max, in_flight_max, quota: None, dead_letter };
    let limit = query.given("limit").map(|text| text.parse().map_err(|_| invalid("limit", text))).transpose()?;
    let wanted = Subscribe {
        pattern,
        start,
        manual: manual.then_some(policy),
        consumer_id: consumer_id.map(str::to_owned),
        durable: Durable::named(query.given("consumer"), query.given("group"))?,
        filter: HeaderFilter::parse(query.all("header"))?,
        order_by: query.given("order_by").map(OrderBy::parse).transpose()?,
        batch: Batch::named(limit, time(query, "wait")?)?,
    };
    wanted.checked()
}

fn invalid(name: &str, text: &str) -> Fault {
    Fault::bad(format!("invalid {name}: {text}"))
}

fn time(query: &Query<'_>, name: &str) -> Result<Option<Duration>, Fault> {
    query.given(name).map(|text| duration::parse(text).map_err(|_| invalid(name, text))).transpose()
}

fn in_flight(text: &str) -> Result<u32, Fault> {
    request::max_in_flight(text.parse().map_err(|_| invalid("max_in_flight", text))?)
}

fn redelivery(text: Option<&str>) -> Result<Duration, Fault> {
    let Some(text) = text else { return Ok(DeliveryPolicy::default().redelivery) };
    let time = duration::parse(text).map_err(|_| invalid("redelivery", text))?;
    let short = || Fault::bad(format!("invalid redelivery: {text}, at least 100ms"));
    request::redelivery(Some(time)).ok_or_else(short)
}

fn deliveries(text: Option<&str>) -> Result<u32, Fault> {
    let Some(text) = text else { return Ok(DeliveryPolicy::default().count_max) };
    let count: i64 = text.parse().map_err(|_| invalid("redelivery_count", text))?;
    Ok(u32::try_from(count.max(0)).unwrap_or(u32::MAX))
}

fn is_consumer_id(text: &str) -> bool {
    text.strip_prefix("c_").is_some_and(is_name)
}

/// What a client says of events of a stream.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Ack {
    pub(super) consumer_id: String,
    pub(super) said: Acknowledgement,
    /// Whether the id is not of the server's form. Such an id is valid only while an event with that id is in flight.
    pub(super) unusual: bool,
}

/// The fault for the id of an event that does not exist.
pub(super) fn invalid_event_id() -> Fault {
    Fault::bad("invalid event_id in query string")
}

/// Whether an acknowledgement names its events in the body: a JSON array of ids.
pub(super) fn names_in_body(query: &Query<'_>) -> bool {
    ["event_id", "event_ids", "up_to"].into_iter().all(|name| query.given(name).is_none())
}

/// Reads an acknowledgement, with the body if the events are named there. An empty body names none.
pub(super) fn ack(query: &Query<'_>, body: &[u8]) -> Result<Ack, Fault> {
    let consumer_id = query.given("consumer_id").ok_or_else(|| Fault::bad("missing consumer_id in query string"))?;
    if !consumer_id.starts_with("c_") {
        return Err(Fault::bad("invalid consumer_id in query string"));
    }
    let text = |name| query.given(name).map(str::to_owned);
    let mut event_ids: Option<Vec<String>> =
        query.given("event_ids").map(|ids| ids.split(',').map(str::to_owned).collect());
    if names_in_body(query) {
        if body.is_empty() {
            return Err(Fault::bad("missing event_id in query string"));
        }
        let ids =
            serde_json::from_slice(body).map_err(|_| Fault::bad("invalid body: expected a JSON array of event ids"))?;
        event_ids = Some(ids);
    }
    let delay = query.given("delay").map(duration::parse).transpose().map_err(|_| Fault::bad("invalid delay"))?;
    let (event_id, up_to) = (text("event_id"), text("up_to"));
    let parameters = Parameters { event_id, event_ids, up_to, action: text("action"), delay, reason: text("reason") };
    let said = parameters.read()?;
    let unusual = said.single().is_some_and(|id| !id.starts_with("e_"));
    Ok(Ack { consumer_id: consumer_id.to_owned(), said, unusual })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::delivery::acknowledgement::{Outcome, Which};
    use crate::net::http::status::status;

    /// A subscription as one line: pattern, start, manual, consumer id, durable.
    fn subscribed(query: &str, last_event_id: Option<&str>) -> String {
        let query = Query::parse(query);
        let wanted = pattern(&query).and_then(|pattern| subscribe(&query, pattern, last_event_id));
        let Subscribe { pattern, start, manual, consumer_id, durable, filter, order_by, batch } = match wanted {
            Ok(wanted) => wanted,
            Err(rejected) => {
                assert_eq!(status(rejected.kind), 400);
                return rejected.text.into_owned();
            }
        };
        let mut line = format!("{pattern} ");
        match start {
            Start::Oldest => line.push_str("oldest"),
            Start::Newest => line.push_str("newest"),
            Start::After(id) => line.push_str(&format!("after {id}")),
            Start::Resume(id) => line.push_str(&format!("resumes after {id}")),
            Start::At(time) => line.push_str(&format!("at {time}")),
            Start::Since(ago) => line.push_str(&format!("since {}s", ago.as_secs())),
            Start::LastPerSubject => line.push_str("last of each subject"),
        }
        if let Some(patience) = manual {
            line.push_str(&format!(" manual {}ms x{}", patience.redelivery.as_millis(), patience.count_max));
            line.extend(patience.dead_letter.map(|subject| format!(" letters {}", subject.as_str())));
        }
        if let Some(id) = consumer_id {
            line.push_str(&format!(" as {id}"));
        }
        if let Some(durable) = durable {
            let kind = if durable.group { "group" } else { "consumer" };
            line.push_str(&format!(" {kind} {}", durable.name));
            line.push_str(&durable.member.map(|member| format!(" member {member}")).unwrap_or_default());
        }
        filter.iter().for_each(|(name, value)| line.push_str(&format!(" {name}={value}")));
        line.push_str(&order_by.map(|by| format!(" by {}", by.text())).unwrap_or_default());
        line.push_str(&batch.map(|of| format!(" {} in {}ms", of.limit, of.wait.as_millis())).unwrap_or_default());
        line
    }

    #[test]
    fn parameters_of_a_subscription() {
        let long = "n".repeat(64);
        for (query, want) in [
            ("", "missing subject in query string"),
            ("start=oldest", "missing subject in query string"),
            ("subject=", "subject is empty"),
            ("subject=a", "invalid subject: missing namespace"),
            ("subject=*.a", "subject should not start with *"),
            ("subject=a.%3E.b", "subject should not have anything after >"),
            ("subject=a.**.b", "subject should not have anything after **"),
            ("subject=_bus_.*", "inbox subjects cannot contain wildcards"),
            ("subject=a.%FF", "subject should have only letters, digits, dots, _, -, and in a pattern * and >"),
            ("subject=a.b%0Aid:x", "subject should have only letters, digits, dots, _, -, and in a pattern * and >"),
            ("subject=a.b", "a.b newest"),
            ("subject=a.b&subject=a.c", "a.b newest"),
            ("subject=a.**&start=&ack=&redelivery=0s", "a.** newest"),
            ("subject=a.%3E&start=oldest&ack=none", "a.> oldest"),
            ("subject=a.b&start=newest&unknown=1", "a.b newest"),
            ("subject=a.b&start=e_1", "a.b after e_1"),
            ("subject=a.b&start=anything", "a.b after anything"),
            ("subject=a.b&ack=manual", "a.b newest manual 5000ms x3"),
            ("subject=a.b&ack=manual&redelivery=1m30s&redelivery_count=1", "a.b newest manual 90000ms x1"),
            ("subject=a.b&ack=manual&redelivery=0&redelivery_count=-4", "a.b newest manual 5000ms x0"),
            ("subject=a.b&ack=manual&redelivery_count=99999999999", "a.b newest manual 5000ms x4294967295"),
            ("subject=a.b&ack=none&redelivery=1s", "a.b newest"),
            ("subject=a.b&ack=auto", "invalid ack: auto"),
            ("subject=a.b&redelivery=5", "invalid redelivery: 5"),
            ("subject=a.b&redelivery=-5s", "invalid redelivery: -5s"),
            ("subject=a.b&redelivery=1ns", "invalid redelivery: 1ns, at least 100ms"),
            ("subject=a.b&ack=manual&redelivery=99.9ms", "invalid redelivery: 99.9ms, at least 100ms"),
            ("subject=a.b&ack=manual&redelivery=100ms", "a.b newest manual 100ms x3"),
            ("subject=a.b&redelivery_count=3.0", "invalid redelivery_count: 3.0"),
            ("subject=a.b&consumer_id=c_1-A_z", "a.b newest as c_1-A_z"),
            ("subject=a.b&consumer_id=c_", "invalid consumer_id in query string"),
            ("subject=a.b&consumer_id=x", "invalid consumer_id in query string"),
            ("subject=a.b&consumer_id=c_a%0Aid:x", "invalid consumer_id in query string"),
            ("subject=a.b&ack=manual&dead_letter=a.failed", "a.b newest manual 5000ms x3 letters a.failed"),
            ("subject=a.b&ack=manual&dead_letter=", "a.b newest manual 5000ms x3"),
            ("subject=a.b&dead_letter=a.*", "dead_letter: subject should not have * or >"),
            ("subject=a.b&dead_letter=_dead_.x", "dead_letter: namespace _dead_ is reserved"),
            ("subject=a.b&dead_letter=_bus_.x", "dead_letter: namespace _bus_ is reserved"),
            ("subject=a.%3E&ack=manual&dead_letter=a.b", "dead_letter: a.> itself gets a.b"),
            ("subject=a.b&consumer=w", "a.b newest consumer w"),
            ("subject=a.b&group=w&ack=manual", "a.b newest manual 5000ms x3 group w"),
            ("subject=a.b&group=w&consumer=m", "a.b newest group w member m"),
            ("subject=a.b&consumer=a.b", "invalid consumer: a.b"),
            ("subject=a.b&group=%20", "invalid group:  "),
            ("subject=a.b&start=2026-11-29T10:00:00Z", "a.b at 2026-11-29T10:00:00Z"),
            ("subject=a.b&start=2026-11-29T10:00:00%2B01:00", "a.b at 2026-11-29T09:00:00Z"),
            ("subject=a.b&since=10m", "a.b since 600s"),
            ("subject=a.b&since=soon", "invalid since: soon"),
            ("subject=a.b&since=1s&start=oldest", "one of start and since"),
            ("subject=a.b&start=last_per_subject", "a.b last of each subject"),
            (
                "subject=a.b&start=last_per_subject&group=g",
                "start: last_per_subject cannot be the start of a durable consumer",
            ),
            ("subject=a.b&header=region:eu&header=kind:x", "a.b newest region=eu kind=x"),
            ("subject=a.b&ack=manual&order_by=/id", "a.b newest manual 5000ms x3 by /id"),
            (
                "subject=a.b&order_by=subject",
                "order_by: only with ack=manual, because an event waits until the one before is done",
            ),
            ("subject=a.b&start=oldest&limit=7", "a.b oldest 7 in 1000ms"),
            ("subject=a.b&group=g&ack=manual&limit=7&wait=5s", "a.b newest manual 5000ms x3 group g 7 in 5000ms"),
            ("subject=a.b&group=g&limit=7", "limit: with a consumer or group only with ack=manual"),
            ("subject=a.b&limit=0", "limit: 1 to 4096"),
            ("subject=a.b&limit=x", "invalid limit: x"),
            ("subject=a.b&wait=1s", "wait: only with limit"),
            ("subject=_bus_.x&limit=1", "inbox subjects have no limit and no header filter"),
            ("subject=_bus_.x&consumer=w", "inbox subjects cannot have a durable consumer"),
            ("subject=_bus_.x&ack=manual&start=oldest", "_bus_.x oldest manual 5000ms x3"),
        ] {
            assert_eq!(subscribed(query, None), want, "{query}");
        }
        assert_eq!(subscribed(&format!("subject=a.b&group={long}"), None), format!("a.b newest group {long}"));
        assert_eq!(subscribed(&format!("subject=a.b&group={long}n"), None), format!("invalid group: {long}n"));
        assert_eq!(subscribed("subject=a.b&start=oldest", Some("e_7")), "a.b resumes after e_7");
        assert_eq!(subscribed("subject=a.b&start=oldest", Some("")), "a.b oldest");
    }

    #[test]
    fn parameters_of_an_acknowledgement() {
        let read = |query: &str, body: &[u8]| match ack(&Query::parse(query), body) {
            Ok(Ack { consumer_id, said: Acknowledgement { which, outcome }, unusual }) => {
                let which = match which {
                    Which::Ids(ids) => ids.join(" "),
                    Which::UpTo(id) => format!("up to {id}"),
                };
                let outcome = if outcome == Outcome::Ack { String::new() } else { format!(" {outcome:?}") };
                format!("{consumer_id} {which} {unusual}{outcome}")
            }
            Err(Fault { kind, text, .. }) => format!("{} {text}", status(kind).as_u16()),
        };
        let text = |query: &str| read(query, b"");
        for (query, want) in [
            ("", "400 missing consumer_id in query string"),
            ("event_id=e_1", "400 missing consumer_id in query string"),
            ("consumer_id=&event_id=e_1", "400 missing consumer_id in query string"),
            ("consumer_id=x&event_id=e_1", "400 invalid consumer_id in query string"),
            ("consumer_id=c_1", "400 missing event_id in query string"),
            ("consumer_id=c_1&event_id=", "400 missing event_id in query string"),
            ("consumer_id=c_1&event_id=e_1", "c_1 e_1 false"),
            ("event_id=e_1&consumer_id=c_1&more=x", "c_1 e_1 false"),
            ("consumer_id=c_1&event_id=mine%3A1", "c_1 mine:1 true"),
            ("consumer_id=c_1&event_ids=e_1,e_2", "c_1 e_1 e_2 false"),
            ("consumer_id=c_1&up_to=e_9", "c_1 up to e_9 false"),
            ("consumer_id=c_1&event_id=e_1&action=nack&delay=3s", "c_1 e_1 false Nack(Some(3s))"),
            ("consumer_id=c_1&event_id=e_1&action=in_progress", "c_1 e_1 false InProgress"),
            ("consumer_id=c_1&event_id=e_1&action=reject&reason=no", "c_1 e_1 false Reject(\"no\")"),
            ("consumer_id=c_1&event_id=e_1&up_to=e_2", "400 one of event_id, event_ids and up_to"),
            ("consumer_id=c_1&event_id=e_1&delay=soon", "400 invalid delay"),
        ] {
            assert_eq!(text(query), want, "{query}");
        }
        assert_eq!(read("consumer_id=c_1", b"[\"e_1\",\"e_2\"]"), "c_1 e_1 e_2 false");
        for wrong in [&b"{}"[..], b"[1]", b"[\"e_1\""] {
            assert_eq!(read("consumer_id=c_1", wrong), "400 invalid body: expected a JSON array of event ids");
        }
        assert_eq!(invalid_event_id().text, "invalid event_id in query string");
    }

    #[test]
    fn the_defaults_of_the_protocol() {
        let query = Query::parse("subject=a.b&ack=manual");
        let wanted = subscribe(&query, pattern(&query).unwrap(), None).unwrap();
        let patience = wanted.manual.unwrap();
        assert_eq!((patience.redelivery, patience.count_max), (Duration::from_secs(5), 3));
        assert_eq!((patience.in_flight_max, patience.backoff.len()), (1, 0));
    }
}
