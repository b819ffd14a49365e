//! Processes: one envelope on its way through one pipeline.
//!
//! ```text
//! row       what is kept of a process: its nodes, their inputs, their jobs
//! event     what can happen to a process, and what the caller has to do then
//! apply     an event changes a process
//! replay    a process that has ended goes along again, as a new process
//! flow      envelopes and closings go along the edges; nodes become ready, are skipped, have ended
//! job       jobs are sent, run, end, and go back when their actor is lost
//! output    actors send, close and forward on the outputs of their jobs
//! ```
//!
//! A job is what one actor has to do for one node. A node has one job, or with `rolebroadcast` one for each actor.
//!
//! Imports `xbus::id`, `xbus::limits`, `xbus::log`, `xbus::pipeline` and `node::Owner`.
//!
//! Invariant: a job is given to an actor again only after the actor was lost. An input takes one envelope. A process
//! that is paused or has ended starts no job. It is done when no node of it ended in error, and it ends when its last
//! job ends.

pub mod apply;
pub mod event;
mod flow;
mod job;
mod output;
pub mod replay;
pub mod row;
mod step;
#[cfg(test)]
mod tests;
