//! The dock: an agent that runs services as child processes and reports to the nodes of a cluster.
//!
//! ```text
//! command.rs     `rollbook dock`                      config.rs, error.rs   what an agent is given, why it does not run
//! run.rs         start and stop of the agent
//! link/          the connection to the hub           dispatcher.rs         requests of the hub to services
//! service/       the actor of one service            store/                the data directory
//! node/          HTTP to a node, downloads           output/               standard output and error
//! report/        what goes to the hub                process/              processes, trees, cgroups
//! definition/    what hubs say about a service       jitter.rs             chance in pauses
//! ```
//!
//! May import the wire of the door `hms`, whose other end this is, `base::archive`, and what all commands have in common
//! of TLS and tokens. Arrows point down, from `run.rs` to `definition/`.
//! Invariant: a service needs neither the hub nor the agent to run. Whatever happens to them, its process is not touched
//! until a command, its own exit or the stop of the agent says so.

pub mod command;
pub mod config;
mod definition;
mod dispatcher;
pub mod error;
mod jitter;
mod link;
mod node;
mod output;
mod process;
mod report;
pub mod run;
mod service;
mod store;

use std::ffi::OsString;

/// The name of the hidden subcommand.
pub const CHILD: &str = "dock-child";

/// The hidden subcommand that stands between the agent and a service. Takes the arguments behind the name of the
/// subcommand, and returns the exit code when the program of the service could not be run.
pub fn run_child(arguments: impl Iterator<Item = OsString>) -> u8 {
    process::child_program::run_child(arguments)
}
