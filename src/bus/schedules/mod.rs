//! Schedules: events that the bus publishes at their times, each tick once.
//!
//! `cron` reads expressions, `ticks` says which tick comes next in a time zone, `event` makes the event of a tick,
//! `plan` decides what becomes of a tick that is due, `runner` proposes ticks at the leader, `client` changes schedules.
//!
//! May import the rooms before it and `base`. Invariant: what is due is decided here and stored by the rules
//! ([`rollbook_core::schedule`]), which take each tick once. So a node that wrongly takes itself for the leader does no
//! harm.

pub mod client;
pub mod cron;
mod event;
mod plan;
pub mod runner;
pub mod ticks;
