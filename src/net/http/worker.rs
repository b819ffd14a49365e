//! What the connections of one thread share.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use actix_http::ServiceConfig;
use tokio::sync::Notify;

use super::settings::HttpListener;
use crate::net::listener::limits::ConnectionSlot;

/// What the connections of one thread share.
pub(super) struct Worker<S> {
    /// The application.
    pub(super) service: S,
    pub(super) listener: Arc<HttpListener>,
    /// Of the codec.
    pub(super) codec: ServiceConfig,
    /// Wakes idle connections: the one that is idle for longest to make room, all when the listener stops.
    pub(super) idle: Notify,
    pub(super) idle_count: Cell<usize>,
    /// Idle ones that were woken to make room and have not left.
    pub(super) leaving: Cell<usize>,
    pub(super) stopping: Cell<bool>,
    /// Where a head is copied, to say what is wrong with it.
    pub(super) scratch: RefCell<Vec<u8>>,
}

impl<S> Worker<S> {
    pub(super) fn new(service: S, listener: Arc<HttpListener>) -> Self {
        Self {
            service,
            listener,
            codec: ServiceConfig::default(),
            idle: Notify::new(),
            idle_count: Cell::new(0),
            leaving: Cell::new(0),
            stopping: Cell::new(false),
            scratch: RefCell::default(),
        }
    }

    /// A place for a connection. When there is none, one that is idle makes room.
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
        if !self.stopping.get() {
            self.leaving.set(self.leaving.get().saturating_sub(1));
        }
    }

    /// No connection is kept for another request any more.
    pub(super) fn stop(&self) {
        self.stopping.set(true);
        self.idle.notify_waiters();
    }
}

/// Notes that a connection is idle, as long as it lives.
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
