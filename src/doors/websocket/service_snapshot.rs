//! The list of services that a client gets when it registers.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use rollbook_cluster::lock::lock;
use rollbook_cluster::node::state_reader::StateReader;
use rollbook_core::machine::Machine;
use rollbook_core::service::{Instance, Service};

use super::announcements::{CapabilityJson, ServiceJson};
use crate::bus::client::announcement::Log;

/// The services as they were after the event of that index of the roll.
#[derive(Debug, Clone)]
pub(super) struct ServiceSnapshot {
    pub(super) index: u64,
    /// The services as a JSON list.
    pub(super) services: Bytes,
}

/// Takes snapshots. All clients share one snapshot until the roll changes.
#[derive(Debug, Default)]
pub(super) struct SnapshotCache {
    newest: Mutex<Option<ServiceSnapshot>>,
}

impl SnapshotCache {
    /// The services now.
    pub(super) fn take(&self, state: &StateReader) -> ServiceSnapshot {
        state.with_machine(|machine| {
            let index = machine.head(Log::Roll.name()).map_or(0, |head| head.last());
            let mut newest = lock(&self.newest);
            match &*newest {
                Some(newest) if newest.index == index => newest.clone(),
                _ => {
                    let taken = ServiceSnapshot { index, services: services(machine) };
                    *newest = Some(taken.clone());
                    taken
                }
            }
        })
    }
}

fn services(machine: &Machine) -> Bytes {
    let online = machine.services().filter(|service| service.online);
    let rows: Vec<ServiceJson> = online.map(|service| row(service, machine.instances(&service.id))).collect();
    serde_json::to_vec(&rows).unwrap_or_default().into()
}

/// Describes a service with the capabilities of all its instances and the version of the newest instance.
fn row<'a>(service: &Service, instances: impl Iterator<Item = &'a Instance>) -> ServiceJson {
    let mut offered: BTreeMap<&str, Vec<&String>> = BTreeMap::new();
    let (mut newest, mut count): (Option<&Instance>, usize) = (None, 0);
    for instance in instances {
        count = count.saturating_add(1);
        if newest.is_none_or(|newest| newest.connected_at <= instance.connected_at) {
            newest = Some(instance);
        }
        for capability in &instance.capabilities {
            offered.entry(&capability.name).or_default().extend(&capability.actions);
        }
    }
    let each = |(name, mut actions): (&str, Vec<&String>)| {
        let mut seen = std::collections::HashSet::new();
        actions.retain(|action| seen.insert(action.as_str()));
        CapabilityJson { name: name.to_owned(), actions: actions.into_iter().cloned().collect() }
    };
    let version = newest.map_or(&service.version, |newest| &newest.version).clone();
    let json = ServiceJson::new(service.id.clone(), version, offered.into_iter().map(each).collect());
    ServiceJson { instances: Some(count), ..json }
}
