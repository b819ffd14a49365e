//! The JSON of services, instances and capabilities.

use std::collections::{BTreeMap, HashSet};

use rollbook_core::service::{Capability, Instance, Service};
use rollbook_core::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::base::json::Verbatim;
use crate::bus::call::survey::{ClientView, RequestsView};

/// A service.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::admin) struct ServiceView {
    pub(in crate::admin) id: String,
    pub(in crate::admin) name: String,
    pub(in crate::admin) r#type: String,
    pub(in crate::admin) version: String,
    /// `online` or `offline`.
    pub(in crate::admin) status: &'static str,
    /// What the operator noted.
    #[schema(value_type = Object)]
    pub(in crate::admin) metadata: Box<RawValue>,
    pub(in crate::admin) registered_at: String,
    /// Counts the changes of the service; the ETag.
    pub(in crate::admin) revision: u64,
    /// Its connected instances.
    pub(in crate::admin) instances: usize,
    /// Everything that its instances offer.
    pub(in crate::admin) capabilities: Vec<CapabilityView>,
}

/// A capability.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::admin) struct CapabilityView {
    pub(in crate::admin) name: String,
    pub(in crate::admin) description: String,
    /// What can be asked of it; empty when anything can.
    pub(in crate::admin) actions: Vec<String>,
}

/// A connected instance.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::admin) struct InstanceView {
    pub(in crate::admin) id: String,
    pub(in crate::admin) service: String,
    pub(in crate::admin) node: u64,
    pub(in crate::admin) door: String,
    pub(in crate::admin) port: u32,
    pub(in crate::admin) version: String,
    pub(in crate::admin) capabilities: Vec<CapabilityView>,
    /// What it says of itself.
    #[schema(value_type = Object)]
    pub(in crate::admin) metadata: Box<RawValue>,
    pub(in crate::admin) connected_at: String,
    /// `available`, `draining` or `unhealthy`.
    pub(in crate::admin) state: &'static str,
    /// Its connection; absent when its node does not answer.
    pub(in crate::admin) connection: Option<String>,
    /// Where it comes from.
    pub(in crate::admin) address: Option<String>,
    /// What its newest heartbeat said.
    #[schema(value_type = Option<Object>)]
    pub(in crate::admin) heartbeat: Option<Verbatim>,
    pub(in crate::admin) heartbeat_at: Option<String>,
    /// Its requests, as its own node has seen them.
    pub(in crate::admin) requests: Option<RequestsView>,
}

/// One service with its instances.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::admin) struct ServiceDetail {
    pub(in crate::admin) id: String,
    pub(in crate::admin) name: String,
    pub(in crate::admin) r#type: String,
    pub(in crate::admin) version: String,
    /// `online` or `offline`.
    pub(in crate::admin) status: &'static str,
    /// What the operator noted.
    #[schema(value_type = Object)]
    pub(in crate::admin) metadata: Box<RawValue>,
    pub(in crate::admin) registered_at: String,
    /// Counts the changes of the service; the ETag.
    pub(in crate::admin) revision: u64,
    /// Port that its newest instance says it listens on; 0 when it says none, or when there is no instance.
    pub(in crate::admin) port: u32,
    pub(in crate::admin) instances: Vec<InstanceView>,
    /// Everything that its instances offer.
    pub(in crate::admin) capabilities: Vec<CapabilityView>,
    /// Nodes that were asked and did not answer: of their instances only is known what is the same everywhere.
    pub(in crate::admin) unanswered_nodes: Vec<u64>,
}

impl ServiceDetail {
    pub(in crate::admin) fn new(of: ServiceView, instances: Vec<InstanceView>, unanswered_nodes: Vec<u64>) -> Self {
        let ServiceView { id, name, r#type, version, status, metadata, registered_at, revision, capabilities, .. } = of;
        let newest = instances.iter().max_by(|one, two| one.connected_at.cmp(&two.connected_at));
        let port = newest.map_or(0, |newest| newest.port);
        Self {
            id,
            name,
            r#type,
            version,
            status,
            metadata,
            registered_at,
            revision,
            port,
            instances,
            capabilities,
            unanswered_nodes,
        }
    }
}

impl CapabilityView {
    fn new(of: &Capability) -> Self {
        Self { name: of.name.clone(), description: of.description.clone(), actions: of.actions.clone() }
    }
}

/// The capabilities of all instances together. A capability has the actions of all instances, or any action when one
/// instance takes any.
fn together(instances: &[Instance]) -> Vec<CapabilityView> {
    let mut offered: BTreeMap<&str, CapabilityView> = BTreeMap::new();
    for capability in instances.iter().flat_map(|instance| &instance.capabilities) {
        let Some(known) = offered.get_mut(&*capability.name) else {
            offered.insert(&capability.name, CapabilityView::new(capability));
            continue;
        };
        if known.description.is_empty() {
            known.description.clone_from(&capability.description);
        }
        if known.actions.is_empty() || capability.actions.is_empty() {
            known.actions.clear();
            continue;
        }
        let there: HashSet<String> = known.actions.iter().cloned().collect();
        known.actions.extend(capability.actions.iter().filter(|action| !there.contains(*action)).cloned());
    }
    offered.into_values().collect()
}

impl ServiceView {
    pub(in crate::admin) fn new(service: &Service, instances: &[Instance]) -> Self {
        let capabilities = together(instances);
        Self {
            id: service.id.clone(),
            name: service.name.clone(),
            r#type: service.kind.clone(),
            version: service.version.clone(),
            status: if service.online { "online" } else { "offline" },
            metadata: object(&service.metadata),
            registered_at: Timestamp::from_millis(service.registered_at).to_string(),
            revision: service.revision,
            instances: instances.len(),
            capabilities,
        }
    }
}

impl InstanceView {
    pub(in crate::admin) fn new(of: &Instance, client: Option<&ClientView>) -> Self {
        Self {
            id: of.id.clone(),
            service: of.service.clone(),
            node: of.connection.owner.node,
            door: of.door.clone(),
            port: of.port,
            version: of.version.clone(),
            capabilities: of.capabilities.iter().map(CapabilityView::new).collect(),
            metadata: object(&of.metadata),
            connected_at: Timestamp::from_millis(of.connected_at).to_string(),
            state: of.state(),
            connection: client.map(|client| client.id.clone()),
            address: client.map(|client| client.address.clone()),
            heartbeat: client.and_then(|client| client.heartbeat.clone()),
            heartbeat_at: client.and_then(|client| client.heartbeat_at.clone()),
            requests: client.map(|client| client.requests.clone()),
        }
    }
}

/// A JSON object that stays text, so that numbers stay as they were written. An empty text means an empty object.
fn object(text: &str) -> Box<RawValue> {
    let kept = serde_json::from_str::<Box<RawValue>>(text).ok().filter(|kept| kept.get().starts_with('{'));
    kept.or_else(|| RawValue::from_string("{}".to_owned()).ok()).unwrap_or_default()
}
