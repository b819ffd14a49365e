//! The parameters of a subscription, the same through every door.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::subjects::pattern::Pattern;

use crate::base::duration;
use crate::bus::delivery::policy::{BACKOFF_MAX, DeliveryPolicy, IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX, REDELIVERY_MIN};
use crate::bus::error::Fault;

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the first event that is kept.
    Oldest,
    /// With the next event.
    Newest,
    /// Behind the event of this id, which must exist.
    After(String),
    /// Behind the event of this id, which the client has received. When retention has removed the event, the
    /// subscription begins with the first event that is kept.
    Resume(String),
}

/// A subscription, as a door asks for it.
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// The subjects.
    pub pattern: Pattern,
    /// Where the subscription begins.
    pub start: Start,
    /// The policy of deliveries when the client acknowledges; `None` when it does not.
    pub manual: Option<DeliveryPolicy>,
    /// The consumer id when the client chooses it.
    pub consumer_id: Option<String>,
    /// The durable consumer or group; `None` when the cursor ends with the stream.
    pub durable: Option<Durable>,
}

/// The parameters of a stream on a connection with other streams. An absent parameter means its default.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// A pattern.
    pub subject: &'a str,
    /// See [`Start::parse`].
    pub start: Option<&'a str>,
    /// `none` or `manual`.
    pub ack: Option<&'a str>,
    /// Name of a durable consumer, or of a member when there is a group.
    pub consumer: Option<&'a str>,
    /// Name of a group.
    pub group: Option<&'a str>,
    /// Wait for an acknowledgement, at least [`REDELIVERY_MIN`]; 0 means the default.
    pub redelivery: Option<Duration>,
    /// The waits of the first and further deliveries in place of `redelivery`, separated by commas: `1s,10s,1m`.
    pub backoff: Option<&'a str>,
    /// Most deliveries of one event; 0 means no bound.
    pub redelivery_count: Option<u64>,
    /// Most events in flight, 1 to [`IN_FLIGHT_MAX`]; absent means [`IN_FLIGHT_DEFAULT`].
    pub max_in_flight: Option<u64>,
}

impl Options<'_> {
    /// Checks the parameters.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn subscribe(&self) -> Result<Subscribe, Fault> {
        let count = self.redelivery_count.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let short = || Fault::bad("redelivery: at least 100ms, as \"5s\", or 0 for the usual time");
        let policy = DeliveryPolicy {
            redelivery: redelivery(self.redelivery).ok_or_else(short)?,
            backoff: self.backoff.map_or_else(|| Ok(Arc::default()), backoff)?,
            count_max: count.unwrap_or(DeliveryPolicy::default().count_max),
            in_flight_max: self.max_in_flight.map_or(Ok(IN_FLIGHT_DEFAULT), max_in_flight)?,
        };
        let manual = match self.ack {
            None | Some("none") => None,
            Some("manual") => Some(policy),
            Some(_) => return Err(Fault::bad("ack: expected \"none\" or \"manual\"")),
        };
        let pattern = Pattern::parse(self.subject).map_err(|error| Fault::bad(error.to_string()))?;
        let start = Start::parse(self.start);
        let wanted = Subscribe { pattern, start, manual, consumer_id: None, durable: None };
        wanted.named(self.consumer, self.group)
    }
}

/// The wait for an acknowledgement: the default when the parameter is absent or 0, `None` when it is shorter than
/// [`REDELIVERY_MIN`].
#[must_use]
pub fn redelivery(said: Option<Duration>) -> Option<Duration> {
    let wait = said.filter(|wait| !wait.is_zero()).unwrap_or(DeliveryPolicy::default().redelivery);
    (wait >= REDELIVERY_MIN).then_some(wait)
}

/// The parameter `backoff`.
///
/// # Errors
/// The text is no list of waits, or one of them is too short.
pub fn backoff(text: &str) -> Result<Arc<[Duration]>, Fault> {
    let wrong = || Fault::bad(format!("backoff: 1 to {BACKOFF_MAX} waits of at least 100ms, as \"1s,10s,1m\""));
    let waits: Result<Vec<Duration>, Fault> = text
        .split(',')
        .map(|wait| duration::parse(wait.trim()).ok().filter(|wait| *wait >= REDELIVERY_MIN).ok_or_else(wrong))
        .collect();
    waits.and_then(|waits| if waits.len() <= BACKOFF_MAX { Ok(waits.into()) } else { Err(wrong()) })
}

/// The parameter `max_in_flight`.
///
/// # Errors
/// The number is out of bounds.
pub fn max_in_flight(count: u64) -> Result<u32, Fault> {
    let found = u32::try_from(count).ok().filter(|count| (1..=IN_FLIGHT_MAX).contains(count));
    found.ok_or_else(|| Fault::bad(format!("max_in_flight: 1 to {IN_FLIGHT_MAX}")))
}

impl Subscribe {
    /// The same subscription with a durable consumer or group, if one is named.
    ///
    /// # Errors
    /// One of them is no name, or an inbox cannot have one.
    pub fn named(self, consumer: Option<&str>, group: Option<&str>) -> Result<Self, Fault> {
        let durable = Durable::named(consumer, group)?;
        if durable.is_some() && self.pattern.is_inbox() {
            return Err(Fault::bad("inbox subjects cannot have a durable consumer"));
        }
        Ok(Self { durable, ..self })
    }
}

impl Start {
    /// Reads the parameter `start`; absent means the newest.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            None | Some("newest") => Self::Newest,
            Some("oldest") => Self::Oldest,
            Some(id) => Self::After(id.to_owned()),
        }
    }
}

/// A durable consumer or group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable {
    /// Name of the cursor.
    pub name: String,
    /// Whether members share the cursor.
    pub group: bool,
    /// Stable name of this member in a group.
    pub member: Option<String>,
}

impl Durable {
    /// What the parameters `consumer` and `group` mean together.
    ///
    /// # Errors
    /// One of them is no name; the parameter that it is in.
    pub fn named(consumer: Option<&str>, group: Option<&str>) -> Result<Option<Self>, Fault> {
        let name = |parameter: &'static str, text: Option<&str>| match text {
            None => Ok(None),
            Some(text) if is_name(text) => Ok(Some(text.to_owned())),
            Some(text) => Err(Fault::bad(format!("invalid {parameter}: {text}"))),
        };
        Ok(match (name("consumer", consumer)?, name("group", group)?) {
            (None, None) => None,
            (Some(name), None) => Some(Self { name, group: false, member: None }),
            (member, Some(name)) => Some(Self { name, group: true, member }),
        })
    }
}

/// Whether a text is a name: 1 to 64 of `[A-Za-z0-9_-]`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
