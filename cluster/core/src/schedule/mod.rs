//! Schedules, the rules of each single thing: events that are published at their times.
//!
//! ```text
//! definition  what is published, and when
//! row         a schedule as it is stored, and when its next event leaves
//! change      every change of schedules, and the condition of a publish that is a tick
//! limits      every maximum
//! ```
//!
//! Invariant: a tick is published at most once, whoever proposes it and however often: the row names the one tick that
//! may come next. The rules do not read expressions or time zones. The proposer computes which tick comes next, so
//! replicas with other data of time zones agree all the same.

pub mod change;
pub mod definition;
pub mod limits;
pub mod row;
