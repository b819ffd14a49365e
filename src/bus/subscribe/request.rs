//! What a client says of a stream that it wants, and what is meant by it: the same through every door.

use std::time::Duration;

use rollbook_core::subjects::pattern::Pattern;

use crate::bus::delivery::window::{REDELIVERY_MIN, RedeliveryPolicy};
use crate::bus::error::Fault;

/// Where a subscription begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// With the first event that is kept.
    Oldest,
    /// With the next one.
    Newest,
    /// Behind the event of this id.
    After(String),
    /// Behind the event of this id, which the client has had: when it is gone by now, with the first event that is
    /// kept.
    Resume(String),
}

/// A subscription as it was asked for.
#[derive(Debug, Clone)]
pub struct Subscribe {
    /// What it wants.
    pub pattern: Pattern,
    /// Where it begins.
    pub start: Start,
    /// `Some`: the client acknowledges.
    pub manual: Option<RedeliveryPolicy>,
    /// The id of the stream when the client chooses it.
    pub consumer_id: Option<String>,
    /// `Some`: the cursor is kept under a name.
    pub durable: Option<Durable>,
}

/// What a client says of a stream that it wants, beside others on one connection; the usual where it says nothing.
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
    /// How long to wait for an acknowledgement, at least [`REDELIVERY_MIN`]; 0: the usual time.
    pub redelivery: Option<Duration>,
    /// How often to send at most; 0: for ever.
    pub redelivery_count: Option<u64>,
}

impl Options<'_> {
    /// The subscription that this is.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn subscribe(&self) -> Result<Subscribe, Fault> {
        let count = self.redelivery_count.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
        let short = || Fault::bad("redelivery: at least 100ms, as \"5s\", or 0 for the usual time");
        let policy = RedeliveryPolicy {
            redelivery: redelivery(self.redelivery).ok_or_else(short)?,
            count_max: count.unwrap_or(RedeliveryPolicy::default().count_max),
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

/// How long to wait for an acknowledgement: the usual time when nothing or 0 is said, `None` when it is too short to
/// be meant.
#[must_use]
pub fn redelivery(said: Option<Duration>) -> Option<Duration> {
    let wait = said.filter(|wait| !wait.is_zero()).unwrap_or(RedeliveryPolicy::default().redelivery);
    (wait >= REDELIVERY_MIN).then_some(wait)
}

impl Subscribe {
    /// The same under the name of a consumer or group, if one is said.
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
    /// What `start` says; nothing is the newest.
    #[must_use]
    pub fn parse(text: Option<&str>) -> Self {
        match text {
            None | Some("newest") => Self::Newest,
            Some("oldest") => Self::Oldest,
            Some(id) => Self::After(id.to_owned()),
        }
    }
}

/// A named cursor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Durable {
    /// Name of the cursor.
    pub name: String,
    /// Members share it.
    pub group: bool,
    /// Stable name of this member in a group.
    pub member: Option<String>,
}

impl Durable {
    /// What the names of a consumer and of a group mean together.
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

/// 1 to 64 of `[A-Za-z0-9_-]`.
#[must_use]
pub fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}
