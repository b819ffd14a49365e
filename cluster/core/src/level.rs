//! The feature level: which version of the rules a cluster follows.
//!
//! All replicas apply the same entries, so all of them must follow the same rules, also while the nodes of a
//! cluster run different releases. The level is part of the replicated state. A change of what the rules do with
//! an entry takes effect from a level on, and the level is raised by an entry of the log, so that every node
//! changes its rules between the same two entries.

use alloc::format;

use crate::error::Refusal;

/// A version of the rules. Levels are compared and counted up by one for each release that changes the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeatureLevel(u32);

impl FeatureLevel {
    /// The rules of releases that did not know levels. A state without a level has this one.
    pub const FIRST: Self = Self(1);
    /// Dedupe keys are remembered for a time, chosen ids go with their events, and work on many rows is done in
    /// bounded steps.
    pub const BOUNDED: Self = Self(2);
    /// Durable consumers remember how often an event was delivered and what is done with behind the floor, and refuse
    /// what an older start of the node that serves them says. Their subjects may have the marks of their script.
    pub const COUNTED: Self = Self(3);
    /// Records of events may have headers.
    pub const HEADERS: Self = Self(4);
    /// The highest level that this release knows.
    pub const LATEST: Self = Self::HEADERS;

    /// A level by its number, `None` for 0, which is no level.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// Whether what needs the level `required` may be done in a cluster at this one.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] says which level is needed.
    pub fn check(self, required: Self) -> Result<(), Refusal> {
        if required <= self {
            return Ok(());
        }
        let (required, level) = (required.get(), self.get());
        Err(Refusal::Unavailable(format!(
            "this needs feature level {required} and the cluster is at {level}; it is raised when every node of the cluster runs a release that knows it"
        )))
    }

    /// The number, 1 or more.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl Default for FeatureLevel {
    fn default() -> Self {
        Self::FIRST
    }
}
