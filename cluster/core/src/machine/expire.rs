//! Instances leave the roll with their node, in steps.
//!
//! A node that ends may hold many thousands of instances. Their end is that of their life, at once: nobody is sent to
//! them any more. What is told of them, and their rows, follow in steps that the leader proposes one after the other,
//! so that no entry takes long to apply. From the feature level `BOUNDED` on; before, all is one step.

use alloc::vec::Vec;
use prost::Message as _;

use super::Machine;
use super::effects::Effects;
use super::services::Key;
use crate::command::{Done, Reply};
use crate::level::FeatureLevel;
use crate::limits::{ROLL_STEP_BYTES_MAX, ROLL_STEP_MAX};
use crate::node::Owner;

/// Why an instance whose node is gone has left, as the roll tells.
pub(super) const NODE_LOST: &str = "node_lost";

/// How much one command may change of the roll.
pub(super) struct Budget {
    things: usize,
    bytes: usize,
}

impl Budget {
    /// Without a bound below the level at which commands may leave something over.
    pub(super) fn of(level: FeatureLevel) -> Self {
        if level < FeatureLevel::BOUNDED {
            return Self { things: usize::MAX, bytes: usize::MAX };
        }
        Self { things: ROLL_STEP_MAX, bytes: ROLL_STEP_BYTES_MAX }
    }

    /// Whether there is room for one more thing of so many bytes; the first one always fits.
    pub(super) const fn spend(&mut self, bytes: usize) -> bool {
        if self.things == 0 || self.bytes == 0 {
            return false;
        }
        self.things = self.things.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        true
    }
}

impl Machine {
    /// Whether instances are on the roll whose node is gone: there are more steps to be proposed.
    #[must_use]
    pub fn is_expiring(&self) -> bool {
        self.ended_owner().is_some()
    }

    fn ended_owner(&self) -> Option<Owner> {
        self.services.owned.keys().copied().find(|owner| !self.is_alive(*owner))
    }

    /// The next step.
    pub(super) fn instance_expire(&mut self, effects: &mut Effects<'_>) -> Reply {
        let mut budget = Budget::of(self.level());
        while let Some(owner) = self.ended_owner() {
            if !self.expire(owner, &mut budget, effects) {
                return Ok(Done::More);
            }
        }
        Ok(Done::Nothing)
    }

    /// A life of a node has ended, and with it everything that was connected to it: the first step.
    pub(super) fn expire_instances(&mut self, owner: Owner, effects: &mut Effects<'_>) {
        let mut budget = Budget::of(self.level());
        self.expire(owner, &mut budget, effects);
    }

    /// Whether that was all of them.
    fn expire(&mut self, owner: Owner, budget: &mut Budget, effects: &mut Effects<'_>) -> bool {
        let Some(owned) = self.services.owned.get(&owner) else { return true };
        let count = owned.size();
        let next = owned.iter().take_while(|(_, instance)| budget.spend(instance.encoded_len()));
        let gone: Vec<Key> = next.map(|(key, _)| key.clone()).collect();
        for key in &gone {
            self.remove_instance(key, NODE_LOST, effects);
        }
        gone.len() == count
    }

    /// Checks that what is derived follows from what it is derived from; for tests.
    #[cfg(test)]
    pub(super) fn check_services(&self) {
        use alloc::string::String;

        use crate::persistent::{Map, Set, update};

        let mut offers = Map::<String, Map<Key, _>>::default();
        let mut owned = Map::<Owner, Map<Key, _>>::default();
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
