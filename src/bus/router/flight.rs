//! One request on its way.

use std::sync::Arc;
use std::time::Instant;

use rollbook_core::service::Connection;

use crate::bus::call::{Outcome, Request};

/// How a caller is told.
pub(super) type Reply = Box<dyn FnOnce(Outcome) + Send>;

/// A request that has no end yet.
pub(super) struct Flight {
    pub(super) request: Arc<Request>,
    pub(super) reply: Reply,
    /// Providers that do not get it again.
    pub(super) tried: Vec<Connection>,
    /// How many of them were lost with it.
    pub(super) lost: u32,
    /// One of them is there but takes nothing more.
    pub(super) full: bool,
    /// Another node has chosen the provider, and chooses the next.
    chosen: bool,
}

/// Who has a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) provider: Connection,
    pub(super) local: bool,
}

impl Flight {
    pub(super) const fn new(request: Arc<Request>, reply: Reply) -> Self {
        Self { request, reply, tried: Vec::new(), lost: 0, full: false, chosen: false }
    }

    /// A request that another node sends to a provider here.
    pub(super) fn chosen(request: Arc<Request>, reply: Reply) -> Self {
        let mut flight = Self::new(request, reply);
        flight.chosen = true;
        flight
    }

    /// Whether another provider may get what this one has not.
    pub(super) fn may_go_on(&self, now: Instant) -> bool {
        !self.chosen && now < self.request.deadline
    }

    /// Whether another provider may be tried after one was lost with it.
    pub(super) fn may_retry(&self, now: Instant) -> bool {
        self.lost <= self.request.retries && now < self.request.deadline
    }
}
