//! Services: an actor for each, which alone touches the process of the service.
//!
//! ```text
//! handle.rs            the mailbox of an actor, as others see it
//! commands.rs          what an actor is told to do
//! actor.rs             commands in their order
//! supervisor.rs        start, stop, restart, exit
//! recovery.rs          what an earlier start of the agent left behind
//! starter.rs           from a definition to a process
//! ending.rs            the end of a process, told to the hub
//! restart_history.rs   whether and when to restart (pure)
//! probe.rs             whether a new process is ready
//! readiness_table.rs   which services are ready
//! state_row.rs         the row of the state file
//! snapshot.rs          what `ps` shows
//! context.rs           what all actors share
//! ```
//!
//! May import: `definition`, `process`, `output`, `report`, `store`, `node`.
//! Invariant: a service has at most one process that is not being stopped, and the state file names a process before the
//! process exists.

mod actor;
pub(super) mod commands;
pub(super) mod context;
mod ending;
pub(super) mod handle;
mod probe;
pub(super) mod readiness_table;
mod recovery;
mod restart_history;
mod snapshot;
mod starter;
mod state_row;
mod supervisor;
