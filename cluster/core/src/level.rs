//! The feature level: which version of the rules a cluster follows.
//!
//! All replicas must apply an entry by the same rules, also while the nodes of a cluster run different releases. So the
//! level is a part of the replicated state, and every change of the rules takes effect from a level on. An entry of the
//! log raises the level, so that all nodes change their rules between the same two entries.

use alloc::format;

use crate::error::Refusal;

/// A version of the rules: 1 or more. Each release that changes the rules adds one level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeatureLevel(u32);

impl FeatureLevel {
    /// The rules of the releases before levels existed. A state without a stored level has this level.
    pub const FIRST: Self = Self(1);
    /// Dedupe keys expire after a time, chosen ids are removed with their events, and commands on many rows work in
    /// bounded steps.
    pub const BOUNDED: Self = Self(2);
    /// Durable consumers remember delivery counts and the done events beyond the ack floor, and refuse progress of an
    /// older epoch. The subjects of consumers may have combining marks.
    pub const COUNTED: Self = Self(3);
    /// Records of events may have headers.
    pub const HEADERS: Self = Self(4);
    /// Principals, roles and credentials are replicated, commands say who has them done, and the audit is written.
    pub const SECURED: Self = Self(5);
    /// Accounts, actors, pipelines, envelopes and processes of Xbus are replicated, and the namespace `xbus` is theirs.
    /// Keys of NATS are credentials.
    pub const XBUS: Self = Self(6);
    /// Definitions of processes and their builds are replicated, and the roll tells what became of processes.
    pub const DOCKS: Self = Self(7);
    /// Events wait for their time before they are published, and schedules publish at their times.
    pub const TIMED: Self = Self(8);
    /// The highest level whose rules this release knows.
    pub const LATEST: Self = Self::TIMED;

    /// The level of this number; `None` for 0, because levels begin at 1.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 { None } else { Some(Self(number)) }
    }

    /// Checks that a cluster at this level may do what the level `required` introduced.
    ///
    /// # Errors
    /// [`Refusal::Unavailable`] names both levels.
    pub fn check(self, required: Self) -> Result<(), Refusal> {
        if required <= self {
            return Ok(());
        }
        let (required, level) = (required.get(), self.get());
        Err(Refusal::Unavailable(format!(
            "this needs feature level {required} and the cluster is at {level}; it is raised when every node of the cluster runs a release that knows it"
        )))
    }

    /// The number of the level, 1 or more.
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
