//! The place of a connection of an actor of Xbus on the roll.

use std::sync::Arc;

use actix::Recipient;
use rollbook_core::xbus::account::row::ActorRow;
use rollbook_core::xbus::id::Id;

use super::services::Services;
use crate::bus::client::clients::{About, ClientHandle, ClientMessage};
use crate::bus::client::no_announcements::NO_ANNOUNCEMENTS;
use crate::bus::security::identity::Identity;
use crate::bus::xbus::flow::ActorNews;
use crate::bus::xbus::jobs::engine::Engine;
use crate::bus::xbus::jobs::give_back::come_back;
use crate::bus::xbus::presence;

/// A connection of an actor.
#[derive(Debug, Clone)]
pub struct ActorConnection {
    /// The actor.
    pub actor: ActorRow,
    /// Who the client is.
    pub identity: Arc<Identity>,
    /// The address of the client.
    pub address: String,
    /// Name of the door.
    pub door: &'static str,
    /// What tells the connection from others of the actor at this node, a few letters or digits.
    pub tag: String,
}

/// The place of a connection on the roll, which shows that its actor takes jobs. The connection leaves the roll when
/// this is dropped.
#[derive(Debug)]
pub struct ActorPlace {
    services: Services,
    engine: Engine,
    actor: ActorRow,
    instance: String,
    /// `None` while the place is being dropped.
    handle: Option<ClientHandle>,
}

impl ActorPlace {
    /// Takes a place. Detached jobs of the actor go on.
    #[must_use]
    pub fn take(
        services: &Services,
        engine: &Engine,
        connection: ActorConnection,
        to: Recipient<ClientMessage>,
    ) -> Self {
        let ActorConnection { actor, identity, address, door, tag } = connection;
        let id = Id::from_slice(&actor.id).unwrap_or_default();
        let instance = format!("{id}-{}-{tag}", services.bus.node().id());
        let (about_id, name) = (instance.clone(), actor.name.clone());
        let about = About { id: about_id, address, name, transport: "xbus", accepted: true, ..About::default() };
        let handle = services.clients.connect((identity, None), &NO_ANNOUNCEMENTS, to, about);
        let register = presence::registration(&actor, &instance, door);
        if !is_elsewhere(services, &actor, &instance) {
            engine.flow().tell_of_actor(&actor, ActorNews::Online);
        }
        let (roll, client, name) = (services.roll.clone(), Arc::clone(handle.client()), actor.name.clone());
        let engine_of_jobs = engine.clone();
        actix_web::rt::spawn(async move {
            if let Err(fault) = roll.register(&client, register).await {
                tracing::warn!(actor = name, %fault, "an actor of Xbus is not on the roll");
            }
            come_back(&engine_of_jobs, id).await;
        });
        Self { services: services.clone(), engine: engine.clone(), actor, instance, handle: Some(handle) }
    }

    /// The number of the connection at the router.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.handle.as_ref().map_or(0, |handle| handle.client().serial)
    }
}

/// Whether the roll shows another connection of the actor.
fn is_elsewhere(services: &Services, actor: &ActorRow, instance: &str) -> bool {
    services.bus.node().state().with_machine(|machine| presence::is_online_beside(machine, actor, instance))
}

impl Drop for ActorPlace {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else { return };
        let serial = handle.client().serial;
        drop(handle);
        self.services.router.forget(serial);
        self.services.roll.leave(serial, &presence::service_id(&self.actor), &self.instance);
        if !is_elsewhere(&self.services, &self.actor, &self.instance) {
            self.engine.flow().tell_of_actor(&self.actor, ActorNews::Offline);
        }
    }
}
