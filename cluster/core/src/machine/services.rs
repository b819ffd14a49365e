//! The clients that are on the roll, and who offers what.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use prost::Message as _;

use crate::node::Owner;
use crate::persistent::{Map, Set, update};
use crate::rows::RowsError;
use crate::service::{Instance, Service};

/// Service and instance.
pub(super) type Key = (String, String);

/// The clients that are on the roll.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Services {
    pub(super) services: Map<String, Service>,
    pub(super) instances: Map<Key, Arc<Instance>>,
    /// The instances that offer a capability.
    pub(super) offers: Map<String, Map<Key, Arc<Instance>>>,
    /// The instances of each life of a node.
    pub(super) owned: Map<Owner, Map<Key, Arc<Instance>>>,
    /// The services whose grace ends, by when.
    pub(super) due: Set<(u64, String)>,
}

impl Services {
    /// Rebuilds them from their rows.
    pub(super) fn load(services: &[Vec<u8>], instances: &[Vec<u8>]) -> Result<Self, RowsError> {
        let mut loaded = Self::default();
        for value in services {
            let service = Service::decode(value.as_slice()).map_err(|_| RowsError::corrupt("services"))?;
            loaded.put(service);
        }
        for value in instances {
            loaded.insert(Instance::decode(value.as_slice()).map_err(|_| RowsError::corrupt("instances"))?);
        }
        Ok(loaded)
    }

    /// The instances of a service, by id.
    pub(super) fn of<'a>(&'a self, service: &str) -> impl Iterator<Item = &'a Instance> + use<'a> {
        let (from, of) = ((service.to_string(), String::new()), service.to_string());
        let instances = self.instances.range(from..).take_while(move |((service, _), _)| *service == of);
        instances.map(|(_, instance)| &**instance)
    }

    /// Puts a service where the one before of that id was.
    pub(super) fn put(&mut self, service: Service) {
        self.remove(&service.id);
        if service.offline_at != 0 {
            self.due.insert_mut((service.offline_at, service.id.clone()));
        }
        self.services.insert_mut(service.id.clone(), service);
    }

    /// Takes a service out.
    pub(super) fn remove(&mut self, id: &str) {
        if let Some(before) = self.services.get(id)
            && before.offline_at != 0
        {
            self.due.remove_mut(&(before.offline_at, before.id.clone()));
        }
        self.services.remove_mut(id);
    }

    /// Puts an instance where the one before of that id was.
    pub(super) fn insert(&mut self, instance: Instance) {
        let key = (instance.service.clone(), instance.id.clone());
        self.take(&key);
        let instance = Arc::new(instance);
        for capability in &instance.capabilities {
            put(&mut self.offers, capability.name.clone(), &key, &instance);
        }
        put(&mut self.owned, instance.connection.owner, &key, &instance);
        self.instances.insert_mut(key, instance);
    }

    /// Takes an instance out.
    pub(super) fn take(&mut self, key: &Key) {
        let Some(instance) = self.instances.get(key) else { return };
        for capability in &instance.capabilities {
            drop_key(&mut self.offers, &capability.name, key);
        }
        drop_key(&mut self.owned, &instance.connection.owner, key);
        self.instances.remove_mut(key);
    }
}

/// Puts an instance into one of the maps.
fn put<K: Ord + Clone>(maps: &mut Map<K, Map<Key, Arc<Instance>>>, of: K, key: &Key, instance: &Arc<Instance>) {
    update(maps, of, |map| map.insert_mut(key.clone(), Arc::clone(instance)));
}

/// Takes a key out of one of the maps, and the map with its last key.
fn drop_key<K: Ord + Clone>(maps: &mut Map<K, Map<Key, Arc<Instance>>>, of: &K, key: &Key) {
    if let Some(map) = maps.get_mut(of) {
        map.remove_mut(key);
        if map.is_empty() {
            maps.remove_mut(of);
        }
    }
}
