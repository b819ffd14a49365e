//! Processes that are killed, stand still, or are told to leave.

use std::time::Duration;

use rustix::process::Signal;

use super::{Fault, Nemesis, Target};

/// Bound of a graceful stop.
const STOP: Duration = Duration::from_secs(15);

impl Nemesis<'_> {
    pub(super) fn kill_leader(&mut self) {
        let leader = self.cluster.leader();
        self.kill_one(Fault::KillLeader, leader);
    }

    pub(super) fn kill_follower(&mut self) {
        let follower = self.follower();
        self.kill_one(Fault::KillFollower, follower);
    }

    fn kill_one(&mut self, fault: Fault, host: u8) {
        self.during(fault, self.one(host), |nemesis| {
            nemesis.cluster.kill(host);
            nemesis.last(1500, 2500);
            nemesis.cluster.spawn(host);
        });
        self.cluster.await_ready(host);
    }

    pub(super) fn kill_all(&mut self) {
        let hosts = self.cluster.running();
        self.during(Fault::KillAll, Self::everybody(hosts[0]), |nemesis| {
            hosts.iter().for_each(|host| nemesis.cluster.kill(*host));
            nemesis.last(0, 500);
            hosts.iter().for_each(|host| nemesis.cluster.spawn(*host));
        });
        hosts.iter().for_each(|host| self.cluster.await_ready(*host));
    }

    pub(super) fn pause_leader(&mut self) {
        let leader = self.cluster.leader();
        self.during(Fault::PauseLeader, self.one(leader), |nemesis| {
            nemesis.cluster.node(leader).signal(Signal::STOP);
            nemesis.last(2500, 4000);
            nemesis.cluster.node(leader).signal(Signal::CONT);
        });
    }

    pub(super) fn hand_over(&mut self) {
        let leader = self.cluster.leader();
        let target = Target { graceful: true, ..self.one(leader) };
        self.during(Fault::HandOver, target, |nemesis| {
            let code = nemesis.cluster.terminate(leader, STOP);
            let words = nemesis.cluster.node(leader).last_words();
            assert_eq!(code, Some(0), "exit code after SIGTERM; {words}");
            nemesis.last(500, 1000);
            nemesis.cluster.spawn(leader);
        });
        self.cluster.await_ready(leader);
    }
}
