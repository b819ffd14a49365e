//! What a client says of the events that it was given, in the same words through every door.

use std::time::Duration;

use crate::bus::error::Fault;

/// Most events that one acknowledgement may name.
pub const EVENTS_MAX: usize = 4096;
/// Longest reason of a reject, in bytes.
pub const REASON_BYTES_MAX: usize = 1024;

/// Of which events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// These, by their ids; at most [`EVENTS_MAX`].
    Ids(Vec<String>),
    /// All that the member has, up to the one of this id.
    UpTo(String),
}

/// What has become of the events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// They are processed.
    Ack,
    /// They are not, and shall be delivered again: after this time, or that of the back-off, or at once.
    Nack(Option<Duration>),
    /// They are being processed: the wait for their acknowledgement begins anew.
    InProgress,
    /// They cannot be processed, for this reason, and become dead letters now.
    Reject(String),
}

/// What a client says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Acknowledgement {
    /// Of which events.
    pub which: Which,
    /// What has become of them.
    pub outcome: Outcome,
}

impl Acknowledgement {
    /// The event of this id is processed.
    #[must_use]
    pub fn of(event_id: impl Into<String>) -> Self {
        Self { which: Which::Ids(vec![event_id.into()]), outcome: Outcome::Ack }
    }

    /// The id of the event, when this is of one event.
    #[must_use]
    pub fn single(&self) -> Option<&str> {
        match &self.which {
            Which::Ids(ids) => <&[String; 1]>::try_from(ids.as_slice()).ok().map(|[id]| id.as_str()),
            Which::UpTo(_) => None,
        }
    }
}

/// An acknowledgement, as a door reads it from a client. Its parameters have the same names through every door.
#[derive(Debug, Clone, Default)]
pub struct Parameters {
    /// One event.
    pub event_id: Option<String>,
    /// Many events.
    pub event_ids: Option<Vec<String>>,
    /// The last of those that are meant, with all before it.
    pub up_to: Option<String>,
    /// `ack`, which is the default, `nack`, `in_progress` or `reject`.
    pub action: Option<String>,
    /// With `nack`: when the events are delivered again.
    pub delay: Option<Duration>,
    /// With `reject`: why.
    pub reason: Option<String>,
}

impl Parameters {
    /// Checks them.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn read(self) -> Result<Acknowledgement, Fault> {
        let Self { event_id, event_ids, up_to, action, delay, reason } = self;
        let which = match (event_id, event_ids, up_to) {
            (Some(id), None, None) => Which::Ids(vec![id]),
            (None, Some(ids), None) if (1..=EVENTS_MAX).contains(&ids.len()) => Which::Ids(ids),
            (None, Some(_), None) => return Err(Fault::bad(format!("event_ids: 1 to {EVENTS_MAX} ids"))),
            (None, None, Some(id)) => Which::UpTo(id),
            (None, None, None) => return Err(Fault::bad("event_id: missing")),
            _ => return Err(Fault::bad("one of event_id, event_ids and up_to")),
        };
        let outcome = match action.as_deref() {
            None | Some("ack") => Outcome::Ack,
            Some("nack") => Outcome::Nack(delay),
            Some("in_progress") => Outcome::InProgress,
            Some("reject") => Outcome::Reject(reason.clone().unwrap_or_else(|| "rejected".to_owned())),
            Some(_) => return Err(Fault::bad("action: expected \"ack\", \"nack\", \"in_progress\" or \"reject\"")),
        };
        if delay.is_some() && !matches!(outcome, Outcome::Nack(_)) {
            return Err(Fault::bad("delay: only with the action \"nack\""));
        }
        if reason.is_some() && !matches!(outcome, Outcome::Reject(_)) {
            return Err(Fault::bad("reason: only with the action \"reject\""));
        }
        if reason.is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
            return Err(Fault::bad(format!("reason: at most {REASON_BYTES_MAX} bytes")));
        }
        Ok(Acknowledgement { which, outcome })
    }
}

/// What an acknowledgement has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Acknowledged {
    /// How many events were in flight.
    pub count: u32,
    /// The ids that were not in flight.
    pub not_in_flight: Vec<String>,
}

impl Acknowledged {
    /// Nothing of it was in flight.
    #[must_use]
    pub fn nothing(acknowledgement: &Acknowledgement) -> Self {
        let not_in_flight = match &acknowledgement.which {
            Which::Ids(ids) => ids.clone(),
            Which::UpTo(id) => vec![id.clone()],
        };
        Self { count: 0, not_in_flight }
    }

    /// Whether any event was in flight.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.count > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(parameters: Parameters) -> Result<Acknowledgement, String> {
        parameters.read().map_err(|fault| fault.text.into_owned())
    }

    #[test]
    fn one_event_many_or_all_up_to_one_are_named() {
        let one = Parameters { event_id: Some("e".into()), ..Parameters::default() };
        assert_eq!(read(one.clone()), Ok(Acknowledgement::of("e")));
        let many = Parameters { event_ids: Some(vec!["a".into(), "b".into()]), ..Parameters::default() };
        assert_eq!(read(many).unwrap().which, Which::Ids(vec!["a".into(), "b".into()]));
        let up_to = Parameters { up_to: Some("e".into()), ..Parameters::default() };
        assert_eq!(read(up_to.clone()).unwrap().which, Which::UpTo("e".into()));
        for wrong in [
            Parameters::default(),
            Parameters { event_ids: Some(Vec::new()), ..Parameters::default() },
            Parameters { event_ids: Some(vec![String::new(); EVENTS_MAX + 1]), ..Parameters::default() },
            Parameters { up_to: up_to.up_to, ..one },
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn an_action_has_its_own_parameters_and_no_others() {
        let with = |action: &str, delay: Option<u64>, reason: Option<&str>| {
            read(Parameters {
                event_id: Some("e".into()),
                action: Some(action.to_owned()),
                delay: delay.map(Duration::from_secs),
                reason: reason.map(str::to_owned),
                ..Parameters::default()
            })
            .map(|said| said.outcome)
        };
        assert_eq!(with("ack", None, None), Ok(Outcome::Ack));
        assert_eq!(with("nack", Some(3), None), Ok(Outcome::Nack(Some(Duration::from_secs(3)))));
        assert_eq!(with("in_progress", None, None), Ok(Outcome::InProgress));
        assert_eq!(with("reject", None, Some("no")), Ok(Outcome::Reject("no".into())));
        assert_eq!(with("reject", None, None), Ok(Outcome::Reject("rejected".into())));
        let long = "x".repeat(REASON_BYTES_MAX + 1);
        for (action, delay, reason) in
            [("maybe", None, None), ("ack", Some(1), None), ("nack", None, Some("x")), ("reject", None, Some(&*long))]
        {
            assert!(with(action, delay, reason).is_err(), "{action}");
        }
    }
}
