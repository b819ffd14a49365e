//! The clients of a node, as the operator sees them and as nodes report them to each other.

use std::sync::Arc;

use bytes::Bytes;
use rollbook_core::time::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::router::Router;
use super::types::{BreakerView, LoadView};
use crate::base::json::Verbatim;
use crate::bus::client::clients::{Client, Clients};

/// One client of a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ClientView {
    /// Unique in the cluster.
    pub id: String,
    /// The node it is connected to.
    pub node: u64,
    /// Its number there.
    pub serial: u64,
    /// The door it came through.
    pub door: String,
    /// How it is connected.
    pub transport: String,
    /// Where it comes from.
    pub address: String,
    /// What it calls itself.
    pub name: String,
    /// When it came.
    pub connected_at: String,
    /// The service that it is an instance of.
    pub service: Option<String>,
    /// Its instance id.
    pub instance: Option<String>,
    /// What its newest heartbeat said.
    #[schema(value_type = Option<Object>)]
    pub heartbeat: Option<Verbatim>,
    /// When that came.
    pub heartbeat_at: Option<String>,
    /// Its requests.
    pub requests: RequestsView,
}

/// The requests of an instance, as its own node has seen them.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct RequestsView {
    /// Those it has now.
    pub in_flight: u32,
    /// Those that ended with an answer.
    pub answered: u64,
    /// Those that ended without one.
    pub failed: u64,
    /// Mean time until the end, in milliseconds.
    pub mean_ms: f64,
    /// Its circuit breakers.
    pub breakers: Vec<BreakerJson>,
}

/// A circuit breaker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BreakerJson {
    /// Of this capability.
    pub capability: String,
    /// `closed`, `open` or `half_open`.
    pub state: String,
    /// Failures in the present minute.
    pub failures: u32,
}

/// Which clients a survey asks for.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Wanted {
    /// All clients.
    #[prost(bool, tag = "1")]
    all: bool,
    /// The clients of these serial numbers.
    #[prost(uint64, repeated, tag = "2")]
    serials: Vec<u64>,
    /// The client that its door calls so.
    #[prost(string, optional, tag = "3")]
    id: Option<String>,
    /// No client, but the totals.
    #[prost(bool, tag = "4")]
    totals: bool,
}

impl Wanted {
    /// All clients.
    #[must_use]
    pub fn all() -> Self {
        Self { all: true, ..Self::default() }
    }

    /// Only the totals.
    #[must_use]
    pub fn totals() -> Self {
        Self { totals: true, ..Self::default() }
    }

    /// The clients of these serial numbers.
    #[must_use]
    pub fn serials(serials: Vec<u64>) -> Self {
        Self { serials, ..Self::default() }
    }

    /// The client that its door calls so.
    #[must_use]
    pub fn called(id: &str) -> Self {
        Self { id: Some(id.to_owned()), ..Self::default() }
    }

    /// The clients that are asked for.
    fn of(&self, clients: &Clients) -> Vec<Arc<Client>> {
        if !self.serials.is_empty() {
            return self.serials.iter().filter_map(|serial| clients.find(*serial)).collect();
        }
        let wants = |client: &&Arc<Client>| self.all || self.id.as_ref().is_some_and(|id| client.is_called(id));
        clients.all().iter().filter(wants).cloned().collect()
    }
}

/// The clients of one node.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Survey {
    /// The clients, in the order in which they connected.
    pub clients: Vec<ClientView>,
    /// Requests in flight that this node routes.
    pub in_flight: usize,
    /// The totals, when they were asked for; a node of an earlier release does not send them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub totals: Option<Totals>,
}

/// All clients of a node together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// How many clients are connected.
    pub connections: usize,
    /// Requests to them that ended with an answer.
    pub answered: u64,
    /// Requests to them that ended without an answer.
    pub failed: u64,
}

impl Survey {
    /// The form in which nodes send a survey.
    #[must_use]
    pub fn into_json(self) -> Bytes {
        serde_json::to_vec(&self).unwrap_or_default().into()
    }
}

impl RequestsView {
    fn new(load: LoadView) -> Self {
        let ended = load.answered.saturating_add(load.failed);
        let micros = load.busy.as_micros().checked_div(u128::from(ended)).unwrap_or_default();
        let breaker = |view: BreakerView| BreakerJson {
            capability: view.capability,
            state: view.state.to_owned(),
            failures: view.failures,
        };
        Self {
            in_flight: load.in_flight,
            answered: load.answered,
            failed: load.failed,
            mean_ms: f64::from(u32::try_from(micros).unwrap_or(u32::MAX)) / 1000.0,
            breakers: load.breakers.into_iter().map(breaker).collect(),
        }
    }
}

fn view(node: u64, client: &Client, load: LoadView) -> ClientView {
    let about = client.about();
    let (service, instance) = about.registration.map(|own| (own.service.id, own.instance.id)).unzip();
    ClientView {
        id: about.id,
        node,
        serial: client.serial,
        door: client.door.to_owned(),
        transport: about.transport.to_owned(),
        address: about.address,
        name: about.name,
        connected_at: client.since.to_string(),
        service,
        instance,
        heartbeat: about.heartbeat.and_then(|says| serde_json::from_slice(&says).ok()),
        heartbeat_at: about.heartbeat_at.map(|at: Timestamp| at.to_string()),
        requests: RequestsView::new(load),
    }
}

/// The clients of this node.
#[must_use]
pub fn of(node: u64, all: &Clients, router: &Router, wanted: &Wanted) -> Survey {
    let mut clients: Vec<ClientView> =
        wanted.of(all).iter().map(|client| view(node, client, router.load_here(client.serial))).collect();
    clients.sort_by_key(|client| client.serial);
    Survey { clients, in_flight: router.in_flight(), totals: wanted.totals.then(|| totals(all, router)) }
}

fn totals(clients: &Clients, router: &Router) -> Totals {
    let all = clients.all();
    let (answered, failed) = router.ended_here(all.iter().map(|client| client.serial));
    Totals { connections: all.len(), answered, failed }
}
