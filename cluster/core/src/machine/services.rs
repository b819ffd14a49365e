//! The services and instances in memory, with the indexes that find instances by capability and by node.
//!
//! Invariant: each instance is in `instances`, under each of its capabilities in `offers`, and under its owner in
//! `owned`. Only the functions of this file change the maps.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use prost::Message as _;

use crate::node::Owner;
use crate::persistent::{Map, Set, update};
use crate::rows::RowsError;
use crate::service::{Instance, Service};

/// Id of the service and id of the instance.
pub(super) type InstanceKey = (String, String);

/// The services and instances of the roll.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Services {
    /// Services by id.
    pub(super) services: Map<String, Service>,
    /// Instances by service and id, so that the instances of a service are neighbours.
    pub(super) instances: Map<InstanceKey, Arc<Instance>>,
    /// Instances by the name of each capability: a router finds the providers of a request without a search.
    pub(super) offers: Map<String, Map<InstanceKey, Arc<Instance>>>,
    /// Instances by the life of the node that holds their connection: all instances of an ended node are found at once.
    pub(super) owned: Map<Owner, Map<InstanceKey, Arc<Instance>>>,
    /// Services in their grace time, sorted by its end: the next service that goes offline comes first.
    pub(super) due: Set<(u64, String)>,
}

impl Services {
    /// Builds services, instances and indexes from their rows.
    pub(super) fn load(services: &[Vec<u8>], instances: &[Vec<u8>]) -> Result<Self, RowsError> {
        let mut loaded = Self::default();
        for value in services {
            let service = Service::decode(value.as_slice()).map_err(|_| RowsError::corrupt("services"))?;
            loaded.put_service(service);
        }
        for value in instances {
            loaded.put_instance(Instance::decode(value.as_slice()).map_err(|_| RowsError::corrupt("instances"))?);
        }
        Ok(loaded)
    }

    /// The instances of a service, by id.
    pub(super) fn instances_of<'a>(&'a self, service: &str) -> impl Iterator<Item = &'a Instance> + use<'a> {
        let (from, of) = ((service.to_string(), String::new()), service.to_string());
        let instances = self.instances.range(from..).take_while(move |((service, _), _)| *service == of);
        instances.map(|(_, instance)| &**instance)
    }

    /// Inserts a service, or replaces the service of the same id.
    pub(super) fn put_service(&mut self, service: Service) {
        self.remove_service(&service.id);
        if service.offline_at != 0 {
            self.due.insert_mut((service.offline_at, service.id.clone()));
        }
        self.services.insert_mut(service.id.clone(), service);
    }

    /// Removes a service; its instances stay.
    pub(super) fn remove_service(&mut self, id: &str) {
        if let Some(before) = self.services.get(id)
            && before.offline_at != 0
        {
            self.due.remove_mut(&(before.offline_at, before.id.clone()));
        }
        self.services.remove_mut(id);
    }

    /// Inserts an instance, or replaces the instance of the same key.
    pub(super) fn put_instance(&mut self, instance: Instance) {
        let key = (instance.service.clone(), instance.id.clone());
        self.remove_instance(&key);
        let instance = Arc::new(instance);
        for capability in &instance.capabilities {
            add_to_index(&mut self.offers, capability.name.clone(), &key, &instance);
        }
        add_to_index(&mut self.owned, instance.connection.owner, &key, &instance);
        self.instances.insert_mut(key, instance);
    }

    /// Removes an instance.
    pub(super) fn remove_instance(&mut self, key: &InstanceKey) {
        let Some(instance) = self.instances.get(key) else { return };
        for capability in &instance.capabilities {
            remove_from_index(&mut self.offers, &capability.name, key);
        }
        remove_from_index(&mut self.owned, &instance.connection.owner, key);
        self.instances.remove_mut(key);
    }
}

/// Adds an instance to one of the indexes.
fn add_to_index<K: Ord + Clone>(
    maps: &mut Map<K, Map<InstanceKey, Arc<Instance>>>,
    of: K,
    key: &InstanceKey,
    instance: &Arc<Instance>,
) {
    update(maps, of, |map| map.insert_mut(key.clone(), Arc::clone(instance)));
}

/// Removes an instance from one of the indexes, and an inner map with its last instance.
fn remove_from_index<K: Ord + Clone>(maps: &mut Map<K, Map<InstanceKey, Arc<Instance>>>, of: &K, key: &InstanceKey) {
    if let Some(map) = maps.get_mut(of) {
        map.remove_mut(key);
        if map.is_empty() {
            maps.remove_mut(of);
        }
    }
}
