//! What the processes that go on say of actors and nodes, so that nobody searches all of them.

use alloc::collections::BTreeSet;

use super::waiting::Waiting;
use crate::node::Owner;
use crate::persistent::{Map, Set};
use crate::xbus::id::Id;
use crate::xbus::process::row::{JobState, NodeState, ProcessRow, ProcessStatus};

/// Who needs the book. An envelope and a process may have the same id, because senders choose the ids of envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Holder {
    /// An envelope that is coming.
    Envelope(Id),
    /// A process that goes on.
    Process(Id),
}

/// The indexes. Only [`Index::replace`] changes them, so that they say what the rows say.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Index {
    /// Jobs that wait for an actor, of processes that run.
    pub(super) waiting: Set<Waiting>,
    /// Actor and process: the actor has a job, or one waits that is for it alone.
    pub(super) concerned: Set<(Id, Id)>,
    /// Life of a node, process, actor: the actor is connected there and has a job.
    pub(super) served: Set<(Owner, Id, Id)>,
    /// Since when the actor of a detached job is away, and the process.
    pub(super) away: Set<(u64, Id)>,
    /// Processes with a node that waits for its first actor.
    pub(super) without_actor: Set<Id>,
    /// How many jobs each actor has.
    pub(super) load: Map<Id, u32>,
    /// When processes began that go on, and which: nothing that ended before the first of them is needed. A replay
    /// counts as begun when its oldest envelope was there.
    pub(super) began: Set<(u64, Id)>,
    /// Sequence number of the first event of the book that an envelope or process needs, and which that is.
    pub(super) pins: Set<(u64, Holder)>,
}

/// One thing that a process says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Fact {
    Waits(Waiting),
    Concerns(Id),
    Served(Owner, Id),
    Away(u64),
    WithoutActor,
    /// The actor has a job; the second number tells its jobs apart.
    Works(Id, usize, usize),
    Pins(u64),
    Began(u64),
}

/// All that a process says.
fn facts(row: &ProcessRow) -> BTreeSet<Fact> {
    let mut facts = BTreeSet::from([Fact::Began(row.needs_since())]);
    if row.pinned != 0 {
        facts.insert(Fact::Pins(row.pinned));
    }
    let (process, pipeline) = (row.id(), Id::from_slice(&row.pipeline).unwrap_or_default());
    let runs = row.status() == ProcessStatus::Running;
    for (number, node) in row.nodes.iter().enumerate() {
        if node.state() == NodeState::Ready && node.jobs.is_empty() {
            facts.insert(Fact::WithoutActor);
        }
        for (place, job) in node.jobs.iter().enumerate() {
            let (state, actor) = (job.state(), Id::from_slice(&job.actor).unwrap_or_default());
            if state.is_final() {
                continue;
            }
            if actor != Id::default() {
                facts.insert(Fact::Concerns(actor));
            }
            if state == JobState::Ready && runs {
                let node = u32::try_from(number).unwrap_or(u32::MAX);
                facts.insert(Fact::Waits(Waiting { pipeline, node, actor, since: row.created, process }));
            }
            if state.is_live() {
                facts.insert(Fact::Works(actor, number, place));
                if let Some(owner) = job.owner {
                    facts.insert(Fact::Served(owner, actor));
                }
            }
            if job.away_since != 0 {
                facts.insert(Fact::Away(job.away_since));
            }
        }
    }
    facts
}

impl Index {
    /// A process was changed, made or removed.
    pub(super) fn replace(&mut self, was: Option<&ProcessRow>, now: Option<&ProcessRow>) {
        let Some(process) = was.or(now).map(ProcessRow::id) else { return };
        let (before, after) = (was.map(facts).unwrap_or_default(), now.map(facts).unwrap_or_default());
        before.difference(&after).for_each(|fact| self.set(process, fact, false));
        after.difference(&before).for_each(|fact| self.set(process, fact, true));
    }

    fn set(&mut self, process: Id, fact: &Fact, holds: bool) {
        fn put<T: Ord + Clone>(set: &mut Set<T>, value: T, holds: bool) {
            if holds {
                set.insert_mut(value);
            } else {
                set.remove_mut(&value);
            }
        }
        match fact {
            Fact::Waits(waiting) => put(&mut self.waiting, *waiting, holds),
            Fact::Concerns(actor) => put(&mut self.concerned, (*actor, process), holds),
            Fact::Served(owner, actor) => put(&mut self.served, (*owner, process, *actor), holds),
            Fact::Away(since) => put(&mut self.away, (*since, process), holds),
            Fact::WithoutActor => put(&mut self.without_actor, process, holds),
            Fact::Began(at) => put(&mut self.began, (*at, process), holds),
            Fact::Pins(sequence) => put(&mut self.pins, (*sequence, Holder::Process(process)), holds),
            Fact::Works(actor, ..) => {
                let before = self.load.get(actor).copied().unwrap_or_default();
                match if holds { before.saturating_add(1) } else { before.saturating_sub(1) } {
                    0 => {
                        self.load.remove_mut(actor);
                    }
                    now => self.load.insert_mut(*actor, now),
                }
            }
        }
    }

    /// An envelope that is coming needs the book from this sequence number on; 0: nothing of it is there yet.
    pub(super) fn pin(&mut self, sequence: u64, envelope: Id) {
        if sequence != 0 {
            self.pins.insert_mut((sequence, Holder::Envelope(envelope)));
        }
    }

    /// The envelope is not coming any more.
    pub(super) fn unpin(&mut self, sequence: u64, envelope: Id) {
        self.pins.remove_mut(&(sequence, Holder::Envelope(envelope)));
    }
}
