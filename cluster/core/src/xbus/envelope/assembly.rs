//! A fragment changes an envelope.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use super::part::{Fragment, Part};
use super::row::{EnvelopeRow, EnvelopeStatus, EventRow};
use crate::xbus::id::Id;
use crate::xbus::limits::{ENVELOPE_BYTES_MAX, EVENTS_MAX, FRAGMENTS_MAX, PARTS_MAX, STALL_MS};

/// What is wrong with an envelope. The texts go to its sender.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The items are not those that the sender summed.
    #[error("event {event}: checksum {wanted:#010x} expected, {got:#010x} received")]
    Checksum {
        /// The event.
        event: Id,
        /// What the sender says.
        wanted: u32,
        /// What came.
        got: u32,
    },
    /// More items came than the sender counted.
    #[error("event {0}: more items than itemCount")]
    MoreItems(Id),
    /// The sender told two item counts or checksums.
    #[error("event {0}: itemCount or checksum changed")]
    Totals(Id),
    /// The event is not in the list of events.
    #[error("event {0} is not in eventIDs")]
    UnknownEvent(Id),
    /// The list of events came, and lacks an event of an earlier fragment.
    #[error("an event of an earlier fragment is not in eventIDs")]
    Unlisted,
    /// A fragment of the event is missing.
    #[error("event {event}: index {wanted} expected, {got} received")]
    Gap {
        /// The event.
        event: Id,
        /// The next number.
        wanted: u64,
        /// The number that came.
        got: u64,
    },
    /// Another content came under the same number, or another type.
    #[error("event {0}: id reused with other content")]
    Reused(Id),
    /// Another list of events came, or a list names an event twice.
    #[error("eventIDs changed, or name an event twice")]
    EventIds,
    /// The type of the event is missing or too long.
    #[error("event {0} has no type, or one of more than 255 bytes")]
    Type(Id),
    /// Only the last fragment may leave ids to the server.
    #[error("an event without an id, in a fragment that is not the last")]
    NoId,
    /// The last fragment came before all events were whole.
    #[error("event {0} is not complete in the last fragment")]
    Missing(Id),
    /// The last fragment came before all announced events.
    #[error("the last fragment came, and events are missing")]
    MissingEvents,
    /// An envelope without events carries nothing.
    #[error("an envelope without events")]
    Empty,
    /// An id is not one.
    #[error("an id of an event has not 16 bytes")]
    MalformedId,
    /// A maximum is passed.
    #[error("too many {0}: at most {1}")]
    TooMany(&'static str, usize),
    /// The envelope is too big.
    #[error("an envelope has at most {ENVELOPE_BYTES_MAX} bytes")]
    TooLarge,
}

/// What the sender is told of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ack {
    /// The fragment is stored; more are expected.
    Receiving,
    /// The envelope is complete.
    Accepted,
    /// The envelope, or only this fragment of a complete envelope, is at fault.
    Error(String),
}

/// What a fragment did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    /// What the sender is told.
    pub ack: Ack,
    /// The rows of events to write. When the envelope is in error, none: its event rows can be deleted.
    pub changed: Vec<EventRow>,
    /// The status before, when the envelope has another one now.
    pub was: Option<EnvelopeStatus>,
    /// Whether the fragment brought something new, whose items must be kept.
    pub new_data: bool,
}

/// Which event rows [`EnvelopeRow::receive`] must be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Needed {
    /// Those of these events, if they are there.
    Some(BTreeSet<Id>),
    /// All of the envelope.
    All,
}

impl EnvelopeRow {
    /// Which event rows a fragment touches.
    #[must_use]
    pub fn needs(&self, fragment: &Fragment) -> Needed {
        if fragment.last {
            return Needed::All;
        }
        let parts = fragment.parts.iter().map(|part| &part.event);
        let listed = if self.knows_list(fragment) { &[][..] } else { &fragment.event_ids };
        Needed::Some(parts.chain(listed).filter_map(|id| Id::from_slice(id).ok()).collect())
    }

    /// Takes a fragment. `known` are the event rows that [`Self::needs`] names, as far as they are there.
    ///
    /// A new envelope has its id, its sender and the time `created`.
    pub fn receive(&mut self, known: &BTreeMap<Id, EventRow>, fragment: &Fragment, millis: u64) -> Received {
        let before = self.status();
        if before == EnvelopeStatus::Error {
            let ack = Ack::Error(self.reason.clone());
            return Received { ack, changed: Vec::new(), was: None, new_data: false };
        }
        if before == EnvelopeStatus::Complete {
            let ack = match self.compare(known, fragment) {
                Ok(()) => Ack::Accepted,
                Err(fault) => Ack::Error(fault.to_string()),
            };
            return Received { ack, changed: Vec::new(), was: None, new_data: false };
        }
        let mut step = Step { envelope: self.clone(), known, changed: BTreeMap::new(), new_data: false };
        let (changed, new_data, ack) = match step.take(fragment) {
            Ok(()) => {
                *self = step.envelope;
                self.touched = millis;
                let complete = self.announced == Some(self.complete);
                self.set_status(if complete { EnvelopeStatus::Complete } else { EnvelopeStatus::Receiving });
                let ack = if complete { Ack::Accepted } else { Ack::Receiving };
                (step.changed.into_values().collect(), step.new_data, ack)
            }
            Err(fault) => {
                self.fail(fault.to_string());
                self.touched = millis;
                (Vec::new(), false, Ack::Error(self.reason.clone()))
            }
        };
        let was = Some(before).filter(|before| *before != self.status());
        Received { ack, changed, was, new_data }
    }

    /// Lets time pass: an envelope without new fragments is stalled, and after `retention_ms` in error. The status
    /// before, when the envelope has another one now.
    pub fn expire(&mut self, retention_ms: u64, millis: u64) -> Option<EnvelopeStatus> {
        let idle = millis.saturating_sub(self.touched);
        let before = self.status();
        match before {
            EnvelopeStatus::Receiving if idle >= STALL_MS => self.set_status(EnvelopeStatus::Stalled),
            EnvelopeStatus::Stalled if idle >= retention_ms => self.fail("the rest of the envelope never came".into()),
            _ => return None,
        }
        Some(before)
    }

    /// Puts the envelope in error.
    pub fn fail(&mut self, reason: String) {
        self.set_status(EnvelopeStatus::Error);
        self.reason = reason;
    }

    /// Whether the list of events of a fragment is the one that was announced.
    fn knows_list(&self, fragment: &Fragment) -> bool {
        fragment.event_ids.is_empty() || self.announced.is_some() && self.announced_crc == list_crc(&fragment.event_ids)
    }

    /// Whether a complete envelope has all of a fragment.
    fn compare(&self, known: &BTreeMap<Id, EventRow>, fragment: &Fragment) -> Result<(), Fault> {
        for (position, part) in (0..).zip(&fragment.parts) {
            let id = event_id(self.id(), part, position, fragment.last)?;
            let row = known.get(&id).ok_or(Fault::UnknownEvent(id))?;
            if !row.has(part) {
                return Err(Fault::Reused(id));
            }
        }
        if self.knows_list(fragment) {
            return Ok(());
        }
        let ids = list(&fragment.event_ids)?;
        let same = self.announced == u32::try_from(ids.len()).ok() && ids.iter().all(|id| known.contains_key(id));
        if same { Ok(()) } else { Err(Fault::EventIds) }
    }
}

/// The id of a part, or the one that the server gives.
fn event_id(envelope: Id, part: &Part, position: u32, last: bool) -> Result<Id, Fault> {
    match (part.event.is_empty(), last) {
        (false, _) => Id::from_slice(&part.event).map_err(|_| Fault::MalformedId),
        (true, true) => Ok(Id::of_event(envelope, position)),
        (true, false) => Err(Fault::NoId),
    }
}

/// The ids of a list of events.
fn list(event_ids: &[Vec<u8>]) -> Result<BTreeSet<Id>, Fault> {
    if event_ids.len() > EVENTS_MAX {
        return Err(Fault::TooMany("events", EVENTS_MAX));
    }
    let ids: Result<BTreeSet<Id>, _> = event_ids.iter().map(|id| Id::from_slice(id)).collect();
    let ids = ids.map_err(|_| Fault::MalformedId)?;
    if ids.len() == event_ids.len() { Ok(ids) } else { Err(Fault::EventIds) }
}

fn list_crc(event_ids: &[Vec<u8>]) -> u32 {
    event_ids.iter().fold(0, |crc, id| crc32c::crc32c_append(crc, id))
}

/// One fragment being taken. Nothing of it counts when it has a fault.
struct Step<'a> {
    envelope: EnvelopeRow,
    known: &'a BTreeMap<Id, EventRow>,
    changed: BTreeMap<Id, EventRow>,
    new_data: bool,
}

impl Step<'_> {
    fn take(&mut self, fragment: &Fragment) -> Result<(), Fault> {
        if fragment.parts.len() > EVENTS_MAX {
            return Err(Fault::TooMany("events", EVENTS_MAX));
        }
        // First the list: an event that stands in the list of the same fragment is known.
        if !self.envelope.knows_list(fragment) {
            self.announce(&fragment.event_ids)?;
        }
        for (position, part) in (0..).zip(&fragment.parts) {
            let id = event_id(self.envelope.id(), part, position, fragment.last)?;
            self.part(id, part)?;
        }
        if fragment.last {
            self.close()?;
        }
        self.envelope.fragments = self.envelope.fragments.saturating_add(u32::from(self.new_data));
        if usize::try_from(self.envelope.fragments).unwrap_or(usize::MAX) > FRAGMENTS_MAX {
            return Err(Fault::TooMany("fragments", FRAGMENTS_MAX));
        }
        if self.envelope.bytes > ENVELOPE_BYTES_MAX { Err(Fault::TooLarge) } else { Ok(()) }
    }

    fn row(&self, id: Id) -> Option<&EventRow> {
        self.changed.get(&id).or_else(|| self.known.get(&id))
    }

    fn announce(&mut self, event_ids: &[Vec<u8>]) -> Result<(), Fault> {
        let ids = list(event_ids)?;
        let count = u32::try_from(ids.len()).ok();
        if self.envelope.announced.is_some() {
            // The same events in another order are the same list.
            let same = self.envelope.announced == count && ids.iter().all(|id| self.row(*id).is_some());
            return if same { Ok(()) } else { Err(Fault::EventIds) };
        }
        let mut seen = 0_u32;
        for id in &ids {
            match self.row(*id) {
                Some(_) => seen = seen.saturating_add(1),
                None => drop(self.changed.insert(*id, EventRow::announced(*id))),
            }
        }
        if seen != self.envelope.seen {
            let unlisted = self.known.values().find(|row| !ids.contains(&row.id()));
            return Err(unlisted.map_or(Fault::Unlisted, |row| Fault::UnknownEvent(row.id())));
        }
        self.envelope.announced = count;
        self.envelope.announced_crc = list_crc(event_ids);
        self.new_data = true;
        Ok(())
    }

    fn part(&mut self, id: Id, part: &Part) -> Result<(), Fault> {
        let mut row = match self.row(id) {
            Some(row) => row.clone(),
            None if self.envelope.announced.is_some() => return Err(Fault::UnknownEvent(id)),
            None => EventRow::announced(id),
        };
        let (was_seen, was_complete, bytes, parts) = (row.is_seen(), row.complete, row.bytes, row.parts.len());
        if row.take(part)? {
            let envelope = &mut self.envelope;
            envelope.seen = envelope.seen.saturating_add(u32::from(!was_seen));
            envelope.complete = envelope.complete.saturating_add(u32::from(row.complete && !was_complete));
            envelope.bytes = envelope.bytes.saturating_add(row.bytes.saturating_sub(bytes));
            envelope.parts = envelope.parts.saturating_add(u32::from(row.parts.len() > parts));
            if envelope.parts > PARTS_MAX {
                return Err(Fault::TooMany("parts", usize::try_from(PARTS_MAX).unwrap_or(usize::MAX)));
            }
            if usize::try_from(envelope.seen).unwrap_or(usize::MAX) > EVENTS_MAX {
                return Err(Fault::TooMany("events", EVENTS_MAX));
            }
            self.changed.insert(id, row);
            self.new_data = true;
        }
        Ok(())
    }

    /// The sender says that nothing follows: what it did not count, the server counts.
    fn close(&mut self) -> Result<(), Fault> {
        let rows: BTreeMap<Id, EventRow> =
            self.known.iter().chain(&self.changed).map(|(id, row)| (*id, row.clone())).collect();
        if rows.is_empty() {
            return Err(Fault::Empty);
        }
        for (id, mut row) in rows {
            if !row.is_seen() {
                return Err(Fault::Missing(id));
            }
            if !row.complete {
                row.close()?;
                self.envelope.complete = self.envelope.complete.saturating_add(1);
                self.changed.insert(id, row);
            }
        }
        let announced = self.envelope.announced.get_or_insert(self.envelope.seen);
        if *announced == self.envelope.complete { Ok(()) } else { Err(Fault::MissingEvents) }
    }
}
