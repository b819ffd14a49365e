//! A request in flight.

use std::sync::Arc;
use std::time::Instant;

use rollbook_core::service::Connection;

use super::types::Requester;
use crate::bus::client::call::{Outcome, Payload, Request};

/// Bytes that a request takes in the tables of the router, beside its texts and its payload.
const ROWS_BYTES: usize = 512;

/// Receives the outcome.
pub(super) type Reply = Box<dyn FnOnce(Outcome) + Send>;

/// A request without an outcome.
pub(super) struct Flight {
    /// What the caller asks for.
    pub(super) request: Arc<Request>,
    /// What the next provider would get; empty once no other provider may get it.
    pub(super) payload: Payload,
    /// Who waits for the outcome. The shares of the router are counted by this.
    pub(super) requester: Requester,
    /// Receives the outcome.
    pub(super) reply: Reply,
    /// Providers that do not get the request again.
    pub(super) tried: Vec<Connection>,
    /// How many of them were lost with the request, which uses up retries.
    pub(super) lost: u32,
    /// Whether one of them is connected but its queue is full. The caller gets `overloaded` then.
    pub(super) full: bool,
    /// Whether another node has chosen the provider, and will choose the next one.
    chosen: bool,
}

/// The provider that has a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Assignment {
    /// Connection of the provider.
    pub(super) provider: Connection,
    /// Whether the provider is connected to this node.
    pub(super) local: bool,
}

impl Flight {
    /// A request of a caller of this node.
    pub(super) const fn new(requester: Requester, request: Arc<Request>, payload: Payload, reply: Reply) -> Self {
        Self { request, payload, requester, reply, tried: Vec::new(), lost: 0, full: false, chosen: false }
    }

    /// A request that another node sends to a provider of this node.
    pub(super) fn chosen(requester: Requester, request: Arc<Request>, payload: Payload, reply: Reply) -> Self {
        let mut flight = Self::new(requester, request, payload, reply);
        flight.chosen = true;
        flight
    }

    /// Bytes that the node keeps for the request.
    pub(super) fn bytes(&self) -> usize {
        let Request { id, capability, action, key, from, traceparent, .. } = &*self.request;
        let texts = [id, capability, action, key, &from.service, &from.instance].map(String::len);
        let texts = texts.into_iter().chain(traceparent.as_ref().map(String::len));
        texts.fold(self.payload.len().saturating_add(ROWS_BYTES), usize::saturating_add)
    }

    /// Whether another provider may get a request that this provider has not received.
    pub(super) fn may_go_on(&self, now: Instant) -> bool {
        !self.chosen && now < self.request.deadline
    }

    /// Whether another provider may be tried after one was lost.
    pub(super) fn may_retry(&self, now: Instant) -> bool {
        self.lost <= self.request.retries && now < self.request.deadline
    }

    /// Whether the provider that has the request is the last one that may get it.
    pub(super) fn is_at_its_last(&self) -> bool {
        self.lost >= self.request.retries
    }
}
