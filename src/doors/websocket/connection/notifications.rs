//! What one connection tells all services, its broadcasts and its messages that nobody could be given, and what it is told
//! of the roll and of others.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Connection, MAILBOX};
use crate::base::clock;
use crate::bus::client::announcement::{Announcement, Log};
use crate::bus::roll::services::Notice;
use crate::bus::write::notification::{From, UNHANDLED};
use crate::doors::websocket::announcements::{ANNOUNCEMENTS, BROADCAST};
use crate::doors::websocket::context::ConnectionContext;
use crate::doors::websocket::outbound::{self, OutboundFrame, PendingMessage};
use crate::doors::websocket::session::Identity;

impl Connection {
    /// All services are told of a message that nobody could be given.
    pub(super) fn unhandled(&self, asked: &PendingMessage, reason: &str) {
        let ConnectionContext { services, unhandled_limit, .. } = &*self.context;
        services.bus.metrics().messages_unhandled.inc();
        let Some(identity) = self.session.identity() else { return };
        if !unhandled_limit.permits(&asked.destination, clock::now()) {
            return;
        }
        let says = json!({
            "destination": asked.destination, "consumer": identity.name, "message_id": asked.id, "reason": reason,
            "node": outbound::node_name(services.bus.node().id()), "at": clock::timestamp().to_string(),
        });
        self.notify(None, UNHANDLED, &says.to_string());
    }

    /// A broadcast of this client.
    pub(super) fn broadcast(&self, id: Option<String>, payload: &Bytes) {
        let data = std::str::from_utf8(payload).ok().filter(|data| !data.is_empty());
        self.notify(id, BROADCAST, data.unwrap_or("null"));
    }

    fn notify(&self, id: Option<String>, event: &str, data: &str) {
        let Some(Identity { name, instance }) = self.session.identity().cloned() else { return };
        let data = serde_json::from_str::<&RawValue>(data).ok();
        let notice = Notice { from: From { service: name, instance }, id, event, data };
        // It can only fail for a name that is none.
        if let Err(refusal) = self.context.services.notify_now(notice) {
            tracing::error!(%refusal, event, "a broadcast failed");
        }
    }

    pub(super) fn event(&mut self, event: Arc<Announcement>) {
        if self.session.is_registering() {
            // Not more than its mailbox would hold.
            if self.held_events.len() >= MAILBOX {
                return self.end_slow();
            }
            return self.held_events.push(event);
        }
        if self.session.is_registered() {
            self.announce(&event);
        }
    }

    pub(super) fn announce(&mut self, event: &Announcement) {
        if matches!(event.at, Some((Log::Roll, at)) if at.roll <= self.snapshot_index) {
            return;
        }
        let frame = event.frame(&ANNOUNCEMENTS);
        if event.at.is_none() && self.is_full() {
            return self.context.services.clients.skips();
        }
        self.send(&OutboundFrame { payload: frame, ..OutboundFrame::default() });
    }
}
