//! Links that are silent for so long that nobody tries them any more: packets are dropped, nothing is refused.

use super::{Fault, Nemesis, SOON};
use crate::cluster;
use crate::net::Loss;

/// Shortest and longest time, milliseconds.
const SHORTEST: u64 = 60_000;
const LONGEST: u64 = 90_000;

impl Nemesis<'_> {
    pub(super) fn silent_node(&mut self) {
        let all = self.cluster.hosts.inhabited();
        let host = self.any(&all);
        let role = if self.cluster.leader() == host { "leader" } else { "follower" };
        eprintln!("    host {host}, a {role}");
        self.during(Fault::SilentNode, self.one(host), |nemesis| {
            nemesis.cluster.net.cut(host, &all, Loss::Silent);
            nemesis.silence();
            nemesis.cluster.net.heal();
        });
        self.recovered(Fault::SilentNode, SOON);
    }

    pub(super) fn silent_all(&mut self) {
        let all = self.cluster.hosts.inhabited();
        self.during(Fault::SilentAll, Self::everybody(all[0]), |nemesis| {
            all.iter().for_each(|host| nemesis.cluster.net.cut(*host, &all, Loss::Silent));
            nemesis.silence();
            nemesis.nobody_is_ready(&all);
            nemesis.cluster.net.heal();
        });
        self.recovered(Fault::SilentAll, SOON);
    }

    /// There has been no majority for long: a balancer must not send clients to any of these hosts.
    fn nobody_is_ready(&self, hosts: &[u8]) {
        for host in hosts {
            let said = cluster::ask(*host, "GET", "/readyz", "").map(|answer| answer.status);
            if let Ok(200) = said {
                self.broken(*host, "it is ready, and there is no majority".to_owned());
            }
        }
    }

    /// As long in a short run as in a long one: what it shows does not begin earlier.
    fn silence(&mut self) {
        let lasts = self.rng.pick(SHORTEST, LONGEST + 1);
        eprintln!("    for {lasts} ms");
        std::thread::sleep(crate::harness::ms(lasts));
    }
}
