//! A node whose clock is wrong.

use std::time::{Duration, Instant};

use super::{Fault, Nemesis, USUAL};
use crate::cluster::{self, clock_library};
use crate::disk::text;
use crate::harness::ms;
use crate::workload::{BRIEF, BRIEF_AGE};

/// Leaders that go at most.
const ELECTIONS: u32 = 4;
const HOUR: i64 = 3600;
/// After its age an event goes within this, when the clock is right again.
const FORGOTTEN: Duration = Duration::from_secs(30);
/// Where a clock may be read and an age be rounded.
const SLACK: Duration = ms(1500);

impl Nemesis<'_> {
    /// One node runs with a wrong clock, and the leader goes, and goes again, until that node leads.
    pub(super) fn clock(&mut self, ahead: i64) {
        let fault = if ahead > 0 { Fault::ClockAhead } else { Fault::ClockBehind };
        let dir = tempfile::tempdir().expect("temporary directory");
        let library = dir.path().join("clock.so");
        if let Err(error) = clock_library(&library) {
            return self.missed(fault, &format!("the clock cannot be set: {error}"));
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
        if !led {
            self.missed(fault, "the node with the wrong clock was never the leader");
        }
        self.last(500, 1000);
        self.restart_with(host, usual);
    }

    fn restart_with(&mut self, host: u8, environment: Vec<(String, String)>) {
        self.cluster.kill(host);
        self.cluster.node(host).environment = environment;
        self.cluster.spawn(host);
        self.cluster.await_ready(host);
    }

    /// The clock of the leader jumps while it leads, and is right again after some seconds. Nothing that is
    /// younger than its age goes, and then time goes on: what is older does go.
    pub(super) fn clock_jump(&mut self, fault: Fault) {
        let leader = self.cluster.leader();
        if !self.cluster.set_clock(leader, 0) {
            return self.missed(fault, "the clocks cannot be set");
        }
        let hours = if fault == Fault::JumpAhead { self.rng.pick(24 * 60, 24 * 200) } else { self.rng.pick(2, 12) };
        let ahead = i64::try_from(hours).unwrap_or(1) * if fault == Fault::JumpAhead { HOUR } else { -HOUR };
        self.during(fault, self.one(leader), |nemesis| {
            nemesis.cluster.set_clock(leader, ahead);
            nemesis.last(3000, 6000);
            nemesis.cluster.set_clock(leader, 0);
        });
        self.recovered(fault, USUAL);
        self.time_goes_on(leader, ahead / HOUR);
    }

    /// An event of a namespace with a short age goes when it is that old, and not before.
    fn time_goes_on(&mut self, host: u8, hours: i64) {
        let Some(answer) = self.crowd.answer(host, BRIEF).filter(|answer| answer.status == 202) else {
            return self.broken(host, format!("no publish is accepted after a jump of the clock by {hours} hours"));
        };
        let (began, index) = (Instant::now(), answer.published().index);
        let gone = || {
            let answer = cluster::ask(host, "GET", &format!("/api/namespaces/{BRIEF}?consistency=stale"), "").ok()?;
            let first = (answer.status == 200).then(|| answer.json()["first_index"].as_i64())??;
            (first > index).then_some(())
        };
        while gone().is_none() && began.elapsed() < BRIEF_AGE + FORGOTTEN {
            std::thread::sleep(ms(100));
        }
        let took = began.elapsed();
        eprintln!("    an event with an age of {BRIEF_AGE:?} went after {took:.1?}");
        if took >= BRIEF_AGE + FORGOTTEN {
            let text = format!(
                "after a jump of the clock by {hours} hours an event with an age of {BRIEF_AGE:?} is still there after {took:.1?}"
            );
            self.broken(host, text);
        } else if took + SLACK < BRIEF_AGE {
            self.broken(host, format!("an event with an age of {BRIEF_AGE:?} went after {took:.1?}"));
        }
    }
}
