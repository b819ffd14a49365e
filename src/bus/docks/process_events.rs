//! Starts and ends of processes on their way into the book.
//!
//! One task proposes what has come, in order, many at a time. Invariant: the queue is bounded; what finds no room is counted
//! in the log, and nobody waits for the book.

use std::time::Duration;

use rollbook_core::command::Command;
use rollbook_core::dock::change::{Change, Events};
use rollbook_core::dock::event::DockEvent;
use rollbook_core::dock::limits::EVENTS_MAX;
use rollbook_core::error::Refusal;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::bus::handle::Bus;

/// Events that wait.
const WAITING_MAX: usize = 10_000;
/// Pause before a batch is tried again.
const PAUSE: Duration = Duration::from_millis(500);
/// How often a batch is tried.
const TRIES_MAX: u32 = 120;

/// Takes starts and ends of processes for the book. Clones share one queue.
#[derive(Debug, Clone)]
pub(super) struct ProcessEventQueue(mpsc::Sender<DockEvent>);

/// The other end of the queue.
#[derive(Debug)]
pub(super) struct Recorder(mpsc::Receiver<DockEvent>);

/// A queue.
pub(super) fn queue() -> (ProcessEventQueue, Recorder) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (ProcessEventQueue(sender), Recorder(receiver))
}

impl ProcessEventQueue {
    /// Takes an event.
    pub(super) fn tell(&self, event: DockEvent) {
        if self.0.try_send(event).is_err() {
            tracing::warn!("an event of a process is not in the book: {WAITING_MAX} wait already");
        }
    }
}

impl Recorder {
    /// Writes events, until cancelled.
    pub(super) async fn run(mut self, bus: Bus, stop: CancellationToken) {
        let mut batch = Vec::new();
        while stop.run_until_cancelled(self.0.recv_many(&mut batch, EVENTS_MAX)).await.is_some_and(|count| count > 0) {
            let events = std::mem::take(&mut batch);
            if stop.run_until_cancelled(write(&bus, Events { events })).await.is_none() {
                return;
            }
        }
    }
}

async fn write(bus: &Bus, events: Events) {
    for _ in 0..TRIES_MAX {
        match bus.proposer().command(Command::dock(None, Change::Events(events.clone()))).await {
            Ok(_) => return,
            // An event that is written twice is better than one that is missing.
            Err(Refusal::Unavailable(_) | Refusal::Overloaded(_) | Refusal::OutcomeUnknown(_)) => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(refusal) => {
                tracing::warn!(%refusal, count = events.events.len(), "events of processes are not in the book");
                return;
            }
        }
    }
    tracing::warn!(count = events.events.len(), "events of processes are not in the book: the cluster takes nothing");
}
