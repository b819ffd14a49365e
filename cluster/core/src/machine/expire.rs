//! Removes the instances of an ended node from the roll, in bounded steps.
//!
//! A node may hold many thousands of instances. When its life ends, routers stop at once to send requests to them.
//! Their rows and roll events follow in steps that the leader proposes one after the other, so that no entry takes long
//! to apply. Below feature level `BOUNDED` all instances are removed in one step.

use alloc::vec::Vec;
use prost::Message as _;

use super::Machine;
use super::effects::Effects;
use super::services::InstanceKey;
use crate::command::{Done, Reply};
use crate::level::FeatureLevel;
use crate::limits::{ROLL_STEP_BYTES_MAX, ROLL_STEP_MAX};
use crate::node::Owner;

/// The reason in the roll event of an instance whose node has ended.
pub(super) const NODE_LOST: &str = "node_lost";

/// How many items and bytes of the roll one command may still change.
pub(super) struct Budget {
    items: usize,
    bytes: usize,
}

impl Budget {
    /// The budget of a command. Unbounded below level `BOUNDED`, where no command may leave work for another one.
    pub(super) fn of(level: FeatureLevel) -> Self {
        if level < FeatureLevel::BOUNDED {
            return Self { items: usize::MAX, bytes: usize::MAX };
        }
        Self { items: ROLL_STEP_MAX, bytes: ROLL_STEP_BYTES_MAX }
    }

    /// Takes one item of so many bytes from the budget. Returns `false` when the budget was used up before; so the
    /// first item always fits, however large.
    pub(super) const fn spend(&mut self, bytes: usize) -> bool {
        if self.items == 0 || self.bytes == 0 {
            return false;
        }
        self.items = self.items.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

impl Machine {
    /// Whether the roll holds instances of ended nodes: the leader must propose another step.
    #[must_use]
    pub fn is_expiring(&self) -> bool {
        self.ended_owner().is_some()
    }

    /// A life of a node that has ended and still owns instances on the roll.
    fn ended_owner(&self) -> Option<Owner> {
        self.services.owned.keys().copied().find(|owner| !self.is_alive(*owner))
    }

    /// Removes the next instances of ended nodes.
    pub(super) fn instance_expire(&mut self, effects: &mut Effects<'_>) -> Reply {
        let mut budget = Budget::of(self.level());
        while let Some(owner) = self.ended_owner() {
            if !self.expire(owner, &mut budget, effects) {
                return Ok(Done::More);
            }
        }
        Ok(Done::Nothing)
    }

    /// Removes the first instances of a life that has just ended.
    pub(super) fn expire_instances(&mut self, owner: Owner, effects: &mut Effects<'_>) {
        let mut budget = Budget::of(self.level());
        self.expire(owner, &mut budget, effects);
    }

    /// Removes instances of an ended life within the budget. Returns whether all of them are removed.
    fn expire(&mut self, owner: Owner, budget: &mut Budget, effects: &mut Effects<'_>) -> bool {
        let Some(owned) = self.services.owned.get(&owner) else { return true };
        let count = owned.size();
        let next = owned.iter().take_while(|(_, instance)| budget.spend(instance.encoded_len()));
        let gone: Vec<InstanceKey> = next.map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.remove_instance(key, NODE_LOST, effects);
        }
        gone.len() == count
    }

    /// Checks that the indexes of the roll agree with its services and instances; for tests.
    #[cfg(test)]
    pub(super) fn check_services(&self) {
        use alloc::string::String;

        use crate::persistent::{Map, Set, update};

        let mut offers = Map::<String, Map<InstanceKey, _>>::default();
        let mut owned = Map::<Owner, Map<InstanceKey, _>>::default();
        for (key, instance) in &self.services.instances {
            assert_eq!(*key, (instance.service.clone(), instance.id.clone()));
            assert!(self.service(&key.0).is_some_and(|service| service.online && service.offline_at == 0), "{key:?}");
            let owner = instance.connection.owner;
            let may_wait = self.level() >= FeatureLevel::BOUNDED;
            assert!(self.is_alive(owner) || (may_wait && self.is_expiring()), "{key:?} outlived its node");
            update(&mut owned, owner, |of| of.insert_mut(key.clone(), instance.clone()));
            for capability in &instance.capabilities {
                update(&mut offers, capability.name.clone(), |of| of.insert_mut(key.clone(), instance.clone()));
            }
        }
        assert_eq!(offers, self.services.offers);
        assert_eq!(owned, self.services.owned);
        let mut due = Set::default();
        for service in self.services() {
            let some = self.instances(&service.id).next().is_some();
            assert_eq!(service.online, some || service.offline_at != 0, "{service:?}");
            if service.offline_at != 0 {
                due.insert_mut((service.offline_at, service.id.clone()));
            }
        }
        assert_eq!(due, self.services.due);
    }
}
