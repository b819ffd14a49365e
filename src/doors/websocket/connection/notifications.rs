//! The notifications of one connection: the broadcasts of its client, the notices of unhandled messages, and the
//! announcements for its client.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;
use serde_json::value::RawValue;

use super::{Connection, MAILBOX};
use crate::base::clock;
use crate::bus::client::announcement::{Announcement, Log};
use crate::bus::error::Fault;
use crate::bus::roll::services::Notice;
use crate::bus::security::identity::Identity as SecurityIdentity;
use crate::bus::write::notification::{From, UNHANDLED};
use crate::doors::websocket::announcements::{ANNOUNCEMENTS, BROADCAST};
use crate::doors::websocket::context::ConnectionContext;
use crate::doors::websocket::error::{ErrorCode, FrameError};
use crate::doors::websocket::outbound::{self, OutboundFrame, PendingMessage};
use crate::doors::websocket::session::Identity;
use crate::doors::websocket::settings::NAME;

impl Connection {
    /// Tells all services of a message without a provider.
    pub(super) fn unhandled(&self, message: &PendingMessage, reason: &str) {
        let ConnectionContext { services, unhandled_limit, .. } = &*self.context;
        services.bus.metrics().messages_unhandled.inc();
        let Some(identity) = self.session.identity() else { return };
        if !unhandled_limit.permits(&message.destination, clock::now()) {
            return;
        }
        let data = json!({
            "destination": message.destination, "consumer": identity.name, "message_id": message.id, "reason": reason,
            "node": outbound::node_name(services.bus.node().id()), "at": clock::timestamp().to_string(),
        });
        // The node says that, and not the client.
        if let Err(fault) = self.notify(&SecurityIdentity::everything(NAME), None, UNHANDLED, &data.to_string()) {
            tracing::error!(%fault, connection = self.serial(), "a message without a provider could not be told");
        }
    }

    /// Broadcasts the payload of a client.
    pub(super) fn broadcast(&mut self, id: Option<String>, payload: &Bytes) {
        let data = std::str::from_utf8(payload).ok().filter(|data| !data.is_empty());
        let client = Arc::clone(self.handle.client().identity());
        if let Err(fault) = self.notify(&client, id.clone(), BROADCAST, data.unwrap_or("null")) {
            let error = FrameError::new(ErrorCode::from(fault.kind), fault.text);
            self.send(&OutboundFrame::from(&match &id {
                Some(id) => error.of(id),
                None => error,
            }));
        }
    }

    fn notify(&self, client: &SecurityIdentity, id: Option<String>, event: &str, data: &str) -> Result<(), Fault> {
        let Some(Identity { name, instance }) = self.session.identity().cloned() else { return Ok(()) };
        let data = serde_json::from_str::<&RawValue>(data).ok();
        let notice = Notice { from: From { service: name, instance }, id, event, data };
        self.context.services.notify_now(client, notice).map(drop)
    }

    pub(super) fn event(&mut self, event: Arc<Announcement>) {
        if self.session.is_registering() {
            // As many events may wait as the mailbox would hold.
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
