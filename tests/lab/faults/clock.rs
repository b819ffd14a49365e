//! A node whose clock is wrong.

use super::{Fault, Nemesis};
use crate::disk::text;
use crate::system::try_run;

/// Leaders that go at most.
const ELECTIONS: u32 = 4;

impl Nemesis<'_> {
    /// One node runs with a wrong clock, and the leader goes, and goes again, until that node leads.
    pub(super) fn clock(&mut self, ahead: i64) {
        let fault = if ahead > 0 { Fault::ClockAhead } else { Fault::ClockBehind };
        let dir = tempfile::tempdir().expect("temporary directory");
        let library = dir.path().join("clock.so");
        let options = ["-O1", "-shared", "-fPIC", "-o", text(&library), "-x", "c", "-"];
        if let Err(error) = try_run("cc", &options, include_str!("../clock.c")) {
            eprintln!("    skipped: the clock cannot be set: {error}");
            return;
        }
        let host = self.follower();
        let usual = self.cluster.node(host).environment.clone();
        let mut wrong = usual.clone();
        wrong.push(("LD_PRELOAD".to_owned(), text(&library).to_owned()));
        wrong.push(("LAB_CLOCK_AHEAD".to_owned(), ahead.to_string()));
        self.restart_with(host, wrong);
        for _ in 0..ELECTIONS {
            let leader = self.cluster.leader();
            if leader == host {
                break;
            }
            self.during(fault, self.one(leader), |nemesis| {
                nemesis.cluster.kill(leader);
                nemesis.last(1500, 2500);
                nemesis.cluster.spawn(leader);
            });
            self.cluster.await_ready(leader);
        }
        let led = self.cluster.leader() == host;
        eprintln!("    the node with the wrong clock {} the leader", if led { "was" } else { "was never" });
        self.last(500, 1000);
        self.restart_with(host, usual);
    }

    fn restart_with(&mut self, host: u8, environment: Vec<(String, String)>) {
        self.cluster.kill(host);
        self.cluster.node(host).environment = environment;
        self.cluster.spawn(host);
        self.cluster.await_ready(host);
    }
}
