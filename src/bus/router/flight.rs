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
    /// Providers that were lost with it.
    pub(super) tried: Vec<Connection>,
}

/// Who has a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) provider: Connection,
    pub(super) local: bool,
}

impl Flight {
    pub(super) const fn new(request: Arc<Request>, reply: Reply) -> Self {
        Self { request, reply, tried: Vec::new() }
    }

    /// Whether another provider may be tried; who was tried last is in `tried` already.
    pub(super) fn may_retry(&mut self, now: Instant) -> bool {
        let tried = u32::try_from(self.tried.len()).unwrap_or(u32::MAX);
        tried <= self.request.retries && now < self.request.deadline
    }
}
