//! Docks: definitions of processes, the builds that docks run, and what became of processes.
//!
//! ```text
//! definition  what is to run: a document that nodes read and the rules keep
//! build       the files of a definition, which arrive in chunks
//! event       a process was spawned, exited or crashed
//! change      every change of these, as the log carries it
//! done        what a change did: the reply of the rules
//! limits      every maximum
//! ```
//!
//! This room holds rules alone: of the rest of the crate it imports only [`crate::xbus::id::Id`], and it knows no store.
//! The rules read no document and hash no build: nodes do both before they propose a change.
//!
//! Invariant: ids and times arrive inside the changes, and every list has a bound ([`limits`]), so that all replicas
//! do the same within a bounded time.

pub mod build;
pub mod change;
pub mod definition;
pub mod done;
pub mod event;
pub mod limits;
