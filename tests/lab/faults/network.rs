//! Links between nodes that break. Clients reach every node all the time.

use std::time::{Duration, Instant};

use super::{Fault, Nemesis};
use crate::harness::ms;
use crate::net::Loss;

/// How often a flapping link changes.
const FLAP: Duration = ms(500);

impl Nemesis<'_> {
    pub(super) fn leader_alone(&mut self) {
        let (leader, all) = (self.cluster.leader(), self.cluster.hosts.inhabited());
        self.during(Fault::LeaderAlone, self.one(leader), |nemesis| {
            nemesis.cluster.net.cut(leader, &all, Loss::Both);
            nemesis.last(3000, 4000);
            nemesis.cluster.net.heal();
        });
    }

    pub(super) fn all_alone(&mut self) {
        let all = self.cluster.hosts.inhabited();
        self.during(Fault::AllAlone, Self::everybody(all[0]), |nemesis| {
            all.iter().for_each(|host| nemesis.cluster.net.cut(*host, &all, Loss::Both));
            nemesis.last(2000, 3000);
            nemesis.cluster.net.heal();
        });
    }

    pub(super) fn bridge(&mut self) {
        let all = self.cluster.hosts.inhabited();
        let middle = self.any(&all);
        let sides: Vec<u8> = all.into_iter().filter(|host| *host != middle).collect();
        // Each side and the middle are a majority, but only the middle is sure to be in touch with the leader.
        let mut target = Self::everybody(middle);
        target.majority = vec![self.cluster.hosts.node(middle)];
        self.during(Fault::Bridge, target, |nemesis| {
            sides.iter().for_each(|host| nemesis.cluster.net.cut(*host, &sides, Loss::Both));
            nemesis.last(3000, 4000);
            nemesis.cluster.net.heal();
        });
    }

    pub(super) fn deaf_leader(&mut self) {
        let (leader, all) = (self.cluster.leader(), self.cluster.hosts.inhabited());
        // Whoever hears the leader need not notice: nobody is promised that writes go on.
        self.during(Fault::DeafLeader, Self::everybody(leader), |nemesis| {
            nemesis.cluster.net.cut(leader, &all, Loss::Deaf);
            nemesis.last(3000, 4000);
            nemesis.cluster.net.heal();
        });
    }

    pub(super) fn flapping(&mut self) {
        let (leader, all) = (self.cluster.leader(), self.cluster.hosts.inhabited());
        self.during(Fault::Flapping, Self::everybody(leader), |nemesis| {
            let end = Instant::now() + ms(4000);
            while Instant::now() < end {
                nemesis.cluster.net.cut(leader, &all, Loss::Both);
                std::thread::sleep(FLAP);
                nemesis.cluster.net.heal();
                std::thread::sleep(FLAP);
            }
        });
    }
}
