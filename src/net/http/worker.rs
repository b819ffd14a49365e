//! What the connections of one thread share.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use actix_http::ServiceConfig;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::settings::HttpListener;
use crate::net::listener::limits::ConnectionSlot;

/// The state of one thread of a listener.
pub(super) struct Worker<S> {
    /// The application.
    pub(super) service: S,
    /// Settings, bounds and counts.
    pub(super) listener: Arc<HttpListener>,
    /// Configuration of the codec.
    pub(super) codec: ServiceConfig,
    /// Wakes idle connections: the one that is idle for longest to make room, or all when the listener stops.
    pub(super) idle: Notify,
    /// How many connections are idle.
    pub(super) idle_count: Cell<usize>,
    /// Idle connections that were woken to make room and have not left.
    pub(super) leaving: Cell<usize>,
    /// Whether the listener stops.
    pub(super) stopping: CancellationToken,
    /// A copy of the head that is being parsed, to explain an error of the parser.
    pub(super) scratch: RefCell<Vec<u8>>,
}

impl<S> Worker<S> {
    pub(super) fn new(service: S, listener: Arc<HttpListener>, stopping: CancellationToken) -> Self {
        Self {
            service,
            listener,
            codec: ServiceConfig::default(),
            idle: Notify::new(),
            idle_count: Cell::new(0),
            leaving: Cell::new(0),
            stopping,
            scratch: RefCell::default(),
        }
    }

    /// A slot for a new connection. When none is free, an idle connection is woken to make room.
    pub(super) fn admit(&self) -> Option<Result<ConnectionSlot, ConnectionSlot>> {
        let full = self.listener.limits.is_full();
        let may_make_room = full && self.idle_count.get() > self.leaving.get();
        if may_make_room {
            self.leaving.set(self.leaving.get().saturating_add(1));
            self.idle.notify_one();
        }
        ConnectionSlot::take(&self.listener.limits, may_make_room)
    }

    /// An idle connection was woken.
    pub(super) fn woken(&self) {
        if !self.stopping.is_cancelled() {
            self.leaving.set(self.leaving.get().saturating_sub(1));
        }
    }

    /// From now on no connection waits for another request.
    pub(super) fn stop(&self) {
        self.idle.notify_waiters();
    }
}

/// Counts a connection as idle while this lives.
pub(super) struct Idle<'a>(&'a Cell<usize>);

impl<'a> Idle<'a> {
    pub(super) fn new(count: &'a Cell<usize>) -> Self {
        count.set(count.get().saturating_add(1));
        Self(count)
    }
}

impl Drop for Idle<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}
