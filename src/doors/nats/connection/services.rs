//! The responders of the services API of NATS that a connection has.

use std::sync::Arc;

use super::{Connection, Stage};
use crate::base::actors::{Owned, hint};
use crate::bus::error::Fault;
use crate::doors::nats::service::discovery::Name;
use crate::doors::nats::service::responder::{Changed, Connected, Responder};

/// Most responders of one connection. Further ones are not on the roll.
const RESPONDERS_MAX: usize = 64;

/// Whether a subscription may be that of an endpoint.
fn may_be_endpoint(filter: &str) -> bool {
    !filter.starts_with("_INBOX.") && !filter.starts_with("$SRV.")
}

impl Connection {
    /// A subscription has begun: that of a responder, or perhaps that of an endpoint.
    pub(super) fn subscription_begins(&mut self, number: u64, filter: &str) {
        if let Some(name) = Name::of(filter) {
            self.respond(name, number);
        } else {
            self.endpoints_change(filter);
        }
    }

    /// A subscription has ended.
    pub(super) fn subscription_ends(&mut self, number: u64, filter: &str) {
        let Stage::Open(client) = &mut self.stage else { return };
        if client.responders.remove(&number).is_none() {
            self.endpoints_change(filter);
        }
    }

    fn endpoints_change(&self, filter: &str) {
        let Stage::Open(client) = &self.stage else { return };
        if may_be_endpoint(filter) {
            client.responders.values().for_each(|responder| hint(responder.addr(), Changed));
        }
    }

    /// Makes a responder a service.
    fn respond(&mut self, name: Name, subscription: u64) {
        let Stage::Open(client) = &mut self.stage else { return };
        let services = &self.context.services;
        let connected = Connected {
            services: services.clone(),
            outbox: Arc::clone(&self.outbox),
            identity: Arc::clone(client.live.access().identity()),
            address: self.peer.address.to_string(),
            message_bytes_max: self.context.settings.message_bytes_max,
        };
        let label = name.service.clone();
        let made = match client.responders.len() < RESPONDERS_MAX {
            true => {
                let mut ctx = actix::Context::new();
                let made = Responder::new(connected, (name, subscription), &mut ctx);
                made.map(|made| Owned::run(&services.bus.metrics().actors, ctx, made))
            }
            false => Err(Fault::overloaded(format!("a connection has at most {RESPONDERS_MAX} responders"))),
        };
        match made {
            Ok(responder) => drop(client.responders.insert(subscription, responder)),
            // Once: a client may have any number of such subscriptions.
            Err(_) if std::mem::replace(&mut self.warned_of_responder, true) => {}
            Err(fault) => {
                tracing::warn!(service = label, reason = %fault, "a responder of NATS is not registered as a service");
            }
        }
    }
}
