//! One event of an envelope takes its parts.

use alloc::string::String;

use super::assembly::Fault;
use super::crc::combine;
use super::part::{Part, checksum_start};
use super::row::EventRow;
use crate::xbus::id::Id;
use crate::xbus::limits::{EVENT_TYPE_BYTES_MAX, FRAGMENTS_MAX};

impl EventRow {
    /// An event that is announced, and of which nothing came yet.
    pub(super) fn announced(id: Id) -> Self {
        Self { id: id.to_vec(), ..Self::default() }
    }

    /// Takes a part. Whether it brought something new.
    pub(super) fn take(&mut self, part: &Part) -> Result<bool, Fault> {
        if !self.is_seen() {
            self.begin(part)?;
        } else if !part.event_type.is_empty() && part.event_type != self.event_type {
            return Err(Fault::Reused(self.id()));
        }
        let count = u64::try_from(self.parts.len()).unwrap_or(u64::MAX);
        let place = part.index.map_or(Some(count), |index| index.checked_sub(self.first));
        let again = match place {
            Some(place) if place < count => true,
            Some(place) if place == count => false,
            _ => {
                let wanted = self.first.saturating_add(count);
                return Err(Fault::Gap { event: self.id(), wanted, got: part.index.unwrap_or_default() });
            }
        };
        if again {
            let place = place.and_then(|place| usize::try_from(place).ok());
            let known = place.and_then(|place| self.parts.get(place));
            if known != Some(&part.fingerprint()) {
                return Err(Fault::Reused(self.id()));
            }
        } else {
            self.append(part)?;
        }
        let told = self.totals(part)?;
        self.check()?;
        Ok(!again || told)
    }

    /// Whether the event has this part already.
    pub(super) fn has(&self, part: &Part) -> bool {
        let place = match part.index {
            Some(index) => index.checked_sub(self.first).and_then(|place| usize::try_from(place).ok()),
            None => self.parts.iter().position(|known| *known == part.fingerprint()),
        };
        let known = place.and_then(|place| self.parts.get(place));
        let agrees = |told: u64, known: u64| told == 0 || told == known;
        known == Some(&part.fingerprint())
            && (part.event_type.is_empty() || part.event_type == self.event_type)
            && agrees(part.item_count, self.item_count)
            && agrees(part.checksum.into(), self.checksum.into())
    }

    /// Takes what the server counted as the totals of the event: the sender said that nothing follows.
    pub(super) fn close(&mut self) -> Result<(), Fault> {
        if self.item_count == 0 {
            self.item_count = self.items;
        }
        if self.checksum == 0 {
            self.checksum = self.crc;
        }
        self.check()?;
        // A checksum that is 0 counts too.
        self.complete |= self.items == self.item_count && self.crc == self.checksum;
        if self.complete { Ok(()) } else { Err(Fault::Missing(self.id())) }
    }

    fn begin(&mut self, part: &Part) -> Result<(), Fault> {
        if !(1..=EVENT_TYPE_BYTES_MAX).contains(&part.event_type.len()) {
            return Err(Fault::Type(self.id()));
        }
        self.first = part.index.unwrap_or(1);
        if self.first > 1 {
            return Err(Fault::Gap { event: self.id(), wanted: 1, got: self.first });
        }
        self.event_type = String::clone(&part.event_type);
        self.crc = checksum_start(self.id(), &self.event_type);
        Ok(())
    }

    fn append(&mut self, part: &Part) -> Result<(), Fault> {
        if self.parts.len() >= FRAGMENTS_MAX {
            return Err(Fault::TooMany("fragments", FRAGMENTS_MAX));
        }
        if self.complete && part.items > 0 {
            return Err(Fault::MoreItems(self.id()));
        }
        self.parts.push(part.fingerprint());
        self.items = self.items.saturating_add(part.items);
        self.bytes = self.bytes.saturating_add(part.bytes);
        self.crc = combine(self.crc, part.crc, part.bytes);
        Ok(())
    }

    /// Takes the totals that a part tells. Whether they were not known before.
    fn totals(&mut self, part: &Part) -> Result<bool, Fault> {
        let id = self.id();
        let before = (self.item_count, self.checksum);
        if part.item_count != 0 {
            if ![0, part.item_count].contains(&self.item_count) {
                return Err(Fault::Totals(id));
            }
            self.item_count = part.item_count;
        }
        if part.checksum != 0 {
            if ![0, part.checksum].contains(&self.checksum) {
                return Err(Fault::Totals(id));
            }
            self.checksum = part.checksum;
        }
        Ok(before != (self.item_count, self.checksum))
    }

    fn check(&mut self) -> Result<(), Fault> {
        if self.item_count != 0 && self.items > self.item_count {
            return Err(Fault::MoreItems(self.id()));
        }
        // An event without items tells its checksum alone.
        let whole = self.items == self.item_count && (self.item_count != 0 || self.checksum != 0);
        if whole && self.checksum != 0 && self.checksum != self.crc {
            // With a count of 0 the items may still come: the checksum of all of them is known before their number.
            if self.item_count != 0 {
                return Err(Fault::Checksum { event: self.id(), wanted: self.checksum, got: self.crc });
            }
            return Ok(());
        }
        self.complete |= whole && self.checksum == self.crc;
        Ok(())
    }
}
