//! Envelopes in one piece, for programs that take no fragments.

use std::collections::HashMap;

use rollbook_core::xbus::id::Id;

use crate::bus::error::Fault;
use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::envelopes::json::body::{JsonEnvelope, JsonEvent};
use crate::bus::xbus::envelopes::storage::{self, Fragments};
use crate::bus::xbus::envelopes::stored;

/// An envelope in one piece, if its items have at most `bytes_max` bytes; else `None`. The envelope has to be complete
/// somewhere in the cluster.
///
/// # Errors
/// The store failed, or the envelope is gone.
pub async fn whole(client: &XbusClient, envelope: Id, bytes_max: u64) -> Result<Option<JsonEnvelope>, Fault> {
    let gone = || Fault::internal(format!("envelope {envelope} is gone from the book"));
    let count = storage::start(client, envelope).await?.fragments;
    let row = client.envelope(envelope).await?.ok_or_else(gone)?;
    if row.bytes > bytes_max {
        return Ok(None);
    }
    let (mut fragments, mut joined) = (Fragments::of(client.clone(), envelope), Joined::default());
    for _ in 0..count {
        let payload = fragments.next().await?.ok_or_else(gone)?;
        joined.take(stored::fragment(&payload)?);
    }
    Ok(Some(joined.end(envelope)))
}

/// The fragments so far.
#[derive(Debug, Default)]
struct Joined {
    event_ids: Vec<Id>,
    events: Vec<JsonEvent>,
    /// Where each event is in the list.
    places: HashMap<Id, usize>,
}

impl Joined {
    fn take(&mut self, fragment: JsonEnvelope) {
        if self.event_ids.is_empty() {
            self.event_ids = fragment.event_ids;
        }
        for mut event in fragment.events {
            let id = event.id.unwrap_or_default();
            let present = self.places.get(&id).and_then(|place| self.events.get_mut(*place));
            let Some(present) = present else {
                self.places.insert(id, self.events.len());
                self.events.push(event);
                continue;
            };
            present.items.append(&mut event.items);
            if event.checksum != 0 {
                present.checksum = event.checksum;
            }
        }
    }

    fn end(mut self, envelope: Id) -> JsonEnvelope {
        for event in &mut self.events {
            event.index = Some(1);
            event.count = u64::try_from(event.items.len()).unwrap_or(u64::MAX);
        }
        if self.event_ids.is_empty() {
            self.event_ids = self.events.iter().filter_map(|event| event.id).collect();
        }
        JsonEnvelope { id: Some(envelope), event_ids: self.event_ids, events: self.events, last: true }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: u8, index: u64, items: &[&str], checksum: u32) -> JsonEvent {
        let items = items.iter().map(|item| item.as_bytes().to_vec()).collect();
        let (id, event_type) = (Some(Id::new([id; 16])), "t".to_owned());
        JsonEvent { id, event_type, index: Some(index), count: 0, checksum, items }
    }

    #[test]
    fn the_parts_of_an_event_become_one() {
        let mut joined = Joined::default();
        let fragment = |events, last| JsonEnvelope { id: None, event_ids: Vec::new(), events, last };
        joined.take(fragment(vec![part(1, 1, &["a"], 0), part(2, 1, &["x"], 7)], false));
        joined.take(fragment(vec![part(1, 2, &["b", "c"], 9), part(2, 2, &[], 0)], true));
        let whole = joined.end(Id::new([5; 16]));
        assert_eq!((whole.id, whole.last), (Some(Id::new([5; 16])), true));
        assert_eq!(whole.event_ids, [Id::new([1; 16]), Id::new([2; 16])]);
        let [first, second] = &whole.events[..] else { panic!("two events") };
        assert_eq!((first.items.concat(), first.count, first.checksum), (b"abc".to_vec(), 3, 9));
        assert_eq!((second.items.len(), second.checksum, second.index), (1, 7, Some(1)));
    }
}
