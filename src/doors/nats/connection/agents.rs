//! The actors of Xbus that a connection speaks for, each with its agent.

use std::collections::HashMap;

use rollbook_core::xbus::id::Id;

use crate::base::actors::{Owned, must_tell};
use crate::doors::nats::xbus::agent::{Agent, Prefers, Profile, Ready};

/// An actor that this connection speaks for.
pub(super) struct Entry {
    pub(super) agent: Owned<Agent>,
    /// Subscriptions by which jobs come, of each profile.
    pub(super) nrpc: usize,
    pub(super) letters: usize,
    /// Whether the actor has said that it is ready.
    pub(super) ready: bool,
}

impl Entry {
    fn profile(&self) -> Profile {
        if self.nrpc > 0 || self.letters == 0 { Profile::Nrpc } else { Profile::Letters }
    }

    /// Tells the agent how it gets jobs, and whether. By letters the subscription alone says that the actor is ready.
    pub(super) fn tell(&self) {
        must_tell(self.agent.addr(), Prefers(self.profile()));
        must_tell(self.agent.addr(), Ready(self.ready || self.nrpc == 0 && self.letters > 0));
    }
}

/// The actors of a connection. Their agents end with this.
#[derive(Default)]
pub(super) struct Agents {
    pub(super) entries: HashMap<Id, Entry>,
}
