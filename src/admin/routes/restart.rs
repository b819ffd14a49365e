//! A restart of a service whose program does not do it: the docks that have its process do. And the wait for a new
//! instance, whoever started the process.
//!
//! A program whose process a dock has started says so when it registers: `metadata.process` is `ROLLBOOK_PROCESS` of its
//! environment, `DOCK/DEFINITION/NUMBER`. A service that is not connected is the process of the definition with its id.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rollbook_core::service::Instance;
use serde_json::Value;

use crate::admin::Admin;
use crate::base::clock;
use crate::bus::docks::commands::Control;
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;

/// How often the roll is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// The process of an instance, if a dock has started it: dock and definition.
pub(in crate::admin) fn process_of(instance: &Instance) -> Option<(String, String)> {
    let metadata: Value = serde_json::from_str(&instance.metadata).ok()?;
    let mut parts = metadata.get("process")?.as_str()?.splitn(3, '/');
    let (dock, definition) = (parts.next()?, parts.next()?);
    parts.next().map(|_| (dock.to_owned(), definition.to_owned()))
}

/// Whether docks have a process that may be this service.
pub(super) fn has_definition(admin: &Admin, service: &str) -> bool {
    admin.docks.client().look(|docks| docks.definition(service).is_some())
}

/// Has docks restart a process: all that have it, or one.
pub(super) async fn by_docks(admin: &Admin, who: &Identity, definition: &str, dock: Option<&str>) -> Result<(), Fault> {
    admin.docks.control(who, definition, Control::Restart, dock).await
}

/// The instances of a service before a restart, to be told from those behind.
pub(super) struct Before {
    admin: Arc<Admin>,
    service: String,
    connections: BTreeSet<(u64, u64, u64)>,
}

fn connection(instance: &Instance) -> (u64, u64, u64) {
    let of = &instance.connection;
    (of.owner.node, of.owner.incarnation, of.serial)
}

impl Before {
    pub(super) fn new(admin: Arc<Admin>, service: &str) -> Self {
        let instances = instances(&admin, service);
        Self { admin, service: service.to_owned(), connections: instances.iter().map(connection).collect() }
    }

    /// The ids of the instances that came since.
    fn new_ones(&self) -> Vec<String> {
        let all = instances(&self.admin, &self.service);
        all.into_iter().filter(|one| !self.connections.contains(&connection(one))).map(|one| one.id).collect()
    }

    /// Waits for so many new instances, at most so long. Their ids, as many as came.
    pub(super) async fn wait(&self, count: usize, most: Duration) -> Vec<String> {
        let until = clock::now() + most;
        loop {
            let found = self.new_ones();
            if found.len() >= count || clock::now() >= until {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

fn instances(admin: &Admin, service: &str) -> Vec<Instance> {
    admin.bus.node().state().with_machine(|machine| machine.instances(service).cloned().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_of_an_instance_is_what_it_said_when_it_registered() {
        let of = |metadata: &str| {
            let instance = Instance { metadata: metadata.to_owned(), ..Instance::default() };
            process_of(&instance).map(|(dock, definition)| format!("{dock} {definition}"))
        };
        assert_eq!(of(r#"{"process":"d1/shop.web/0d4e"}"#).as_deref(), Some("d1 shop.web"));
        for none in ["", "{}", r#"{"process":7}"#, r#"{"process":"d1"}"#, r#"{"process":"d1/app"}"#] {
            assert_eq!(of(none), None, "{none}");
        }
    }
}
