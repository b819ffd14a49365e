//! Jobs are sent, run, end, and go back when their actor is lost.

use alloc::vec::Vec;

use super::event::{ActorConnection, Actors, Delivery, Denied, JobEnd, JobName, JobSend};
use super::row::{JobRow, JobState, NodeState, OutputState, ProcessStatus};
use super::step::{JobAt, Step};
use crate::node::Owner;
use crate::xbus::id::Id;
use crate::xbus::limits::{DETACHED_MS, PROCESS_MESSAGES_BYTES_MAX};
use crate::xbus::log;

impl<A: Actors> Step<'_, A> {
    /// Gives a ready job to an actor.
    pub(super) fn send(&mut self, send: &JobSend) -> Result<(), Denied> {
        let name = &send.job;
        match self.process.status() {
            ProcessStatus::Running => {}
            ProcessStatus::Paused => return Err(Denied::NotRunning("paused")),
            _ => return Err(Denied::NotRunning("at its end")),
        }
        let actor = Id::from_slice(&name.actor).map_err(|_| Denied::MalformedId)?;
        let number = self.graph.find(&name.node).ok_or(Denied::NotReady)?;
        let (node, row) = self.graph.node(number).zip(self.process.nodes.get(number)).ok_or(Denied::NotReady)?;
        let ready = |job: &JobRow| {
            job.state() == JobState::Ready && if job.bound { job.actor == name.actor } else { job.actor.is_empty() }
        };
        let job = row.jobs.iter().position(ready).ok_or(Denied::NotReady)?;
        if !self.actors.may_work(node, actor) {
            return Err(Denied::WrongActor(node.id.clone()));
        }
        let envelopes = row.inputs.iter().map(|input| Id::from_slice(&input.envelope).ok());
        let inputs = node.inputs.iter().cloned().zip(envelopes).collect();
        self.effects.deliver = Some(Delivery { node: node.id.clone(), actor, inputs });
        let millis = self.millis;
        if let Some(job) = self.job(JobAt { node: number, job }) {
            job.actor.clone_from(&name.actor);
            job.set_state(JobState::Pending);
            (job.owner, job.changed) = (send.owner, millis);
        }
        Ok(())
    }

    /// Notes that a live job runs, with or without a stream.
    pub(super) fn run(&mut self, name: &JobName, state: JobState) -> Result<(), Denied> {
        let at = self.live(name)?;
        let millis = self.millis;
        if let Some(job) = self.job(at).filter(|job| job.state() != JobState::Detached) {
            job.set_state(state);
            job.changed = millis;
        }
        Ok(())
    }

    /// Ends a job as its actor says.
    pub(super) fn end(&mut self, end: &JobEnd) -> Result<(), Denied> {
        let at = self.find(&end.job)?;
        let kept: usize = self.jobs().map(|(_, job)| log::bytes(&job.messages)).sum();
        // What went well leaves room for what fails.
        let most = if end.success { PROCESS_MESSAGES_BYTES_MAX / 2 } else { PROCESS_MESSAGES_BYTES_MAX };
        let left = most.saturating_sub(kept);
        let messages = log::within(log::bounded(end.messages.clone()), left);
        let job = self.job(at).ok_or(Denied::NoLiveJob)?;
        // A worker ends by closing its outputs, and its stream may say so once more.
        if job.state() == JobState::Success && end.success {
            return Ok(());
        }
        if !job.state().is_live() {
            return Err(Denied::NoLiveJob);
        }
        job.messages = messages;
        if end.success {
            job.ending = true;
            job.outputs.iter_mut().filter(|output| output.state() == OutputState::Open).for_each(|output| {
                output.set_state(OutputState::Closed);
            });
            self.end_if_complete(at);
        } else {
            self.finish(at, JobState::Error);
        }
        Ok(())
    }

    /// Ends a job whose outputs are all closed or sent: that is the end of a worker without a word.
    pub(super) fn end_if_complete(&mut self, at: JobAt) {
        let complete = self.job(at).is_some_and(|job| {
            let outputs = job.outputs.iter().all(|output| output.state().is_final());
            outputs && (job.ending || !job.outputs.is_empty())
        });
        if complete {
            self.finish(at, JobState::Success);
        } else {
            self.settle_node(at.node);
        }
    }

    pub(super) fn finish(&mut self, at: JobAt, state: JobState) {
        let millis = self.millis;
        if let Some(job) = self.job(at) {
            job.set_state(state);
            (job.ending, job.away_since, job.changed) = (false, 0, millis);
        }
        self.settle_node(at.node);
    }

    /// The connection of an actor ended.
    pub(super) fn actor_lost(&mut self, connection: &ActorConnection) {
        self.lose(|job| job.actor == connection.actor && job.owner == connection.owner);
    }

    /// All connections to a life of a node, or to an older one, ended.
    pub(super) fn node_lost(&mut self, lost: Owner) {
        let by = |owner: Owner| owner.node == lost.node && owner.incarnation <= lost.incarnation;
        self.lose(|job| job.owner.is_some_and(by));
    }

    /// The actors of these jobs are away: what they have to do is given back at once, but for what they do without a
    /// stream.
    fn lose(&mut self, of: impl Fn(&JobRow) -> bool) {
        let millis = self.millis;
        let lost: Vec<JobAt> =
            self.jobs().filter(|(_, job)| job.state().is_live() && of(job)).map(|(at, _)| at).collect();
        for at in lost {
            match self.job(at) {
                // The first loss counts; 0 would say that the actor is there.
                Some(job) if job.state() == JobState::Detached => {
                    if job.away_since == 0 {
                        job.away_since = millis.max(1);
                    }
                }
                _ => self.give_back(at),
            }
        }
    }

    /// The actor is there again.
    pub(super) fn actor_back(&mut self, connection: &ActorConnection) {
        let of_actor = |job: &JobRow| job.actor == connection.actor && job.state() == JobState::Detached;
        let jobs: Vec<JobAt> = self.jobs().filter(|(_, job)| of_actor(job)).map(|(at, _)| at).collect();
        for at in jobs {
            if let Some(job) = self.job(at) {
                (job.away_since, job.owner) = (0, connection.owner);
            }
        }
    }

    /// The actor may not work any more: others get its jobs, and those that were for it alone are dropped.
    pub(super) fn actor_gone(&mut self, actor: &[u8]) {
        let of_actor = |job: &JobRow| job.actor == actor && !job.state().is_final();
        let jobs: Vec<JobAt> = self.jobs().filter(|(_, job)| of_actor(job)).map(|(at, _)| at).collect();
        for at in jobs {
            let Some(job) = self.job(at) else { continue };
            if !job.bound {
                self.give_back(at);
                continue;
            }
            job.outputs.iter_mut().filter(|output| !output.state().is_final()).for_each(|output| {
                output.set_state(OutputState::Closed);
            });
            self.finish(at, JobState::Dropped);
        }
    }

    /// Nodes that waited for an enabled actor may have one now.
    pub(super) fn actors_changed(&mut self) {
        if self.process.status().is_final() {
            return;
        }
        let waits = |node: &super::row::NodeRow| node.state() == NodeState::Ready && node.jobs.is_empty();
        let numbers: Vec<usize> =
            self.process.nodes.iter().enumerate().filter(|(_, node)| waits(node)).map(|(number, _)| number).collect();
        numbers.into_iter().for_each(|number| self.create_jobs(number));
    }

    /// Gives the detached jobs back whose actor has been away for too long.
    pub(super) fn expire(&mut self) {
        let millis = self.millis;
        let late = |job: &JobRow| {
            job.state() == JobState::Detached
                && job.away_since != 0
                && millis.saturating_sub(job.away_since) >= DETACHED_MS
        };
        let jobs: Vec<JobAt> = self.jobs().filter(|(_, job)| late(job)).map(|(at, _)| at).collect();
        jobs.into_iter().for_each(|at| self.give_back(at));
    }

    /// Says once more which jobs wait for an actor.
    pub(super) fn announce_all(&mut self) {
        let jobs: Vec<JobAt> =
            self.jobs().filter(|(_, job)| job.state() == JobState::Ready).map(|(at, _)| at).collect();
        jobs.into_iter().for_each(|at| self.announce_ready(at));
    }

    /// Makes a live job ready again. An envelope of which only a part came does not count.
    fn give_back(&mut self, at: JobAt) {
        let millis = self.millis;
        let Some(job) = self.job(at) else { return };
        job.set_state(JobState::Ready);
        job.losses = job.losses.saturating_add(1);
        (job.ending, job.away_since, job.owner, job.changed) = (false, 0, None, millis);
        if !job.bound {
            job.actor.clear();
        }
        for output in job.outputs.iter_mut().filter(|output| output.state() == OutputState::Sending) {
            output.set_state(OutputState::Open);
            output.envelope.clear();
        }
        self.announce_ready(at);
    }
}
