//! The table of the sessions of a node, by sid.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use actix::{Actor, Addr};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rollbook_cluster::lock::lock;

use crate::base::actors::Owned;

struct Inner<A: Actor> {
    /// The table owns the actors, so a session that leaves the table ends.
    sessions: Mutex<HashMap<String, Owned<A>>>,
    conns: AtomicU64,
}

/// The table of sessions that are actors of type `A`. Clones share the table.
pub(in crate::doors::socketio) struct SessionTable<A: Actor> {
    inner: Arc<Inner<A>>,
}

impl<A: Actor> Clone for SessionTable<A> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<A: Actor> Default for SessionTable<A> {
    fn default() -> Self {
        let inner = Inner { sessions: Mutex::new(HashMap::new()), conns: AtomicU64::new(0) };
        Self { inner: Arc::new(inner) }
    }
}

/// The entry of a session in the table. The entry is removed when this value is dropped.
pub(in crate::doors::socketio) struct SessionSlot<A: Actor> {
    table: SessionTable<A>,
    sid: String,
}

impl<A: Actor> Drop for SessionSlot<A> {
    fn drop(&mut self) {
        self.table.end(&self.sid);
    }
}

/// Makes a new sid that names the node of the session. A sid has 122 random bits; the reference server has 120.
pub(in crate::doors::socketio) fn sid(node: u64) -> String {
    format!("n{node}.{}", URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().into_bytes()))
}

/// The node that a sid names.
pub(in crate::doors::socketio) fn node_of(sid: &str) -> Option<u64> {
    sid.strip_prefix('n')?.split_once('.')?.0.parse().ok()
}

impl<A: Actor> SessionTable<A> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Owned<A>>> {
        lock(&self.inner.sessions)
    }

    /// Makes the entry for a session that is about to start. [`SessionTable::fill`] adds the address of the session.
    pub(in crate::doors::socketio) fn place(&self, sid: &str) -> SessionSlot<A> {
        SessionSlot { table: self.clone(), sid: sid.to_owned() }
    }

    pub(in crate::doors::socketio) fn fill(&self, sid: &str, session: Owned<A>) {
        self.lock().insert(sid.to_owned(), session);
    }

    /// Ends a session.
    pub(in crate::doors::socketio) fn end(&self, sid: &str) {
        // The actor removes its own entry, so the lock is not held while the actor is dropped.
        let ended = self.lock().remove(sid);
        drop(ended);
    }

    pub(in crate::doors::socketio) fn find(&self, sid: &str) -> Option<Addr<A>> {
        self.lock().get(sid).map(|session| session.addr().clone()).filter(Addr::connected)
    }

    pub(in crate::doors::socketio) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Returns a new number for a WebSocket.
    pub(in crate::doors::socketio) fn conn(&self) -> u64 {
        self.inner.conns.fetch_add(1, Ordering::Relaxed)
    }
}
