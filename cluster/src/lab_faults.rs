//! Repaired faults that can be switched on again, one at a time: the checker of the lab (`tests/lab`) must find each. A
//! checker that has never found a fault proves nothing.
//!
//! Only a build with the feature `lab-faults` has them, and no release is such a build. There each is off unless
//! [`VARIABLE`] names it when the process starts. In every other build `Bug::is_on` is constant, and the compiler
//! leaves out what stands behind it.

/// The environment variable with the names of the faults that are on, separated by commas.
pub const VARIABLE: &str = "ROLLBOOK_LAB_BUG";

macro_rules! bugs {
    ($($(#[$meaning:meta])* $name:ident,)*) => {
        /// A fault that can be put back; its name is that of the variant.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Bug {
            $($(#[$meaning])* $name,)*
        }

        impl Bug {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

bugs! {
    /// Entries and votes are acknowledged before they are on the disk.
    AckBeforeFsync,
    /// A log that lost its end is opened: the comparison with the acknowledged index is left out.
    LogNotCompared,
    /// A mark that is missing or cannot be read is taken for that of a new node.
    LostMarkAccepted,
    /// The mark is lowered behind a truncation, and not brought to the disk before it.
    MarkNotLowered,
    /// A ledger that lost its end is opened: the comparison with the settled index is left out.
    LedgerNotCompared,
    /// Blocks out of sight go before the state that trimmed them is on the disk.
    ForgetBeforeFlush,
    /// The receiver of a snapshot waits for its sender as long as the connection lives.
    ReceiverWaits,
    /// The files of a snapshot are made by raft's worker, which does not apply meanwhile and ends with an error.
    SnapshotInWorker,
    /// Free inodes are not counted.
    InodesNotCounted,
    /// A refusal of a later attempt counts, also when an earlier one was given to raft.
    RefusedThoughGiven,
    /// A waiting proposal has no deadline, and no answer before there is a leader.
    WaitsForEver,
    /// A proposal that was given up is answered, and stays in the queue.
    GivenUpIsWritten,
    /// A batch does not wait until the one before was handed over, and the rules take one that was overtaken.
    BatchesRace,
    /// A batch that is sent again has another number.
    BatchRenumbered,
    /// Dedupe keys are not found.
    KeysForgotten,
    /// Links to other nodes are believed to live, however long they are silent.
    SilenceBelieved,
    /// A node that has, or hears, a leader is ready, also when no majority follows.
    ReadyWithoutMajority,
    /// The time of the log is the wall clock of the leader, without any check.
    WallClockBelieved,
    /// A node that was never heard may become a voter.
    UnheardVotes,
    /// A removal takes the vote of a node, and leaves the node a member.
    RemovedHalfway,
}

impl Bug {
    /// Whether this process does it wrong.
    #[cfg(not(feature = "lab-faults"))]
    #[inline]
    pub(crate) const fn is_on(self) -> bool {
        false
    }

    /// Whether this process does it wrong.
    #[cfg(feature = "lab-faults")]
    pub(crate) fn is_on(self) -> bool {
        static ON: std::sync::LazyLock<Vec<Bug>> = std::sync::LazyLock::new(|| asked_for().unwrap_or_default());
        ON.contains(&self)
    }
}

/// Says what this process does wrong; the error is a name that nothing has.
#[cfg(feature = "lab-faults")]
pub(crate) fn announce() -> Result<(), String> {
    for bug in asked_for()? {
        tracing::error!("{bug:?} is put back in this build, which is for tests of the lab only");
    }
    Ok(())
}

#[cfg(feature = "lab-faults")]
fn asked_for() -> Result<Vec<Bug>, String> {
    let names = std::env::var(VARIABLE).unwrap_or_default();
    let named = |name: &str| Bug::ALL.iter().copied().find(|bug| format!("{bug:?}") == name);
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    names.map(|name| named(name).ok_or_else(|| format!("{VARIABLE}: no fault is named {name}"))).collect()
}
