//! The disposition of a dead letter: what has become of the letter, who did it, and when.
//!
//! A disposition is an event of the namespace `_dead_`, behind its letter. Its id follows from the position of the
//! letter, and the rules store an id once, so of two operators at two nodes exactly one is done with the letter.
//! Retention removes the disposition after its letter, and never before.

use rollbook_core::entry::{FLAG_INTERNAL, FLAG_KEYED, begin_publish, finish_publish};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;
use rollbook_core::subjects::subject::Namespace;
use rollbook_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::letter::{Letter, is_disposition};
use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;

/// The subject of dispositions of letters whose event was published again.
const RETRIED: &str = "_dead_._dead_.retried";
/// The subject of dispositions of letters that were put away.
const DISCARDED: &str = "_dead_._dead_.discarded";

/// What has become of a letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The event was published again.
    Retried {
        /// Under this subject.
        to: String,
        /// The id of the new event.
        event_id: String,
        /// The position of the new event.
        event_index: u64,
    },
    /// The letter was put away.
    Discarded,
}

/// The disposition of a letter that is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disposition {
    /// Id of the letter.
    pub letter: String,
    /// Position of the letter.
    pub index: u64,
    /// What has become of the letter.
    pub outcome: Outcome,
    /// Who did it.
    pub by: String,
    /// When.
    pub at: Timestamp,
}

/// The payload of a disposition.
#[derive(Serialize, Deserialize)]
struct DispositionJson {
    letter: String,
    index: u64,
    by: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    event_index: Option<u64>,
}

/// The id of the disposition of the letter at a position.
#[must_use]
pub fn id_of(index: u64) -> String {
    format!("done-{index}")
}

/// Whether a disposition was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// Now.
    Now,
    /// The letter has one from before.
    Before,
}

impl Disposition {
    /// The disposition of a letter that somebody is done with now.
    #[must_use]
    pub fn new(letter: &Letter, outcome: Outcome, by: &str) -> Self {
        Self { letter: letter.id.clone(), index: letter.index, outcome, by: by.to_owned(), at: clock::timestamp() }
    }

    /// Reads an event of the namespace `_dead_`; `None` for an event that is no disposition.
    #[must_use]
    pub fn read(event: &Event<'_>) -> Option<Self> {
        let json: DispositionJson =
            serde_json::from_slice(event.payload.filter(|_| is_disposition(event.subject))?).ok()?;
        let outcome = match event.subject {
            RETRIED => Outcome::Retried { to: json.to?, event_id: json.event_id?, event_index: json.event_index? },
            DISCARDED => Outcome::Discarded,
            _ => return None,
        };
        Some(Self { letter: json.letter, index: json.index, outcome, by: json.by, at: event.created_at })
    }

    /// Whether the letter was retried, and this is the new event: another node may have been faster to say so.
    #[must_use]
    pub fn is_of_event(&self, id: &str) -> bool {
        matches!(&self.outcome, Outcome::Retried { event_id, .. } if event_id == id)
    }

    /// What the disposition says, for people.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { letter, by, at, .. } = self;
        match &self.outcome {
            Outcome::Retried { to, event_id, .. } => {
                format!("dead letter {letter} was retried at {at} by {by}: event {event_id} of {to}")
            }
            Outcome::Discarded => format!("dead letter {letter} was discarded at {at} by {by}"),
        }
    }

    /// Stores the disposition, unless the letter has one.
    ///
    /// # Errors
    /// The cluster does not take it now, or nobody knows whether it has; trying again does no harm.
    pub async fn store(&self, bus: &Bus) -> Result<Stored, Fault> {
        match bus.proposer().propose(self.frame()?.into()).await {
            Ok(_) => Ok(Stored::Now),
            Err(Refusal::EventIdExists(_)) => Ok(Stored::Before),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// The publish of the disposition.
    fn frame(&self) -> Result<Vec<u8>, Refusal> {
        let malformed = |error: &dyn std::fmt::Display| Refusal::Malformed(error.to_string());
        let (subject, to, event_id, event_index) = match &self.outcome {
            Outcome::Retried { to, event_id, event_index } => {
                (RETRIED, Some(to.clone()), Some(event_id.clone()), Some(*event_index))
            }
            Outcome::Discarded => (DISCARDED, None, None, None),
        };
        let (letter, by) = (self.letter.clone(), self.by.clone());
        let json = DispositionJson { letter, index: self.index, by, to, event_id, event_index };
        let payload = serde_json::to_vec(&json).map_err(|error| malformed(&error))?;
        let id = id_of(self.index);
        let event = Event { id: &id, subject, created_at: self.at, payload: Some(&payload), ..Event::default() };
        let mut frame = Vec::new();
        begin_publish(&mut frame, Namespace::DEAD)?;
        event.encode(&mut frame).map_err(|error| malformed(&error))?;
        finish_publish(&mut frame, 0, FLAG_INTERNAL | FLAG_KEYED, 1)?;
        Ok(frame)
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::entry::{Frame, frames};
    use rollbook_core::event::is_event_id;

    use super::super::letter::tests::letter;
    use super::*;

    #[test]
    fn a_mark_reads_back_from_what_is_published() {
        let retried = Outcome::Retried { to: "work.b".into(), event_id: "e_1".into(), event_index: 9 };
        for outcome in [retried, Outcome::Discarded] {
            let disposition = Disposition::new(&letter(5, "work.a", "bad"), outcome, "user:ann");
            let frame = disposition.frame().unwrap();
            let Some(Frame::Publish(publish)) = frames(&frame, 1).next() else { panic!("no publish") };
            assert_eq!((publish.namespace, publish.events), ("_dead_", 1));
            let (event, _) = Event::decode(publish.records).unwrap();
            assert_eq!(event.id, "done-5");
            assert_eq!(Disposition::read(&event), Some(disposition));
        }
    }

    #[test]
    fn the_id_of_a_mark_is_one_that_an_event_may_have() {
        assert!(is_event_id(&id_of(u64::MAX)));
    }

    #[test]
    fn what_is_no_mark_is_not_read_as_one() {
        let payload = br#"{"letter":"e","index":1,"by":"user:ann"}"#.as_slice();
        for (subject, payload) in
            [("_dead_.work.a", payload), (RETRIED, payload), (DISCARDED, b"{}"), ("_dead_._dead_.other", payload)]
        {
            assert_eq!(
                Disposition::read(&Event { subject, payload: Some(payload), ..Event::default() }),
                None,
                "{subject}"
            );
        }
    }
}
