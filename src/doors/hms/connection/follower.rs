//! Output of processes for one client.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::outbox::Outbox;
use crate::bus::docks::output;
use crate::bus::docks::process_filter::ProcessFilter;
use crate::bus::live::message::{Delivered, LiveMessage, LiveSink};
use crate::bus::security::identity::Identity;

/// The number of the subscription to all processes.
pub(super) const ALL: u64 = 0;

/// Takes output of processes for one client, as far as the client may see the processes.
#[derive(Debug)]
pub(super) struct Follower {
    client: u64,
    outbox: Arc<Outbox>,
    /// The client follows all processes: each message comes by that subscription alone.
    all: AtomicBool,
    filter: ProcessFilter,
}

impl Follower {
    pub(super) fn new(client: u64, identity: Arc<Identity>, outbox: Arc<Outbox>) -> Arc<Self> {
        let filter = ProcessFilter::new(identity);
        Arc::new(Self { client, outbox, all: AtomicBool::new(false), filter })
    }

    /// Whether the client follows all processes.
    pub(super) fn set_all(&self, all: bool) {
        self.all.store(all, Ordering::Release);
    }

    /// Rights have changed.
    pub(super) fn forget_rights(&self) {
        self.filter.forget();
    }
}

impl LiveSink for Follower {
    fn deliver(&self, subscription: u64, message: &LiveMessage) -> Delivered {
        if subscription != ALL && self.all.load(Ordering::Acquire) {
            return Delivered::Queued;
        }
        let Some(output) = output::read(message).filter(|output| self.filter.has(output)) else {
            return Delivered::Queued;
        };
        if self.outbox.deliver(output) { Delivered::Sleeping } else { Delivered::Queued }
    }

    fn wake(&self) {
        self.outbox.wake();
    }

    fn client(&self) -> u64 {
        self.client
    }
}
