//! What the handlers of a node share.

use rollbook_core::xbus::account::row::{AccountRow, ActorRow};
use rollbook_core::xbus::id::Id;

use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::security::credentials::account_ca::AccountCa;
use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::jobs::engine::Engine;
use crate::bus::xbus::presence;

/// What the handlers of a node share.
#[derive(Debug)]
pub struct XbusShared {
    /// The state, and the way to change it.
    pub client: XbusClient,
    /// Envelopes and processes.
    pub engine: Engine,
}

impl XbusShared {
    /// Of this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { client: engine.flow().client().clone(), engine }
    }

    /// An account.
    ///
    /// # Errors
    /// There is no such account.
    pub fn account(&self, id: Id) -> Result<AccountRow, Fault> {
        let row = self.client.look(|xbus| xbus.account(id).cloned());
        row.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("there is no account {id}")))
    }

    /// The certificate of the CA by which programs know the server, PEM; empty when this node has none.
    #[must_use]
    pub fn server_ca(&self) -> &str {
        self.client.bus().authority().account_ca().map_or("", AccountCa::pem)
    }

    /// Whether an actor is connected and ready somewhere.
    #[must_use]
    pub fn is_online(&self, actor: &ActorRow) -> bool {
        let state = self.client.bus().node().state();
        state.with_machine(|machine| presence::is_online(machine, actor))
    }
}
