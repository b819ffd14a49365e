//! Thousands of publishes on their way when nodes are killed.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Fault, Nemesis, USUAL};
use crate::harness::ms;
use crate::history::{Log, Phase};
use crate::workload::{Pipe, UNANSWERED_MAX};

/// Connections to the node that stays alone, and bytes of each publish.
const CONNECTIONS: usize = 5;
const BYTES: usize = 2000;
/// Clients with a connection each.
const CLIENTS: u32 = 300;
/// How long all answers are waited for: more than the time-out of a node, and time to see how much more.
const ANSWERS: Duration = Duration::from_secs(20);
/// Clients that do not wait leave after this.
const GONE: Duration = ms(1500);
/// How long others publish when there is a majority again.
const AFTERWARDS: Duration = ms(4000);
/// Publishes that wait when that queue is full, but for some that are being refused or written.
const QUEUE: usize = 60_000;
/// Connections that fill it, and more; and bytes of each publish.
const CROWD: usize = 80;
const SMALL: usize = 20;
/// How long that takes, less than nodes wait for a leader; and how long the queue is kept full.
const FILLED: Duration = ms(1200);
const FULL: Duration = ms(3000);
/// Publishes over one connection.
const IN_ORDER: usize = 3000;

impl Nemesis<'_> {
    /// Two of three are killed with thousands of publishes at the third: each is answered in time, and what
    /// was given up is not written when there is a majority again.
    pub(super) fn kill_two(&mut self) {
        let hosts = self.cluster.running();
        let stays = self.any(&hosts);
        let others: Vec<u8> = hosts.into_iter().filter(|host| *host != stays).collect();
        self.during(Fault::KillTwo, Self::everybody(stays), |nemesis| {
            let mut pipes = nemesis.pipes(stays, CONNECTIONS);
            let killed = pipes.len() / 2;
            for (number, pipe) in pipes.iter_mut().enumerate() {
                if number == killed {
                    others.iter().for_each(|host| nemesis.cluster.kill(*host));
                }
                pipe.fill(Log::Burst, BYTES, UNANSWERED_MAX);
            }
            let crowd = &nemesis.crowd;
            let phases: Vec<Phase> = std::thread::scope(|scope| {
                let ask = |number| {
                    let patience = if number % 3 == 0 { GONE } else { ANSWERS };
                    scope.spawn(move || crowd.publish_patiently(stays, BYTES, patience))
                };
                let threads: Vec<_> = (0..CLIENTS).map(ask).collect();
                let waiting: usize = pipes.iter().map(Pipe::waiting).sum();
                eprintln!("    {waiting} publishes have no answer, and those of {CLIENTS} clients");
                // Not all of those that wait on a connection do.
                std::thread::sleep(GONE);
                drop(pipes.pop());
                threads.into_iter().map(|thread| thread.join().expect("a client")).collect()
            });
            let count = |phase| phases.iter().filter(|own| **own == phase).count();
            eprintln!("    {} refused, {} unknown", count(Phase::Fail), count(Phase::Unknown));
            others.iter().for_each(|host| nemesis.cluster.spawn(*host));
            // What others publish now stands before what comes late.
            let until = Instant::now() + AFTERWARDS;
            while Instant::now() < until {
                for host in &others {
                    nemesis.crowd.publish_patiently(*host, SMALL, GONE);
                }
                std::thread::sleep(ms(5));
            }
            for pipe in &pipes {
                pipe.drain(USUAL);
            }
        });
        others.iter().for_each(|host| self.cluster.await_ready(*host));
        self.recovered(Fault::KillTwo, USUAL);
    }

    /// A follower stands still with a batch that the leader has taken; the leader is killed; the queue of the
    /// third is filled while it cannot lead. When the follower goes on it asks again, and is told that there
    /// is no room: its clients must not be told that nothing was stored.
    pub(super) fn queue_full(&mut self) {
        let leader = self.cluster.leader();
        let others: Vec<u8> = self.cluster.running().into_iter().filter(|host| *host != leader).collect();
        let [asks, next] = others[..] else { return };
        self.during(Fault::QueueFull, Self::everybody(leader), |nemesis| {
            let mut asking = nemesis.pipes(asks, 2);
            let mut crowd = nemesis.pipes(next, CROWD);
            // A batch is on its way at any moment.
            let until = Instant::now() + ms(nemesis.rng.pick(300, 700));
            while Instant::now() < until {
                for pipe in &mut asking {
                    pipe.fill(Log::Burst, 300, 300);
                }
            }
            nemesis.cluster.node(asks).signal(Signal::STOP);
            std::thread::sleep(ms(30));
            nemesis.cluster.kill(leader);
            let waiting = fill_all(&mut crowd, FILLED);
            eprintln!("    {waiting} publishes wait at the next leader");
            if waiting < QUEUE {
                nemesis.missed(Fault::QueueFull, "the queue is not full");
            }
            std::thread::scope(|scope| {
                let crowd = &mut crowd;
                let pump = scope.spawn(move || fill_all(crowd, FULL));
                // It goes on when there is no room for one more.
                nemesis.cluster.node(asks).signal(Signal::CONT);
                pump.join().expect("those who fill the queue");
            });
            if nemesis.cluster.leader() != next {
                nemesis.missed(Fault::QueueFull, "the one whose queue was full does not lead");
            }
            for pipe in asking.iter().chain(&crowd) {
                pipe.drain(ANSWERS);
            }
            nemesis.cluster.spawn(leader);
        });
        self.cluster.await_ready(leader);
        self.recovered(Fault::QueueFull, USUAL);
    }

    /// Nothing is done to the cluster: one connection to each node, with as many publishes as it takes.
    pub(super) fn pipelined(&mut self) {
        let hosts = self.cluster.running();
        self.during(Fault::Pipelined, Self::everybody(hosts[0]), |nemesis| {
            for host in hosts {
                let Some(mut pipe) = nemesis.crowd.pipe(host) else { continue };
                let mut left = IN_ORDER;
                let deadline = Instant::now() + ANSWERS;
                while left > 0 && Instant::now() < deadline {
                    let room = left.min(UNANSWERED_MAX.saturating_sub(pipe.waiting()));
                    if !(0..room).all(|_| pipe.publish(Log::Burst, BYTES)) {
                        break;
                    }
                    left -= room;
                    std::thread::sleep(ms(1));
                }
                pipe.drain(ANSWERS);
            }
        });
    }

    fn pipes(&self, host: u8, count: usize) -> Vec<Pipe> {
        (0..count).filter_map(|_| self.crowd.pipe(host)).collect()
    }
}

/// Fills every connection and keeps them full for that long; publishes that wait then.
fn fill_all(pipes: &mut [Pipe], keep: Duration) -> usize {
    let until = Instant::now() + keep;
    std::thread::scope(|scope| {
        for pipe in pipes.iter_mut() {
            scope.spawn(move || {
                while pipe.fill(Log::Burst, SMALL, UNANSWERED_MAX) && Instant::now() < until {
                    std::thread::sleep(ms(5));
                }
            });
        }
    });
    pipes.iter().map(Pipe::waiting).sum()
}
