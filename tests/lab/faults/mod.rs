//! What is done to a cluster. Each fault begins, lasts, and is healed; the history has both moments.

mod clock;
mod membership;
mod network;
mod process;
mod storage;

use std::time::Duration;

use crate::cluster::Cluster;
use crate::disk::Medium;
use crate::harness::Rng;
use crate::history::{Op, Phase};

/// All kinds of faults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// `kill -9` of the leader, of a follower, of all at once.
    KillLeader,
    KillFollower,
    KillAll,
    /// The leader stands still for some seconds and does not know it.
    PauseLeader,
    /// The leader is cut off; everybody is cut off from everybody; one node alone sees both others.
    LeaderAlone,
    AllAlone,
    Bridge,
    /// The leader is heard and does not hear; links come and go.
    DeafLeader,
    Flapping,
    /// What was not synced is gone, on one machine or on all at the same moment.
    PowerLeader,
    PowerAll,
    /// No space, and space again.
    DiskFull,
    /// Flipped bits or a missing end in a file of a node that stands still.
    Damage,
    /// A node that was away for long is killed while it catches up.
    SnapshotCut,
    /// A node comes back without its data.
    LostDisk,
    /// A node joins while another is cut off and the leader is killed.
    MembershipCut,
    /// The clock of one node is an hour ahead or behind.
    ClockAhead,
    ClockBehind,
    /// SIGTERM: the leader hands over and leaves.
    HandOver,
}

impl Fault {
    pub(crate) const ALL: [Self; 19] = [
        Self::KillLeader,
        Self::KillFollower,
        Self::KillAll,
        Self::PauseLeader,
        Self::LeaderAlone,
        Self::AllAlone,
        Self::Bridge,
        Self::DeafLeader,
        Self::Flapping,
        Self::PowerLeader,
        Self::PowerAll,
        Self::DiskFull,
        Self::Damage,
        Self::SnapshotCut,
        Self::LostDisk,
        Self::MembershipCut,
        Self::ClockAhead,
        Self::ClockBehind,
        Self::HandOver,
    ];

    /// The one that an operator asks for.
    pub(crate) fn named(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|fault| format!("{fault:?}") == name.trim());
        found.unwrap_or_else(|| panic!("no fault is named {name:?}; there are {:?}", Self::ALL))
    }

    /// What the nodes must lie on.
    pub(crate) const fn medium(self) -> Medium {
        match self {
            Self::PowerLeader | Self::PowerAll | Self::DiskFull => Medium::Disk,
            _ => Medium::Folder,
        }
    }

    /// One node alone can have it.
    pub(crate) const fn alone(self) -> bool {
        matches!(
            self,
            Self::KillLeader | Self::KillAll | Self::PauseLeader | Self::PowerLeader | Self::PowerAll | Self::DiskFull
        )
    }
}

/// Does faults to a cluster.
pub(crate) struct Nemesis<'a> {
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) rng: Rng,
    /// Faults last up to so many times as long.
    pub(crate) stretch: u64,
}

/// Where a fault strikes and what it leaves.
struct Target {
    host: u8,
    /// Nodes that can still form a quorum.
    majority: Vec<u64>,
    /// A client that tries twice must not notice it.
    graceful: bool,
}

impl Nemesis<'_> {
    /// One fault from its beginning to its healing.
    pub(crate) fn strike(&mut self, fault: Fault) {
        eprintln!("  {fault:?}");
        match fault {
            Fault::KillLeader => self.kill_leader(),
            Fault::KillFollower => self.kill_follower(),
            Fault::KillAll => self.kill_all(),
            Fault::PauseLeader => self.pause_leader(),
            Fault::LeaderAlone => self.leader_alone(),
            Fault::AllAlone => self.all_alone(),
            Fault::Bridge => self.bridge(),
            Fault::DeafLeader => self.deaf_leader(),
            Fault::Flapping => self.flapping(),
            Fault::PowerLeader => self.power_leader(),
            Fault::PowerAll => self.power_all(),
            Fault::DiskFull => self.disk_full(),
            Fault::Damage => self.damage(),
            Fault::SnapshotCut => self.snapshot_cut(),
            Fault::LostDisk => self.lost_disk(),
            Fault::MembershipCut => self.membership_cut(),
            Fault::ClockAhead => self.clock(3600),
            Fault::ClockBehind => self.clock(-3600),
            Fault::HandOver => self.hand_over(),
        }
        let ended = self.cluster.casualties();
        let words: Vec<String> = ended.iter().map(|host| self.cluster.node(*host).last_words()).collect();
        assert!(ended.is_empty(), "nodes ended by themselves: hosts {ended:?}\n{}", words.join("\n"));
    }

    /// Writes the fault down, and that it is healed when `act` returns.
    fn during(&mut self, fault: Fault, target: Target, act: impl FnOnce(&mut Self)) {
        let Target { host, majority, graceful } = target;
        let op = Op::Fault { name: format!("{fault:?}"), majority, graceful };
        self.cluster.note(host, Phase::Invoke, op.clone());
        act(self);
        self.cluster.note(host, Phase::Ok, op);
    }

    /// A fault of that host which all others survive.
    fn one(&self, host: u8) -> Target {
        let others = self.cluster.all_but(&[host]);
        // One node alone has no others that could go on.
        Target { host, majority: if others.len() > 1 { others } else { Vec::new() }, graceful: false }
    }

    /// A fault after which nobody is promised anything until it is healed.
    const fn everybody(host: u8) -> Target {
        Target { host, majority: Vec::new(), graceful: false }
    }

    /// A node that is not the leader, if there is one.
    fn follower(&mut self) -> u8 {
        let leader = self.cluster.leader();
        let others: Vec<u8> = self.cluster.running().into_iter().filter(|host| *host != leader).collect();
        if others.is_empty() { leader } else { self.any(&others) }
    }

    fn any(&mut self, hosts: &[u8]) -> u8 {
        let place = self.rng.pick(0, hosts.len() as u64);
        hosts[usize::try_from(place).unwrap_or(0)]
    }

    /// Lasts between so many milliseconds.
    fn last(&mut self, low: u64, high: u64) {
        let stretch = self.rng.pick(1, self.stretch + 1);
        std::thread::sleep(Duration::from_millis(self.rng.pick(low, high) * stretch));
    }
}
