//! Actors on the roll: each connection of an actor is an instance of a service with the name of the actor.

use rollbook_core::machine::Machine;
use rollbook_core::service::{Instance, InstanceRegister, Service};
use rollbook_core::xbus::account::row::{ActorKind, ActorRow};
use rollbook_core::xbus::id::Id;

/// The kind of the services that actors are.
const KIND: &str = "actor";

/// The id of the service that an actor is.
#[must_use]
pub fn service_id(actor: &ActorRow) -> String {
    // A name with blanks at its ends is none for a service.
    if actor.name.trim() == actor.name {
        return actor.name.clone();
    }
    Id::from_slice(&actor.id).unwrap_or_default().to_string()
}

/// The registration of a connection of an actor.
#[must_use]
pub fn registration(actor: &ActorRow, connection: &str, door: &str) -> InstanceRegister {
    let (id, service) = (connection.to_owned(), service_id(actor));
    let kind = match actor.kind() {
        ActorKind::Consumer => "consumer",
        ActorKind::Emitter => "emitter",
        ActorKind::Worker => "worker",
    };
    let actor_id = Id::from_slice(&actor.id).unwrap_or_default().to_string();
    let metadata = serde_json::json!({ "actor": actor_id, "kind": kind, "roles": actor.roles }).to_string();
    let metadata = if metadata.len() > rollbook_core::limits::METADATA_BYTES_MAX { String::new() } else { metadata };
    let instance = Instance {
        id,
        service: service.clone(),
        door: door.to_owned(),
        version: String::new(),
        metadata: metadata.clone(),
        ..Instance::default()
    };
    let service =
        Service { id: service, name: actor.name.clone(), kind: KIND.to_owned(), metadata, ..Service::default() };
    InstanceRegister { service, instance }
}

/// The other nodes at which the roll shows an actor that takes jobs, each once, in order.
#[must_use]
pub fn other_nodes(machine: &Machine, actor: &ActorRow, here: u64) -> Vec<u64> {
    let there = |instance: &&Instance| {
        let owner = instance.connection.owner;
        owner.node != here && instance.is_available() && machine.is_alive(owner)
    };
    let id = service_id(actor);
    let mut nodes: Vec<u64> =
        machine.instances(&id).filter(there).map(|instance| instance.connection.owner.node).collect();
    nodes.sort_unstable();
    nodes.dedup();
    nodes
}

/// Whether the roll shows another connection of an actor than this one.
#[must_use]
pub fn is_online_beside(machine: &Machine, actor: &ActorRow, connection: &str) -> bool {
    let other = |instance: &Instance| instance.id != connection && machine.is_alive(instance.connection.owner);
    machine.instances(&service_id(actor)).any(other)
}

/// Whether the roll shows an actor anywhere.
#[must_use]
pub fn is_online(machine: &Machine, actor: &ActorRow) -> bool {
    let id = service_id(actor);
    machine.instances(&id).any(|instance| machine.is_alive(instance.connection.owner))
}
