//! Services and instances come and go: who is on the roll, and the events that tell of it.
//!
//! *connect* and *disconnect* are about each connection of an instance (one that takes the place of another is
//! both), *online* and *offline* about the first and the last of a service, cluster-wide. They are decided here, in
//! the same step as the change, so everybody sees each of them once and in one order.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use prost::Message as _;
use serde::Serialize;

use super::Machine;
use super::effects::Effects;
use super::expire::{Budget, NODE_LOST};
use super::services::Key;
use crate::command::{Done, Reply};
use crate::error::Refusal;
use crate::persistent::Map;
use crate::rows::{Family, Writes};
use crate::service::{
    Capability, Instance, InstanceLeave, InstanceMark, InstanceRef, InstanceRegister, Leaving, Registered, Removed,
    Service, ServiceExpire, ServiceRemove, ServiceUpdate, check_metadata,
};

/// Key of the row of an instance.
fn row_key(service: &str, instance: &str) -> Vec<u8> {
    // Names have no control characters, so this cannot be ambiguous.
    [service.as_bytes(), instance.as_bytes()].join(&0)
}

/// Payload of `roll.service.*`.
#[derive(Serialize)]
struct Told<'a> {
    service: ServiceJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<InstanceJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    at: String,
}

#[derive(Serialize)]
struct ServiceJson<'a> {
    id: &'a str,
    name: &'a str,
    version: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
}

#[derive(Serialize)]
struct InstanceJson<'a> {
    id: &'a str,
    node: u64,
    door: &'a str,
    version: &'a str,
    capabilities: Vec<CapabilityJson<'a>>,
}

#[derive(Serialize)]
struct CapabilityJson<'a> {
    name: &'a str,
    actions: &'a [String],
}

impl<'a> InstanceJson<'a> {
    fn of(reference: &'a InstanceRef) -> Self {
        let InstanceRef { id, node, door, version, capabilities } = reference;
        let capability = |one: &'a Capability| CapabilityJson { name: &one.name, actions: &one.actions };
        Self { id, node: *node, door, version, capabilities: capabilities.iter().map(capability).collect() }
    }
}

impl Machine {
    /// A service that was registered and not removed.
    #[must_use]
    pub fn service(&self, id: &str) -> Option<&Service> {
        self.services.services.get(id)
    }

    /// All services, by id.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.services.values()
    }

    /// The connected instances of a service, by id.
    pub fn instances(&self, service: &str) -> impl Iterator<Item = &Instance> {
        self.services.of(service)
    }

    /// One connected instance.
    #[must_use]
    pub fn instance(&self, service: &str, id: &str) -> Option<&Instance> {
        self.services.instances.get(&(service.to_string(), id.to_string())).map(|instance| &**instance)
    }

    /// Who may be asked for `name`: the instances that offer a capability of that name, or else those of the
    /// service with that id. An instance whose node is gone is not asked, also while it is still on the roll.
    pub fn providers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Instance> + use<'a> {
        let there = move |instance: &&Instance| self.is_alive(instance.connection.owner);
        let of = move |offers: &'a Map<Key, Arc<Instance>>| offers.values().map(|instance| &**instance).filter(there);
        let offered = self.services.offers.get(name).filter(|offers| of(offers).next().is_some());
        let of_service = offered.is_none().then(|| self.services.of(name).filter(there));
        offered.into_iter().flat_map(of).chain(of_service.into_iter().flatten())
    }

    /// The services whose grace ends at this time or before, `now` in milliseconds since 1970; those that have waited
    /// longest first.
    pub fn services_due(&self, now: u64) -> impl Iterator<Item = &str> {
        self.services.due.iter().take_while(move |(at, _)| *at <= now).map(|(_, id)| id.as_str())
    }

    pub(super) fn instance_register(&mut self, register: InstanceRegister, effects: &mut Effects<'_>) -> Reply {
        let InstanceRegister { service: said, mut instance } = register;
        said.check()?;
        instance.check()?;
        if said.id != instance.service {
            return Err(Refusal::Malformed("an instance of another service".into()));
        }
        if !self.is_alive(instance.connection.owner) {
            return Err(Refusal::Unavailable("that life of the node has ended".into()));
        }
        let ended = |present: &&Instance| !self.is_alive(present.connection.owner);
        if let Some(ended) = self.instance(&instance.service, &instance.id).filter(ended) {
            // The end of its node takes it off, before it comes anew.
            self.remove_instance(&(ended.service.clone(), ended.id.clone()), NODE_LOST, effects);
        }
        let present = self.instance(&instance.service, &instance.id).cloned();
        if present.is_none() && self.services.instances.size() >= self.limits().instances {
            return Err(Refusal::Overloaded("too many instances".into()));
        }
        let known = self.service(&said.id).cloned();
        if known.is_none() && self.services.services.size() >= self.limits().services {
            return Err(Refusal::Overloaded("too many services".into()));
        }
        let fresh = known.is_none();
        let mut service = known.unwrap_or(Service {
            name: said.id.clone(),
            id: said.id,
            registered_at: self.millis,
            ..Service::default()
        });
        let or = |said: String, present: &str| if said.is_empty() { present.to_string() } else { said };
        let (name, kind) = (or(said.name, &service.name), or(said.kind, &service.kind));
        let changed = (&service.name, &service.version, &service.kind) != (&name, &said.version, &kind);
        (service.name, service.version, service.kind) = (name, said.version, kind);
        instance.connected_at = present.as_ref().map_or(self.millis, |present| present.connected_at);
        // A replacement goes on where the one before was, as far as the operator is concerned.
        instance.draining = present.as_ref().is_some_and(|present| present.draining);
        instance.unhealthy = false;
        let replaced = present.as_ref().filter(|present| present.connection != instance.connection);
        let other = present.as_ref().is_some_and(|present| replaced.is_none() && !says_the_same(present, &instance));
        (service.offline_at, service.leaving) = (0, None);
        let first = !service.online;
        service.online = true;
        if fresh || changed {
            service.revision = service.revision.saturating_add(1);
        }
        self.save_service(service.clone(), effects.writes);
        self.save_instance(instance.clone(), effects.writes);
        let reference = instance.reference();
        if fresh {
            self.tell_service("registered", &service, Some(&reference), None, effects);
        } else if changed || other {
            self.tell_service("updated", &service, Some(&reference), None, effects);
        }
        if let Some(replaced) = replaced {
            self.tell_service("disconnect", &service, Some(&replaced.reference()), Some("replaced"), effects);
        }
        if present.is_none() || replaced.is_some() {
            self.tell_service("connect", &service, Some(&reference), None, effects);
        }
        if first {
            self.tell_service("online", &service, Some(&reference), None, effects);
        }
        let replaced = replaced.map(|replaced| replaced.connection);
        Ok(Done::Registered(Registered { instance, replaced }))
    }

    pub(super) fn instance_leave(&mut self, leave: &InstanceLeave, effects: &mut Effects<'_>) -> Reply {
        let mut budget = Budget::of(self.level());
        for Leaving { service, instance, connection } in &leave.leaving {
            let present = self.instance(service, instance).filter(|present| present.connection == *connection);
            if let Some(present) = present {
                if !budget.spend(present.encoded_len()) {
                    return Ok(Done::More);
                }
                self.remove_instance(&(service.clone(), instance.clone()), "left", effects);
            }
        }
        Ok(Done::Nothing)
    }

    pub(super) fn instance_mark(&mut self, mark: &InstanceMark, effects: &mut Effects<'_>) -> Reply {
        let Some(service) = self.service(&mark.service).cloned() else {
            return Err(Refusal::ServiceNotFound(mark.service.clone()));
        };
        let wanted = |one: &&Instance| {
            (mark.instance.is_empty() || one.id == mark.instance)
                && mark.connection.is_none_or(|connection| connection == one.connection)
        };
        if !mark.instance.is_empty() && !self.instance(&mark.service, &mark.instance).as_ref().is_some_and(wanted) {
            return Err(Refusal::InstanceNotFound(mark.instance.clone()));
        }
        let after = |one: &Instance| (mark.draining.unwrap_or(one.draining), mark.unhealthy.unwrap_or(one.unhealthy));
        let mut budget = Budget::of(self.level());
        let (mut marked, mut more) = (Vec::new(), false);
        for one in self.instances(&mark.service).filter(wanted) {
            if (one.draining, one.unhealthy) != after(one) {
                more = !budget.spend(one.encoded_len());
                if more {
                    break;
                }
                marked.push(one.clone());
            }
        }
        for mut instance in marked {
            (instance.draining, instance.unhealthy) = after(&instance);
            let reason = instance.state();
            let reference = instance.reference();
            self.save_instance(instance, effects.writes);
            self.tell_service("updated", &service, Some(&reference), Some(reason), effects);
        }
        Ok(if more { Done::More } else { Done::Nothing })
    }

    pub(super) fn service_update(&mut self, update: ServiceUpdate, effects: &mut Effects<'_>) -> Reply {
        check_metadata(&update.metadata)?;
        let Some(mut service) = self.service(&update.id).cloned() else {
            return Err(Refusal::ServiceNotFound(update.id));
        };
        if let Some(wanted) = update.if_revision.filter(|wanted| *wanted != service.revision) {
            return Err(Refusal::RevisionMismatch(format!("revision is {}, not {wanted}", service.revision)));
        }
        service.metadata = update.metadata;
        service.revision = service.revision.saturating_add(1);
        self.save_service(service.clone(), effects.writes);
        self.tell_service("updated", &service, None, Some("metadata"), effects);
        Ok(Done::Service(service))
    }

    pub(super) fn service_remove(&mut self, remove: &ServiceRemove, effects: &mut Effects<'_>) -> Reply {
        let Some(mut service) = self.service(&remove.id).cloned() else {
            return Err(Refusal::ServiceNotFound(remove.id.clone()));
        };
        let mut budget = Budget::of(self.level());
        let next = self.instances(&remove.id).take_while(|instance| budget.spend(instance.encoded_len()));
        let instances: Vec<Instance> = next.cloned().collect();
        for instance in &instances {
            self.forget_instance(instance, effects.writes);
            self.tell_service("disconnect", &service, Some(&instance.reference()), Some("removed"), effects);
        }
        if self.instances(&remove.id).next().is_some() {
            // The service goes with the last of them.
            return Ok(Done::Removed(Removed { instances, more: true }));
        }
        if service.online {
            let last = instances.last().map(Instance::reference).or_else(|| service.leaving.take());
            self.tell_service("offline", &service, last.as_ref(), Some("removed"), effects);
        }
        self.services.remove(&remove.id);
        effects.writes.delete(Family::Services, remove.id.clone().into_bytes());
        self.tell_service("removed", &service, None, None, effects);
        Ok(Done::Removed(Removed { instances, more: false }))
    }

    pub(super) fn service_expire(&mut self, expire: &ServiceExpire, effects: &mut Effects<'_>) -> Reply {
        let mut budget = Budget::of(self.level());
        for id in &expire.ids {
            let Some(service) = self.service(id).cloned() else { continue };
            if service.offline_at != 0 && service.offline_at <= self.millis {
                if !budget.spend(service.encoded_len()) {
                    return Ok(Done::More);
                }
                self.take_offline(service, effects);
            }
        }
        Ok(Done::Nothing)
    }

    pub(super) fn remove_instance(&mut self, key: &Key, reason: &str, effects: &mut Effects<'_>) {
        let Some(instance) = self.services.instances.get(key).cloned() else { return };
        self.forget_instance(&instance, effects.writes);
        let Some(mut service) = self.service(&key.0).cloned() else { return };
        self.tell_service("disconnect", &service, Some(&instance.reference()), Some(reason), effects);
        if self.instances(&key.0).next().is_some() {
            return;
        }
        service.leaving = Some(instance.reference());
        if instance.grace_ms == 0 {
            self.take_offline(service, effects);
        } else {
            service.offline_at = self.millis.saturating_add(instance.grace_ms);
            self.save_service(service, effects.writes);
        }
    }

    fn take_offline(&mut self, mut service: Service, effects: &mut Effects<'_>) {
        let last = service.leaving.take();
        (service.online, service.offline_at) = (false, 0);
        self.save_service(service.clone(), effects.writes);
        self.tell_service("offline", &service, last.as_ref(), None, effects);
    }

    pub(super) fn save_service(&mut self, service: Service, writes: &mut Writes) {
        writes.put(Family::Services, service.id.clone().into_bytes(), service.encode_to_vec());
        self.services.put(service);
    }

    fn save_instance(&mut self, instance: Instance, writes: &mut Writes) {
        writes.put(Family::Instances, row_key(&instance.service, &instance.id), instance.encode_to_vec());
        self.services.insert(instance);
    }

    fn forget_instance(&mut self, instance: &Instance, writes: &mut Writes) {
        writes.delete(Family::Instances, row_key(&instance.service, &instance.id));
        self.services.take(&(instance.service.clone(), instance.id.clone()));
    }

    fn tell_service(
        &mut self,
        what: &str,
        service: &Service,
        instance: Option<&InstanceRef>,
        reason: Option<&str>,
        effects: &mut Effects<'_>,
    ) {
        let Service { id, name, version, kind, .. } = service;
        let told = Told {
            service: ServiceJson { id, name, version, kind },
            instance: instance.map(InstanceJson::of),
            reason,
            at: self.at(),
        };
        self.tell(&format!("service.{what}"), &told, effects);
    }
}

/// Whether a registration brings nothing new.
fn says_the_same(one: &Instance, two: &Instance) -> bool {
    (one.port, &one.version, &one.capabilities, &one.metadata)
        == (two.port, &two.version, &two.capabilities, &two.metadata)
}
