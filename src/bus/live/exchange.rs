//! What two nodes tell each other of live subjects: batches as they are sent, and what a node makes of them. Pure.

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use super::filter::LiveSubject;
use super::peers::{BATCH_BYTES, Batch};
use super::route::Wakes;
use super::subjects::{LiveSubjects, OwnRoutes};
use super::table::{InterestChange, Wanted};
use super::wire::{self, HEAD_BYTES, Head, Operation};

/// What is known of the interest of another node.
#[derive(Debug, Clone, Copy)]
struct Known {
    incarnation: u64,
    version: u64,
}

/// What is known of another node.
#[derive(Debug, Default)]
pub(in crate::bus) struct Peer {
    known: Option<Known>,
    /// When the whole interest was demanded last.
    pub(in crate::bus) demanded: Option<Instant>,
    /// The routes of its messages.
    routes: OwnRoutes,
}

/// Whether what is known of another node is what it has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::bus) enum Received {
    InStep,
    /// Something was missed: the node has to tell its whole interest.
    OutOfStep,
}

/// A batch as it is sent: one message, or several before which the whole interest comes.
pub(in crate::bus) fn encode(subjects: &LiveSubjects, Batch { head, operations, whole, .. }: Batch) -> Vec<Bytes> {
    let begin = |head: Head, bytes: usize| {
        let mut out = BytesMut::with_capacity(bytes.saturating_add(HEAD_BYTES));
        head.write(&mut out);
        out
    };
    let mut batches = Vec::new();
    if whole {
        let unchanged = Head { end: head.start, ..head };
        let mut out = begin(unchanged, BATCH_BYTES);
        wire::write_whole(&mut out);
        // Newer than the head says: changes that it has already follow, and change nothing.
        for wanted in &subjects.own_interest() {
            if out.len() >= BATCH_BYTES {
                batches.push(std::mem::replace(&mut out, begin(unchanged, BATCH_BYTES)).freeze());
            }
            wire::write_change(&mut out, InterestChange::Add, wanted);
        }
        batches.push(out.freeze());
    }
    let mut out = begin(head, operations.len());
    out.extend_from_slice(&operations);
    batches.push(out.freeze());
    batches
}

impl Peer {
    /// Nothing that the node wanted counts any more.
    pub(in crate::bus) fn forget(&mut self, subjects: &LiveSubjects, node: u64) {
        *self = Self { demanded: self.demanded, ..Self::default() };
        subjects.set_remote(node, true, Vec::new());
    }

    /// Handles a batch of the node with this number, behind its first byte.
    pub(in crate::bus) fn receive(&mut self, subjects: &LiveSubjects, from: u64, mut bytes: Bytes) -> Received {
        let Some(head) = Head::read(&mut bytes) else {
            tracing::warn!(from, "a live message that cannot be read");
            return Received::OutOfStep;
        };
        let follows =
            self.known.is_some_and(|known| known.incarnation == head.incarnation && known.version == head.start);
        let mut receiving = Receiving { subjects, from, follows, replaces: false, changes: Vec::new() };
        let mut wakes = Wakes::default();
        while !bytes.is_empty() {
            let Some(operation) = wire::read(&mut bytes) else {
                tracing::warn!(from, "a live message of an unknown form, perhaps of a newer release");
                receiving.follows = false;
                break;
            };
            receiving.take(operation, &mut self.routes, &mut wakes);
        }
        receiving.make_changes();
        let known = Known { incarnation: head.incarnation, version: head.end };
        self.known = receiving.follows.then_some(known);
        if receiving.follows { Received::InStep } else { Received::OutOfStep }
    }
}

/// A batch that is being handled.
struct Receiving<'a> {
    subjects: &'a LiveSubjects,
    from: u64,
    /// Whether changes follow what is known.
    follows: bool,
    /// Whether nothing from before the changes counts.
    replaces: bool,
    /// Changes that were read and not made yet.
    changes: Vec<(InterestChange, Wanted)>,
}

impl Receiving<'_> {
    fn take(&mut self, operation: Operation, routes: &mut OwnRoutes, wakes: &mut Wakes) {
        match operation {
            Operation::Whole => {
                self.changes.clear();
                (self.follows, self.replaces) = (true, true);
            }
            Operation::Change(change, wanted) if self.follows => self.changes.push((change, wanted)),
            Operation::Change(..) | Operation::Unusable => {}
            Operation::Message(plain, groups, message) => {
                self.make_changes();
                if let Ok(subject) = LiveSubject::parse(message.subject.clone()) {
                    let to = (plain, groups.as_slice());
                    self.subjects.deliver_from_peer(&subject, &message, to, (routes, wakes));
                }
            }
        }
    }

    /// Makes the changes together: each change of the table invalidates all routes.
    fn make_changes(&mut self) {
        let replaces = std::mem::take(&mut self.replaces);
        if replaces || !self.changes.is_empty() {
            self.subjects.set_remote(self.from, replaces, std::mem::take(&mut self.changes));
        }
    }
}
