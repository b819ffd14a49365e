//! Definitions as this node has applied them, and the way to change them.

use rollbook_core::command::{Command, Done};
use rollbook_core::dock::change::{Change, DefinitionSet};
use rollbook_core::dock::done::DockDone;
use rollbook_core::error::Refusal;
use rollbook_core::machine::docks::state::Docks;
use rollbook_core::security::actor::Actor;

use super::definition::Definition;
use crate::bus::error::Fault;
use crate::bus::handle::Bus;

/// How often a change is made again after somebody else has changed the definition meanwhile.
const TRIES_MAX: u32 = 16;

/// Reads and changes definitions. Clones share one state.
#[derive(Debug, Clone)]
pub struct DockClient {
    bus: Bus,
}

impl DockClient {
    /// The client of this bus.
    #[must_use]
    pub const fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// The bus.
    #[must_use]
    pub const fn bus(&self) -> &Bus {
        &self.bus
    }

    /// Looks at the state. The look must be short: entries are not applied meanwhile.
    pub fn look<T>(&self, look: impl FnOnce(&Docks) -> T) -> T {
        self.bus.node().state().with_machine(|machine| look(machine.docks()))
    }

    /// A definition, with its revision; `None` when there is none of this id.
    ///
    /// # Errors
    /// The stored document cannot be read.
    pub fn get(&self, id: &str) -> Result<Option<(Definition, u64)>, Fault> {
        let found = self.look(|docks| docks.definition(id).map(|row| (row.document.clone(), row.revision)));
        found.map(|(document, revision)| Ok((Definition::read(&document)?, revision))).transpose()
    }

    /// All definitions, in the order in which they were added.
    ///
    /// # Errors
    /// A stored document cannot be read.
    pub fn list(&self) -> Result<Vec<Definition>, Fault> {
        let documents: Vec<_> = self.look(|docks| docks.definitions().map(|row| row.document.clone()).collect());
        documents.iter().map(|document| Definition::read(document)).collect()
    }

    /// Makes a change that somebody has done.
    ///
    /// # Errors
    /// The rules refuse the change, or the cluster cannot make it now.
    pub async fn change(&self, if_revision: Option<u64>, change: Change, actor: Actor) -> Result<DockDone, Refusal> {
        match self.bus.proposer().command_of(Command::dock(if_revision, change), actor).await? {
            Done::Dock(done) => Ok(done),
            _ => Err(Refusal::Unavailable("the answer is not that of a change of docks".to_owned())),
        }
    }

    /// Adds a definition. `false`: there is one of this id.
    ///
    /// # Errors
    /// The rules refuse the change, or the cluster cannot make it now.
    pub async fn add(&self, definition: &Definition, actor: Actor) -> Result<bool, Fault> {
        match self.change(Some(0), set(definition), actor).await {
            Ok(_) => Ok(true),
            Err(Refusal::RevisionMismatch(_)) => Ok(false),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Changes a definition, again when somebody else changes it meanwhile. Returns what it is then; `None` when there is
    /// none of this id.
    ///
    /// # Errors
    /// `edit` refuses; the rules refuse the change, or the cluster cannot make it now.
    pub async fn edit(
        &self,
        id: &str,
        actor: &Actor,
        edit: impl Fn(&mut Definition) -> Result<(), Fault>,
    ) -> Result<Option<Definition>, Fault> {
        for _ in 0..TRIES_MAX {
            let Some((old, revision)) = self.get(id)? else { return Ok(None) };
            let mut definition = old.clone();
            edit(&mut definition)?;
            if definition == old {
                return Ok(Some(definition));
            }
            match self.change(Some(revision), set(&definition), actor.clone()).await {
                Ok(_) => return Ok(Some(definition)),
                Err(Refusal::RevisionMismatch(_)) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        Err(Fault::unavailable(format!("{id} was changed by others {TRIES_MAX} times meanwhile")))
    }

    /// Removes a definition with its builds; nothing when there is none of this id.
    ///
    /// # Errors
    /// The rules refuse the change, or the cluster cannot make it now.
    pub async fn remove(&self, id: &str, actor: Actor) -> Result<(), Fault> {
        if self.look(|docks| docks.definition(id).is_none()) {
            return Ok(());
        }
        let change = Change::DefinitionRemove(id.to_owned());
        match self.change(None, change, actor).await {
            Ok(_) | Err(Refusal::DockNotFound(_)) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }
}

fn set(definition: &Definition) -> Change {
    Change::DefinitionSet(DefinitionSet { id: definition.id().to_owned(), document: definition.json() })
}
