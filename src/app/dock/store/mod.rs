//! The data directory of the agent.
//!
//! ```text
//! DIR/lock         held as long as the agent runs
//! DIR/dock.json    definitions and processes
//! DIR/builds/ID@T  the build of a service that was deployed at T
//! DIR/work/ID      where a service without a build runs
//! DIR/logs/ID      its output
//! ```
//!
//! May import: `definition` and `process` for what is stored.
//! Invariant: a file that is named above is whole at any time; what is under way lies in `DIR/builds/.incoming-*`.

pub(super) mod builds;
pub(super) mod data_dir;
pub(super) mod state_file;
