//! Services and instances: registered, marked and removed, and the roll events that announce each change.
//!
//! `connect` and `disconnect` announce each connection of an instance; a connection that replaces another one causes
//! both. `online` and `offline` announce the first and the last instance of a service in the whole cluster. The rules
//! append these events in the same step as the change, so every subscriber sees each of them once and in one order.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use prost::Message as _;
use serde::Serialize;

use super::Machine;
use super::effects::Effects;
use super::expire::{Budget, NODE_LOST};
use super::services::InstanceKey;
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
    // Names have no control characters, so the separator 0 cannot be a part of a name.
    [service.as_bytes(), instance.as_bytes()].join(&0)
}

/// Payload of `roll.service.*`.
#[derive(Serialize)]
struct ServiceEvent<'a> {
    service: ServiceJson<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    instance: Option<InstanceJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    at: String,
}

/// A service in roll events; the names of the fields are what clients read.
#[derive(Serialize)]
struct ServiceJson<'a> {
    id: &'a str,
    name: &'a str,
    version: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
}

/// An instance in roll events.
#[derive(Serialize)]
struct InstanceJson<'a> {
    id: &'a str,
    node: u64,
    door: &'a str,
    version: &'a str,
    capabilities: Vec<CapabilityJson<'a>>,
}

/// A capability in roll events, without its description.
#[derive(Serialize)]
struct CapabilityJson<'a> {
    name: &'a str,
    actions: &'a [String],
}

impl<'a> InstanceJson<'a> {
    /// The form of an instance in roll events.
    fn of(reference: &'a InstanceRef) -> Self {
        let InstanceRef { id, node, door, version, capabilities } = reference;
        let capability = |one: &'a Capability| CapabilityJson { name: &one.name, actions: &one.actions };
        Self { id, node: *node, door, version, capabilities: capabilities.iter().map(capability).collect() }
    }
}

impl Machine {
    /// The service of this id.
    #[must_use]
    pub fn service(&self, id: &str) -> Option<&Service> {
        self.services.services.get(id)
    }

    /// All services in the order of their ids.
    pub fn services(&self) -> impl Iterator<Item = &Service> {
        self.services.services.values()
    }

    /// The connected instances of a service, in the order of their ids.
    pub fn instances(&self, service: &str) -> impl Iterator<Item = &Instance> {
        self.services.instances_of(service)
    }

    /// The connected instance `id` of a service.
    #[must_use]
    pub fn instance(&self, service: &str, id: &str) -> Option<&Instance> {
        self.services.instances.get(&(service.to_string(), id.to_string())).map(|instance| &**instance)
    }

    /// The instances that may answer a request for `name`: those with a capability of that name, or else those of the
    /// service with that id. Instances of an ended node are left out, also while they are still on the roll.
    pub fn providers<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Instance> + use<'a> {
        let alive = move |instance: &&Instance| self.is_alive(instance.connection.owner);
        let of = move |offers: &'a Map<InstanceKey, Arc<Instance>>| {
            offers.values().map(|instance| &**instance).filter(alive)
        };
        let offered = self.services.offers.get(name).filter(|offers| of(offers).next().is_some());
        let of_service = offered.is_none().then(|| self.services.instances_of(name).filter(alive));
        offered.into_iter().flat_map(of).chain(of_service.into_iter().flatten())
    }

    /// The services whose grace time ends at `now` or before, in the order of these times; `now` in milliseconds since
    /// 1970.
    pub fn services_due(&self, now: u64) -> impl Iterator<Item = &str> {
        self.services.due.iter().take_while(move |(at, _)| *at <= now).map(|(_, id)| id.as_str())
    }

    /// Puts an instance on the roll, or updates its registration. The newest connection of an instance wins: it
    /// replaces an older one. The service is created with its first instance.
    pub(super) fn instance_register(&mut self, register: InstanceRegister, effects: &mut Effects<'_>) -> Reply {
        let InstanceRegister { service: announced, mut instance } = register;
        announced.check()?;
        instance.check()?;
        if announced.id != instance.service {
            return Err(Refusal::Malformed("an instance of another service".into()));
        }
        if !self.is_alive(instance.connection.owner) {
            return Err(Refusal::Unavailable("that life of the node has ended".into()));
        }
        let ended = |present: &&Instance| !self.is_alive(present.connection.owner);
        if let Some(ended) = self.instance(&instance.service, &instance.id).filter(ended) {
            // The present instance belongs to an ended node: it is removed first, as the end of its node would do.
            self.remove_instance(&(ended.service.clone(), ended.id.clone()), NODE_LOST, effects);
        }
        let present = self.instance(&instance.service, &instance.id).cloned();
        if present.is_none() && self.services.instances.size() >= self.limits().instances {
            return Err(Refusal::Overloaded("too many instances".into()));
        }
        let known = self.service(&announced.id).cloned();
        if known.is_none() && self.services.services.size() >= self.limits().services {
            return Err(Refusal::Overloaded("too many services".into()));
        }
        let is_new = known.is_none();
        let mut service = known.unwrap_or(Service {
            name: announced.id.clone(),
            id: announced.id,
            registered_at: self.millis,
            ..Service::default()
        });
        let or_present =
            |announced: String, present: &str| if announced.is_empty() { present.to_string() } else { announced };
        let (name, kind) = (or_present(announced.name, &service.name), or_present(announced.kind, &service.kind));
        let changed = (&service.name, &service.version, &service.kind) != (&name, &announced.version, &kind);
        (service.name, service.version, service.kind) = (name, announced.version, kind);
        instance.connected_at = present.as_ref().map_or(self.millis, |present| present.connected_at);
        // The operator drains an instance, not a connection: a replacement stays draining.
        instance.draining = present.as_ref().is_some_and(|present| present.draining);
        instance.unhealthy = false;
        let replaced = present.as_ref().filter(|present| present.connection != instance.connection);
        let instance_changed =
            present.as_ref().is_some_and(|present| replaced.is_none() && !is_same_registration(present, &instance));
        (service.offline_at, service.leaving) = (0, None);
        let comes_online = !service.online;
        service.online = true;
        if is_new || changed {
            service.revision = service.revision.saturating_add(1);
        }
        self.save_service(service.clone(), effects.writes);
        self.save_instance(instance.clone(), effects.writes);
        let reference = instance.reference();
        if is_new {
            self.append_service_event("registered", &service, Some(&reference), None, effects);
        } else if changed || instance_changed {
            self.append_service_event("updated", &service, Some(&reference), None, effects);
        }
        if let Some(replaced) = replaced {
            self.append_service_event("disconnect", &service, Some(&replaced.reference()), Some("replaced"), effects);
        }
        if present.is_none() || replaced.is_some() {
            self.append_service_event("connect", &service, Some(&reference), None, effects);
        }
        if comes_online {
            self.append_service_event("online", &service, Some(&reference), None, effects);
        }
        let replaced = replaced.map(|replaced| replaced.connection);
        Ok(Done::Registered(Registered { instance, replaced }))
    }

    /// Takes instances off the roll whose connections have ended, within the budget of one command.
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

    /// Marks instances as draining or unhealthy, or takes the marks back, within the budget of one command.
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
            self.append_service_event("updated", &service, Some(&reference), Some(reason), effects);
        }
        Ok(if more { Done::More } else { Done::Nothing })
    }

    /// Replaces the operator's metadata of a service.
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
        self.append_service_event("updated", &service, None, Some("metadata"), effects);
        Ok(Done::Service(service))
    }

    /// Removes a service and its instances, within the budget of one command.
    pub(super) fn service_remove(&mut self, remove: &ServiceRemove, effects: &mut Effects<'_>) -> Reply {
        let Some(mut service) = self.service(&remove.id).cloned() else {
            return Err(Refusal::ServiceNotFound(remove.id.clone()));
        };
        let mut budget = Budget::of(self.level());
        let next = self.instances(&remove.id).take_while(|instance| budget.spend(instance.encoded_len()));
        let instances: Vec<Instance> = next.cloned().collect();
        for instance in &instances {
            self.delete_instance(instance, effects.writes);
            self.append_service_event("disconnect", &service, Some(&instance.reference()), Some("removed"), effects);
        }
        if self.instances(&remove.id).next().is_some() {
            // The service is removed together with its last instance.
            return Ok(Done::Removed(Removed { instances, more: true }));
        }
        if service.online {
            let last = instances.last().map(Instance::reference).or_else(|| service.leaving.take());
            self.append_service_event("offline", &service, last.as_ref(), Some("removed"), effects);
        }
        self.services.remove_service(&remove.id);
        effects.writes.delete(Family::Services, remove.id.clone().into_bytes());
        self.append_service_event("removed", &service, None, None, effects);
        Ok(Done::Removed(Removed { instances, more: false }))
    }

    /// Declares services offline whose grace time has ended by the time of the log.
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

    /// Removes an instance and announces its end. After the last instance of a service the grace time begins, or the
    /// service goes offline at once.
    pub(super) fn remove_instance(&mut self, key: &InstanceKey, reason: &str, effects: &mut Effects<'_>) {
        let Some(instance) = self.services.instances.get(key).cloned() else { return };
        self.delete_instance(&instance, effects.writes);
        let Some(mut service) = self.service(&key.0).cloned() else { return };
        self.append_service_event("disconnect", &service, Some(&instance.reference()), Some(reason), effects);
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

    /// Declares a service offline and announces it with the instance that left last.
    fn take_offline(&mut self, mut service: Service, effects: &mut Effects<'_>) {
        let last = service.leaving.take();
        (service.online, service.offline_at) = (false, 0);
        self.save_service(service.clone(), effects.writes);
        self.append_service_event("offline", &service, last.as_ref(), None, effects);
    }

    /// Writes the row of a service and updates the indexes.
    pub(super) fn save_service(&mut self, service: Service, writes: &mut Writes) {
        writes.put(Family::Services, service.id.clone().into_bytes(), service.encode_to_vec());
        self.services.put_service(service);
    }

    /// Writes the row of an instance and updates the indexes.
    fn save_instance(&mut self, instance: Instance, writes: &mut Writes) {
        writes.put(Family::Instances, row_key(&instance.service, &instance.id), instance.encode_to_vec());
        self.services.put_instance(instance);
    }

    /// Deletes the row of an instance and updates the indexes.
    fn delete_instance(&mut self, instance: &Instance, writes: &mut Writes) {
        writes.delete(Family::Instances, row_key(&instance.service, &instance.id));
        self.services.remove_instance(&(instance.service.clone(), instance.id.clone()));
    }

    /// Appends the roll event `roll.service.<what>`.
    fn append_service_event(
        &mut self,
        what: &str,
        service: &Service,
        instance: Option<&InstanceRef>,
        reason: Option<&str>,
        effects: &mut Effects<'_>,
    ) {
        let Service { id, name, version, kind, .. } = service;
        let payload = ServiceEvent {
            service: ServiceJson { id, name, version, kind },
            instance: instance.map(InstanceJson::of),
            reason,
            at: self.time_text(),
        };
        self.append_roll_event(&format!("service.{what}"), &payload, effects);
    }
}

/// Whether a registration changes nothing that callers can see.
fn is_same_registration(one: &Instance, two: &Instance) -> bool {
    (one.port, &one.version, &one.capabilities, &one.metadata)
        == (two.port, &two.version, &two.capabilities, &two.metadata)
}
