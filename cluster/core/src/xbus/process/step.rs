//! One event being applied to a process.

use alloc::string::{String, ToString};

use super::event::{Actors, Denied, Effects, JobName, ReadyJob};
use super::row::{JobRow, NodeRow, ProcessRow, ProcessStatus};
use crate::xbus::id::Id;
use crate::xbus::log;
use crate::xbus::pipeline::graph::{Graph, Node};

/// One event being applied. Nothing of it counts when the event is denied.
pub(super) struct Step<'a, A> {
    pub(super) graph: &'a Graph,
    pub(super) actors: &'a A,
    pub(super) process: ProcessRow,
    pub(super) effects: Effects,
    pub(super) millis: u64,
}

/// A job by numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct JobAt {
    pub(super) node: usize,
    pub(super) job: usize,
}

impl<A: Actors> Step<'_, A> {
    pub(super) fn node(&mut self, number: usize) -> Option<(&Node, &mut NodeRow)> {
        self.graph.node(number).zip(self.process.nodes.get_mut(number))
    }

    pub(super) fn job(&mut self, at: JobAt) -> Option<&mut JobRow> {
        self.process.nodes.get_mut(at.node)?.jobs.get_mut(at.job)
    }

    /// The jobs of the process.
    pub(super) fn jobs(&self) -> impl Iterator<Item = (JobAt, &JobRow)> {
        let of = |(node, row): (usize, &'_ NodeRow)| (node, row.jobs.len());
        let counts = self.process.nodes.iter().enumerate().map(of);
        let all = counts.flat_map(|(node, jobs)| (0..jobs).map(move |job| JobAt { node, job }));
        all.filter_map(|at| Some((at, self.process.nodes.get(at.node)?.jobs.get(at.job)?)))
    }

    /// The job that an actor has, whatever its state.
    pub(super) fn find(&self, name: &JobName) -> Result<JobAt, Denied> {
        let node = self.graph.find(&name.node).ok_or(Denied::NoLiveJob)?;
        let jobs = self.process.nodes.get(node).map_or(&[][..], |row| &row.jobs);
        let job = jobs.iter().position(|job| !job.actor.is_empty() && job.actor == name.actor);
        job.map(|job| JobAt { node, job }).ok_or(Denied::NoLiveJob)
    }

    /// The job that an actor has, if it is live.
    pub(super) fn live(&mut self, name: &JobName) -> Result<JobAt, Denied> {
        let at = self.find(name)?;
        let live = self.job(at).is_some_and(|job| job.state().is_live());
        if live { Ok(at) } else { Err(Denied::NoLiveJob) }
    }

    /// Says that a job waits for an actor.
    pub(super) fn announce_ready(&mut self, at: JobAt) {
        let Some(node) = self.graph.node(at.node).map(|node| node.id.clone()) else { return };
        let Some(actor) = self.job(at).map(|job| Id::from_slice(&job.actor).ok()) else { return };
        self.effects.ready.push(ReadyJob { node, actor });
    }

    pub(super) fn set_status(&mut self, status: ProcessStatus) {
        let before = self.process.status();
        self.process.set_status(status);
        self.process.status_changed = self.millis;
        // Of several changes within one event only the whole is told.
        let first = self.effects.status.map_or(before, |(first, _)| first);
        self.effects.status = Some((first, status));
    }

    /// Puts the process in error; the first reason stays.
    pub(super) fn fail(&mut self, reason: impl ToString) {
        if self.process.status().is_final() {
            return;
        }
        let mut state: String = reason.to_string();
        log::cut(&mut state);
        self.process.state = state;
        self.set_status(ProcessStatus::Error);
    }
}
