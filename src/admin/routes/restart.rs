//! A restart of a service whose program does not do it: the docks that have its process do. And the wait for a new
//! instance, whoever started the process.
//!
//! A program whose process a dock has started says so when it registers (`base::process_name`). A service that is not
//! connected is the process of the definition with its id.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rollbook_core::service::Instance;

use crate::admin::Admin;
use crate::base::clock;
use crate::bus::docks::commands::Control;
use crate::bus::docks::order::CommandError;
use crate::bus::security::identity::Identity;

/// How often the roll is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// Whether docks have a process that may be this service.
pub(super) fn has_definition(admin: &Admin, service: &str) -> bool {
    admin.docks.client().look(|docks| docks.definition(service).is_some())
}

/// Has docks restart a process: all that have it, or one.
pub(super) async fn by_docks(
    admin: &Admin,
    who: &Arc<Identity>,
    definition: &str,
    dock: Option<&str>,
) -> Result<(), CommandError> {
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
