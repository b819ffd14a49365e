//! What doors need to serve services: clients, router, roll and the other nodes, put together once.

use bytes::Bytes;
use rollbook_core::central::PUBLIC;
use rollbook_core::entry;
use rollbook_core::error::Refusal;
use rollbook_core::event::{Event, EventId};
use rollbook_core::security::right::Verb;
use rollbook_core::time::Timestamp;
use serde_json::value::RawValue;

use super::announcer;
use super::roll::{Roll, RollConfig};
use crate::base::clock;
use crate::bus::call::router::Router;
use crate::bus::call::survey::{self, Survey, Wanted};
use crate::bus::call::types::RouterConfig;
use crate::bus::client::clients::{Clients, CloseReason, Noted};
use crate::bus::error::Fault;
use crate::bus::handle::Bus;
use crate::bus::relay::peer_client::PeerClient;
use crate::bus::security::identity::Identity;
use crate::bus::write::notification::{self, From, NOTIFY, Notification};

/// Longest name of a notification, bytes.
const EVENT_BYTES_MAX: usize = 128;

/// The parts. Clones share them.
#[derive(Debug, Clone)]
pub struct Services {
    /// The bus below.
    pub bus: Bus,
    /// The clients that are connected to this node.
    pub clients: Clients,
    /// Live requests.
    pub router: Router,
    /// Registrations.
    pub roll: Roll,
    /// The other nodes.
    pub peers: PeerClient,
}

impl Services {
    /// Builds the parts.
    #[must_use]
    pub fn new(bus: &Bus, roll: RollConfig, router: RouterConfig) -> Self {
        let node = bus.node();
        let clients = Clients::new(bus.metrics().clone());
        let peers = PeerClient::new(node.clone());
        let remote_caller = Box::new(peers.clone());
        let router = Router::new(node.clone(), clients.clone(), router, bus.metrics().clone(), remote_caller);
        let roll = Roll::new(node.clone(), bus.proposer().clone(), clients.clone(), peers.clone(), roll);
        Self { bus: bus.clone(), clients, router, roll, peers }
    }

    /// Closes the connection `serial` of a node, if its door calls it `id`. Returns `false` when there is no such
    /// connection.
    ///
    /// # Errors
    /// Its node did not answer.
    pub async fn kick(&self, node: u64, serial: u64, id: &str) -> Result<bool, Refusal> {
        if node != self.bus.node().id() {
            return self.peers.kick(node, serial, id).await;
        }
        Ok(self.kick_here(serial, id))
    }

    /// The clients of this node, for the operator.
    #[must_use]
    pub fn survey(&self, wanted: &Wanted) -> Survey {
        survey::of(self.bus.node().id(), &self.clients, &self.router, wanted)
    }

    /// Closes a client of this node, if its door calls it `id`. Returns `false` when there is no such client.
    #[must_use]
    pub fn kick_here(&self, serial: u64, id: &str) -> bool {
        let client = self.clients.find(serial).filter(|client| client.is_called(id));
        client.is_some_and(|client| client.close(CloseReason::Removed))
    }

    /// The central configuration, as this client may see it.
    ///
    /// # Errors
    /// The client may not read the configuration.
    pub fn config(&self, identity: &Identity) -> Result<Vec<u8>, Fault> {
        identity.check(Verb::ConfigRead, PUBLIC)?;
        Ok(identity.visible_config(self.bus.node().state().config().text().to_vec()))
    }

    /// Stores a notification for all other registered clients of the cluster.
    ///
    /// # Errors
    /// The client may not publish that; the name is none; the refusals of a publish.
    pub async fn notify(&self, identity: &Identity, notice: Notice<'_>) -> Result<Noted, Fault> {
        identity.check_publish(&notification::subject(notice.event))?;
        self.store(notice).await.map_err(|refusal| Fault::of_service(&refusal))
    }

    async fn store(&self, notice: Notice<'_>) -> Result<Noted, Refusal> {
        let mut record = Vec::new();
        entry::begin_publish(&mut record, NOTIFY)?;
        let created_at = notice.encode(&mut record)?;
        entry::finish_publish(&mut record, 0, entry::FLAG_CREATE, 1)?;
        let (index, _) = self.bus.proposer().publish(record.into()).await?;
        Ok(Noted { id: EventId::new(created_at, index).to_string(), index: Some(index) })
    }

    /// Sends a notification to the clients that are connected now, at most once each. Nothing is stored.
    ///
    /// # Errors
    /// The client may not publish that; the name is none.
    pub fn notify_now(&self, identity: &Identity, notice: Notice<'_>) -> Result<Noted, Fault> {
        identity.check_publish(&notification::subject(notice.event))?;
        let mut record = Vec::new();
        notice.encode(&mut record).map_err(|refusal| Fault::of_service(&refusal))?;
        let record = Bytes::from(record);
        self.peers.notify(record.clone());
        let announcement = announcer::broadcast_unstored(&self.clients, record);
        Ok(Noted { id: announcement.item.id(), index: None })
    }
}

/// A notification of one client to all others.
#[derive(Debug, Clone)]
pub struct Notice<'a> {
    /// The sender.
    pub from: From,
    /// The id that the sender gave.
    pub id: Option<String>,
    /// The name of the notification.
    pub event: &'a str,
    /// The content: JSON.
    pub data: Option<&'a RawValue>,
}

impl Notice<'_> {
    /// Appends the record of the notification, created now.
    fn encode(self, out: &mut Vec<u8>) -> Result<Timestamp, Refusal> {
        let Self { from, id, event, data } = self;
        if !(1..=EVENT_BYTES_MAX).contains(&event.len()) {
            return Err(Refusal::Malformed(format!("event: 1 to {EVENT_BYTES_MAX} bytes")));
        }
        let subject = notification::subject(event);
        let says = Notification { event: event.to_owned(), id, data, from: Some(from) };
        let malformed = |error: String| Refusal::Malformed(error);
        let payload = serde_json::to_vec(&says).map_err(|error| malformed(error.to_string()))?;
        let created_at = clock::timestamp();
        out.reserve(payload.len().saturating_add(64));
        let told = Event { subject: &subject, created_at, payload: Some(&payload), ..Event::default() };
        told.encode(out).map_err(|error| malformed(error.to_string()))?;
        Ok(created_at)
    }
}
