//! A command with who has it done.

use super::Command;
use crate::error::Refusal;
use crate::level::FeatureLevel;
use crate::security::actor::Actor;

/// A command, and who has it done when that goes into the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributed {
    /// The command.
    pub command: Command,
    /// Who has it done; `None` for what the cluster does by itself, and for what clients do all the time.
    pub actor: Option<Actor>,
}

impl Attributed {
    /// Checks that this command may be proposed in a cluster at `level`.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] names the level that the command needs.
    pub fn check_level(&self, level: FeatureLevel) -> Result<(), Refusal> {
        level.check(self.command.required_level())?;
        self.actor.as_ref().map_or(Ok(()), |_| level.check(FeatureLevel::SECURED))
    }
}
