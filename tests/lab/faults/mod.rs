//! What is done to a cluster. Each fault begins, lasts, and is healed; the history has both moments.

mod burst;
mod clock;
mod membership;
mod network;
mod process;
mod retention;
mod silence;
mod snapshot;
mod storage;
mod tail;

use std::time::Duration;

use crate::cluster::Cluster;
use crate::disk::Medium;
use crate::harness::{Rng, ms};
use crate::history::{LAB, Op, Phase, Recovery, nanos};
use crate::workload::{Crowd, Standing};

/// After a silent partition, and after any other fault.
const SOON: Duration = ms(3000);
const USUAL: Duration = Duration::from_secs(10);
/// After a snapshot was needed.
const SNAPSHOT: Duration = Duration::from_secs(30);
/// How long the lab waits for a node that is late, to know how late.
const RECOVERY_MAX: Duration = Duration::from_secs(60);

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
    /// For a minute or more packets are dropped without a word: those of one node, of everybody.
    SilentNode,
    SilentAll,
    /// Leadership moves while a follower receives a snapshot: by request, or because the leader stands still.
    SnapshotTransfer,
    SnapshotPause,
    /// A follower needs a snapshot and the leader has hardly a byte, or hardly an inode.
    SnapshotFull,
    SnapshotInodes,
    /// Power cut right after a truncation of entries that were never acknowledged.
    TruncatedTail,
    /// The newest of a store is gone while its node is down.
    TailRaft,
    TailState,
    TailLedger,
    TailMark,
    /// The clock of the leader jumps months ahead for some seconds, or hours back.
    JumpAhead,
    JumpBack,
    /// Join, promote, transfer and remove under load, with one node down or not.
    Membership,
    /// A node that was never started is promoted.
    Ghost,
    /// Two of three are killed while thousands of publishes are on their way.
    KillTwo,
    /// The leader is killed, and the queue of the next one is full.
    QueueFull,
    /// No fault: thousands of publishes over one connection.
    Pipelined,
    /// A node is killed when retention has just given disk back.
    Forgotten,
}

impl Fault {
    pub(crate) const ALL: [Self; 38] = [
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
        Self::SilentNode,
        Self::SilentAll,
        Self::SnapshotTransfer,
        Self::SnapshotPause,
        Self::SnapshotFull,
        Self::SnapshotInodes,
        Self::TruncatedTail,
        Self::TailRaft,
        Self::TailState,
        Self::TailLedger,
        Self::TailMark,
        Self::JumpAhead,
        Self::JumpBack,
        Self::Membership,
        Self::Ghost,
        Self::KillTwo,
        Self::QueueFull,
        Self::Pipelined,
        Self::Forgotten,
    ];

    /// The one that an operator asks for.
    pub(crate) fn named(name: &str) -> Self {
        let found = Self::ALL.into_iter().find(|fault| format!("{fault:?}") == name.trim());
        found.unwrap_or_else(|| panic!("no fault is named {name:?}; there are {:?}", Self::ALL))
    }

    /// What the nodes must lie on.
    pub(crate) const fn medium(self) -> Medium {
        match self {
            Self::PowerLeader
            | Self::PowerAll
            | Self::DiskFull
            | Self::SnapshotFull
            | Self::SnapshotInodes
            | Self::TruncatedTail => Medium::Disk,
            _ => Medium::Folder,
        }
    }

    /// A host without a node is needed.
    pub(crate) const fn needs_spare(self) -> bool {
        matches!(self, Self::MembershipCut | Self::Membership)
    }

    /// Nodes need a clock that can be set while they run.
    pub(crate) const fn needs_clocks(self) -> bool {
        matches!(self, Self::JumpAhead | Self::JumpBack)
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
    pub(crate) crowd: Crowd,
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
            Fault::SilentNode => self.silent_node(),
            Fault::SilentAll => self.silent_all(),
            Fault::SnapshotTransfer | Fault::SnapshotPause => self.snapshot_moved(fault),
            Fault::SnapshotFull | Fault::SnapshotInodes => self.snapshot_full(fault),
            Fault::TruncatedTail => self.truncated_tail(),
            Fault::TailRaft | Fault::TailState | Fault::TailLedger | Fault::TailMark => self.lost_tail(fault),
            Fault::JumpAhead | Fault::JumpBack => self.clock_jump(fault),
            Fault::Membership => self.membership(),
            Fault::Ghost => self.ghost(),
            Fault::KillTwo => self.kill_two(),
            Fault::QueueFull => self.queue_full(),
            Fault::Pipelined => self.pipelined(),
            Fault::Forgotten => self.forgotten(),
        }
        self.bury(fault);
    }

    /// Nodes that ended by themselves are written down and started again.
    fn bury(&mut self, fault: Fault) {
        self.bury_all_but(0, fault);
    }

    /// The same, but for the node on a host that may end.
    fn bury_all_but(&mut self, may: u8, fault: Fault) {
        for host in self.cluster.casualties().into_iter().filter(|host| *host != may) {
            let words = self.cluster.node(host).last_words();
            eprintln!("    host {host} ended: {words}");
            let last = words.lines().last().unwrap_or_default();
            self.crowd.note(host, Op::Ended { words: format!("{fault:?}: {last}") });
            self.cluster.spawn(host);
            self.cluster.await_ready(host);
        }
    }

    /// After a healing: how long until every running node accepts publishes and has what all accepted.
    fn recovered(&mut self, fault: Fault, bound: Duration) {
        for Standing { host, accepts, level } in self.crowd.probe(&self.cluster.running(), RECOVERY_MAX.max(bound * 2))
        {
            eprintln!("    host {host} accepts publishes after {accepts:.1?} and is level after {level:.1?}");
            for (what, took) in [(Recovery::Accepts, accepts), (Recovery::Level, level)] {
                let [took, bound] = [took, Some(bound)].map(|time| time.map(nanos));
                let bound = bound.unwrap_or(0);
                self.crowd.note(host, Op::Recovered { fault: format!("{fault:?}"), what, took, bound });
            }
        }
    }

    /// The fault did not do what it is for, and nothing is proved by it.
    fn missed(&self, fault: Fault, why: &str) {
        eprintln!("    !!! {fault:?} WITHOUT EFFECT: {why}");
        self.cluster.recorder.note(
            LAB,
            0,
            Phase::Seen,
            Op::Missed { fault: format!("{fault:?}"), why: why.to_owned() },
        );
    }

    /// A promise about the node on a host was broken.
    fn broken(&self, host: u8, text: String) {
        eprintln!("    broken: {text}");
        self.crowd.note(host, Op::Broken { text });
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
