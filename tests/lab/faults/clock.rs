//! A node whose clock is wrong.

use super::{Fault, Nemesis};
use crate::disk::text;
use crate::system::try_run;

impl Nemesis<'_> {
    /// One node runs with a wrong clock for a while, and the leader goes so that it may lead itself.
    pub(super) fn clock(&mut self, ahead: i64) {
        let fault = if ahead > 0 { Fault::ClockAhead } else { Fault::ClockBehind };
        let dir = tempfile::tempdir().expect("temporary directory");
        let library = dir.path().join("clock.so");
        let options = ["-O1", "-shared", "-fPIC", "-o", text(&library), "-x", "c", "-"];
        if let Err(error) = try_run("cc", &options, include_str!("../clock.c")) {
            eprintln!("    skipped: the clock cannot be set: {error}");
            return;
        }
        let (leader, host) = (self.cluster.leader(), self.follower());
        self.restart_with(host, &[("LD_PRELOAD", text(&library)), ("LAB_CLOCK_AHEAD", &ahead.to_string())]);
        self.during(fault, self.one(leader), |nemesis| {
            nemesis.cluster.kill(leader);
            nemesis.last(2000, 3000);
            nemesis.cluster.spawn(leader);
        });
        self.cluster.await_ready(leader);
        let led = self.cluster.leader() == host;
        eprintln!("    the node with the wrong clock {} the leader", if led { "was" } else { "was not" });
        self.restart_with(host, &[]);
    }

    fn restart_with(&mut self, host: u8, environment: &[(&str, &str)]) {
        let environment = environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.cluster.kill(host);
        self.cluster.node(host).environment = environment.collect();
        self.cluster.spawn(host);
        self.cluster.await_ready(host);
    }
}
