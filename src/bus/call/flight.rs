//! One request on its way.

use std::sync::Arc;
use std::time::Instant;

use rollbook_core::service::Connection;

use super::types::Requester;
use crate::bus::client::call::{Outcome, Payload, Request};

/// What a request takes beside its texts and its payload, bytes: its rows in the tables of the router.
const ROWS_BYTES: usize = 512;

/// How a caller is told.
pub(super) type Reply = Box<dyn FnOnce(Outcome) + Send>;

/// A request that has no end yet.
pub(super) struct Flight {
    pub(super) request: Arc<Request>,
    /// What the next provider would get; empty once nobody may get it any more.
    pub(super) payload: Payload,
    /// Who waits for the outcome.
    pub(super) requester: Requester,
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
pub(super) struct Assignment {
    pub(super) provider: Connection,
    pub(super) local: bool,
}

impl Flight {
    pub(super) const fn new(requester: Requester, request: Arc<Request>, payload: Payload, reply: Reply) -> Self {
        Self { request, payload, requester, reply, tried: Vec::new(), lost: 0, full: false, chosen: false }
    }

    /// A request that another node sends to a provider here.
    pub(super) fn chosen(requester: Requester, request: Arc<Request>, payload: Payload, reply: Reply) -> Self {
        let mut flight = Self::new(requester, request, payload, reply);
        flight.chosen = true;
        flight
    }

    /// Bytes that are kept for it.
    pub(super) fn bytes(&self) -> usize {
        let Request { id, capability, action, key, from, traceparent, .. } = &*self.request;
        let texts = [id, capability, action, key, &from.service, &from.instance].map(String::len);
        let texts = texts.into_iter().chain(traceparent.as_ref().map(String::len));
        texts.fold(self.payload.len().saturating_add(ROWS_BYTES), usize::saturating_add)
    }

    /// Whether another provider may get what this one has not.
    pub(super) fn may_go_on(&self, now: Instant) -> bool {
        !self.chosen && now < self.request.deadline
    }

    /// Whether another provider may be tried after one was lost with it.
    pub(super) fn may_retry(&self, now: Instant) -> bool {
        self.lost <= self.request.retries && now < self.request.deadline
    }

    /// Whether the provider that has it is the last one that may have it.
    pub(super) fn is_at_its_last(&self) -> bool {
        self.lost >= self.request.retries
    }
}
