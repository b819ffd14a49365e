//! The parameters of a subscription, the same through every door.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::{Namespace, Subject};
use rollbook_core::time::Timestamp;

use super::batch::Batch;
use crate::base::duration;
use crate::bus::delivery::filter::HeaderFilter;
use crate::bus::delivery::order::OrderBy;
use crate::bus::delivery::policy::{BACKOFF_MAX, DeliveryPolicy, IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX, REDELIVERY_MIN};
use crate::bus::error::Fault;
use crate::bus::write::draft::parse_rfc3339;

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
    /// With the first event that was stored at this time or later.
    At(Timestamp),
    /// With the first event that was stored so long ago or less.
    Since(Duration),
    /// With the newest event of each subject, in the order of their positions, and then with all new ones.
    LastPerSubject,
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
    /// Which events of the subjects.
    pub filter: HeaderFilter,
    /// By what events that are acknowledged are kept in order.
    pub order_by: Option<OrderBy>,
    /// The bounds of a stream that ends by itself.
    pub batch: Option<Batch>,
}

/// The parameters of a stream on a connection with other streams. An absent parameter means its default.
#[derive(Debug, Clone, Copy)]
pub struct Options<'a> {
    /// A pattern.
    pub subject: &'a str,
    /// See [`Start::parse`].
    pub start: Option<&'a str>,
    /// Begins so long ago, in place of `start`.
    pub since: Option<Duration>,
    /// See [`HeaderFilter`].
    pub headers: &'a [(String, String)],
    /// See [`OrderBy::parse`].
    pub order_by: Option<&'a str>,
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
    /// The subject of dead letters, see [`dead_letter`].
    pub dead_letter: Option<&'a str>,
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
            quota: None,
            dead_letter: None,
        };
        let manual = match self.ack {
            None | Some("none") => None,
            Some("manual") => Some(policy),
            Some(_) => return Err(Fault::bad("ack: expected \"none\" or \"manual\"")),
        };
        let pattern = Pattern::parse(self.subject).map_err(|error| Fault::bad(error.to_string()))?;
        let dead_letter = self.dead_letter.map(|text| dead_letter(text, &pattern)).transpose()?;
        let manual = manual.map(|policy| DeliveryPolicy { dead_letter, ..policy });
        let start = Start::named(self.start, self.since)?;
        let wanted = Subscribe {
            pattern,
            start,
            manual,
            consumer_id: None,
            durable: Durable::named(self.consumer, self.group)?,
            filter: HeaderFilter::new(self.headers.iter().cloned())?,
            order_by: self.order_by.map(OrderBy::parse).transpose()?,
            batch: None,
        };
        wanted.checked()
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

/// The parameter `dead_letter`: the subject of the dead letters of a subscription in place of `_dead_.` and the subject of
/// the event. The subscription must not get that subject itself, or a letter that fails would go round for ever.
///
/// # Errors
/// The text is no subject to publish under, or one of the subscription itself.
pub fn dead_letter(text: &str, pattern: &Pattern) -> Result<Subject, Fault> {
    let subject = Subject::parse(text).map_err(|error| Fault::bad(format!("dead_letter: {error}")))?;
    if Namespace::is_reserved(subject.namespace()) {
        return Err(Fault::bad(format!("dead_letter: namespace {} is reserved", subject.namespace())));
    }
    if pattern.matches(text) {
        return Err(Fault::bad(format!("dead_letter: {pattern} itself gets {text}")));
    }
    Ok(subject)
}

impl Subscribe {
    /// A subscription to all events of a pattern, without acknowledgement, whose cursor ends with the stream.
    #[must_use]
    pub fn new(pattern: Pattern, start: Start) -> Self {
        let (manual, consumer_id, durable) = (None, None, None);
        let (filter, order_by, batch) = (HeaderFilter::default(), None, None);
        Self { pattern, start, manual, consumer_id, durable, filter, order_by, batch }
    }

    /// Checks that the parameters fit each other, and sets the bounds of a batch.
    ///
    /// # Errors
    /// Which ones do not.
    pub fn checked(mut self) -> Result<Self, Fault> {
        let (is_inbox, is_durable, is_manual) =
            (self.pattern.is_inbox(), self.durable.is_some(), self.manual.is_some());
        if is_inbox && is_durable {
            return Err(Fault::bad("inbox subjects cannot have a durable consumer"));
        }
        if is_inbox && (self.batch.is_some() || !self.filter.is_empty()) {
            return Err(Fault::bad("inbox subjects have no limit and no header filter"));
        }
        if self.order_by.is_some() && !is_manual {
            return Err(Fault::bad(
                "order_by: only with ack=manual, because an event waits until the one before is done",
            ));
        }
        if self.start == Start::LastPerSubject && is_durable {
            return Err(Fault::bad("start: last_per_subject cannot be the start of a durable consumer"));
        }
        if self.batch.is_some() && is_durable && !is_manual {
            return Err(Fault::bad("limit: with a consumer or group only with ack=manual"));
        }
        if let (Some(batch), Some(policy)) = (self.batch, &mut self.manual) {
            (policy.in_flight_max, policy.quota) = (batch.limit, Some(batch.limit));
        }
        Ok(self)
    }

    /// Whether the client acknowledges one event at a time, or none, as the specification of the event log has it.
    #[must_use]
    pub fn asks_for_one(&self) -> bool {
        self.batch.is_none() && self.manual.as_ref().is_none_or(|policy| policy.in_flight_max == 1)
    }

    /// Whether nodes of the release before could not serve this as a durable consumer.
    #[must_use]
    pub fn is_timed(&self) -> bool {
        self.batch.is_some() || self.order_by.is_some() || !self.filter.is_empty()
    }
}

impl Start {
    /// Reads the parameter `start`; absent means the newest. A text that is a time of RFC 3339 is never an id.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            None | Some("newest") => Self::Newest,
            Some("oldest") => Self::Oldest,
            Some("last_per_subject") => Self::LastPerSubject,
            Some(text) => parse_rfc3339(text).map_or_else(|| Self::After(text.to_owned()), Self::At),
        }
    }

    /// What the parameters `start` and `since` mean together.
    ///
    /// # Errors
    /// Both are given.
    pub fn named(start: Option<&str>, since: Option<Duration>) -> Result<Self, Fault> {
        match (start, since) {
            (None, Some(ago)) => Ok(Self::Since(ago)),
            (Some(_), Some(_)) => Err(Fault::bad("one of start and since")),
            (start, None) => Ok(Self::parse(start)),
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
