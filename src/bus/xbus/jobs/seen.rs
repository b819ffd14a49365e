//! Which actors were seen at this node, for `lastSeen`: every actor at most once a minute, many in one change.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rollbook_cluster::lock::lock;
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::limits::ACTORS_MAX;

/// Least time between two notes of one actor.
const EVERY: Duration = Duration::from_secs(60);

/// The actors that did something since they were last taken. Clones share one set.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    noted: Arc<Mutex<HashSet<Id>>>,
}

impl Seen {
    /// Notes that an actor did something.
    pub fn note(&self, actor: Id) {
        let mut noted = lock(&self.noted);
        if noted.len() < ACTORS_MAX {
            noted.insert(actor);
        }
    }

    /// Takes those that were noted.
    pub(super) fn take(&self) -> HashSet<Id> {
        std::mem::take(&mut *lock(&self.noted))
    }
}

/// When the replicated state was last told of each actor.
#[derive(Debug, Default)]
pub(super) struct Told {
    at: HashMap<Id, Instant>,
}

impl Told {
    /// Those of the actors of which the state has to be told now. They count as told.
    pub(super) fn due(&mut self, actors: HashSet<Id>, now: Instant) -> Vec<Id> {
        self.at.retain(|_, at| now.saturating_duration_since(*at) < EVERY);
        let due: Vec<Id> = actors.into_iter().filter(|actor| !self.at.contains_key(actor)).collect();
        self.at.extend(due.iter().map(|actor| (*actor, now)));
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_is_told_of_an_actor_at_most_once_a_minute() {
        let (seen, mut told, now) = (Seen::default(), Told::default(), Instant::now());
        let actor = Id::new([1; 16]);
        seen.note(actor);
        seen.note(actor);
        assert_eq!(told.due(seen.take(), now), [actor]);
        seen.note(actor);
        assert_eq!(told.due(seen.take(), now + Duration::from_secs(59)), []);
        seen.note(actor);
        assert_eq!(told.due(seen.take(), now + EVERY), [actor]);
        assert_eq!(told.due(seen.take(), now + EVERY * 2), [], "an actor that did nothing is not told of");
    }
}
