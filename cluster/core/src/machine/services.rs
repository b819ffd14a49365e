//! The clients that are on the roll, and who offers what.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use prost::Message as _;

use crate::node::Owner;
use crate::rows::RowsError;
use crate::service::{Instance, Service};

/// Service and instance.
pub(super) type Key = (String, String);

/// The clients that are on the roll.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Services {
    pub(super) services: BTreeMap<String, Service>,
    pub(super) instances: BTreeMap<Key, Instance>,
    /// Who offers what.
    pub(super) offers: BTreeMap<String, BTreeSet<Key>>,
    /// The instances of each life of a node.
    pub(super) owned: BTreeMap<Owner, BTreeSet<Key>>,
    /// The services whose grace ends, by when.
    pub(super) due: BTreeSet<(u64, String)>,
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
    pub(super) fn of<'a>(&'a self, service: &str) -> impl Iterator<Item = &'a Instance> + Clone + use<'a> {
        let (from, of) = ((service.to_string(), String::new()), service.to_string());
        self.instances.range(from..).take_while(move |((service, _), _)| *service == of).map(|(_, instance)| instance)
    }

    /// Puts a service where the one before of that id was.
    pub(super) fn put(&mut self, service: Service) {
        self.remove(&service.id);
        if service.offline_at != 0 {
            self.due.insert((service.offline_at, service.id.clone()));
        }
        self.services.insert(service.id.clone(), service);
    }

    /// Takes a service out.
    pub(super) fn remove(&mut self, id: &str) {
        if let Some(before) = self.services.remove(id)
            && before.offline_at != 0
        {
            self.due.remove(&(before.offline_at, before.id));
        }
    }

    /// Puts an instance where the one before of that id was.
    pub(super) fn insert(&mut self, instance: Instance) {
        let key = (instance.service.clone(), instance.id.clone());
        self.take(&key);
        for capability in &instance.capabilities {
            self.offers.entry(capability.name.clone()).or_default().insert(key.clone());
        }
        self.owned.entry(instance.connection.owner).or_default().insert(key.clone());
        self.instances.insert(key, instance);
    }

    /// Takes an instance out.
    pub(super) fn take(&mut self, key: &Key) -> Option<Instance> {
        let instance = self.instances.remove(key)?;
        for capability in &instance.capabilities {
            drop_key(&mut self.offers, &capability.name, key);
        }
        drop_key(&mut self.owned, &instance.connection.owner, key);
        Some(instance)
    }
}

/// Takes a key out of one of the sets, and the set with its last key.
fn drop_key<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<Key>>, of: &K, key: &Key) {
    if let Some(set) = sets.get_mut(of) {
        set.remove(key);
        if set.is_empty() {
            sets.remove(of);
        }
    }
}
