//! Reads and changes of the state of Xbus, for doors and the administration.

use rollbook_core::command::{Command, Done};
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::security::actor::Actor;
use rollbook_core::xbus::change::Change;
use rollbook_core::xbus::done::XbusDone;

use crate::bus::error::Fault;
use crate::bus::handle::Bus;
use crate::bus::xbus::envelopes::recent::Recent;

/// The state of Xbus, as this node has applied it, and the way to change it. Clones share one state.
#[derive(Debug, Clone)]
pub struct XbusClient {
    bus: Bus,
    recent: Recent,
}

impl XbusClient {
    /// The client of this bus.
    #[must_use]
    pub fn new(bus: Bus) -> Self {
        Self { bus, recent: Recent::default() }
    }

    /// Envelopes that were stored by this client or its clones a moment ago.
    #[must_use]
    pub const fn recent(&self) -> &Recent {
        &self.recent
    }

    /// The bus.
    #[must_use]
    pub const fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Looks at the state. The look must be short: entries are not applied meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Xbus) -> T) -> T {
        self.bus.node().state().with_machine(|machine| look(machine.xbus()))
    }

    /// Makes a change that programs make all the time. The answer comes when the change is on the disks of a majority.
    ///
    /// # Errors
    /// The rules refuse the change, or the cluster cannot make it now.
    pub async fn change(&self, change: Change) -> Result<XbusDone, Fault> {
        done(self.bus.proposer().command(Command::xbus(None, change)).await?)
    }

    /// Makes a change that somebody has done, which goes into the audit. With `if_revision` only if the row still has
    /// that revision.
    ///
    /// # Errors
    /// The rules refuse the change, or the cluster cannot make it now.
    pub async fn change_of(&self, if_revision: Option<u64>, change: Change, actor: Actor) -> Result<XbusDone, Fault> {
        done(self.bus.proposer().command_of(Command::xbus(if_revision, change), actor).await?)
    }
}

pub(super) fn done(done: Done) -> Result<XbusDone, Fault> {
    match done {
        Done::Xbus(done) => Ok(*done),
        _ => Err(Fault::internal("the answer is not that of a change of Xbus")),
    }
}
