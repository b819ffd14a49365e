//! Jobs come to their actors, and go back when they are lost.
//!
//! ```text
//! engine     brings jobs to the actors of this node:  pick says which, workers has the actors
//! sweep      gives back what this node no longer works on, and give_back one job at once
//! seen       which actors were seen at this node
//! upkeep     what the leader does for all processes
//! ```
//!
//! Invariant: a job is brought by the node whose proposal the rules took, and counts as being worked on only as long as
//! that node has a guard for it.

pub mod engine;
pub mod give_back;
mod pick;
pub mod seen;
mod sweep;
mod upkeep;
pub mod workers;
