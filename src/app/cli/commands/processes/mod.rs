//! The commands of processes on docks: what runs, what it says, start and stop, deploy.
//!
//! Imports `shared`. Each command is a few requests to REST; `ps` and `logs` of Xbus use the rows of [`ps`] and [`logs`].

pub(in crate::app::cli) mod control;
pub(in crate::app::cli) mod deploy;
pub(in crate::app::cli) mod logs;
pub(in crate::app::cli) mod ps;
