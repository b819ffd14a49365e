//! The rules of rollbook: the pure functions by which every replica applies the entries of the raft log.
//!
//! [`machine::Machine::apply`] takes an entry and gives one reply for each frame and the changed rows
//! ([`rows::Writes`]). The crate does no I/O and has no clock and no randomness, because two replicas that apply the
//! same entries must have the same state, byte for byte: times and random ids arrive inside the entries.
//!
//! Where to begin: [`subjects`] and [`event`] say what is stored, [`entry`] and [`command`] what is proposed,
//! [`namespace`], [`consumer`], [`node`], [`service`], [`central`], [`timed`], [`security`], [`xbus`] and [`dock`] what is replicated, [`machine`] how entries
//! change the replicated state, [`rows`] how a store keeps that state, [`level`] how the rules themselves change.
//! [`json`] reads documents whose parts keep their bytes.

#![no_std]
extern crate alloc;

pub mod central;
pub mod command;
pub mod consumer;
pub mod dock;
pub mod entry;
pub mod error;
pub mod event;
pub mod json;
pub mod level;
pub mod limits;
pub mod machine;
pub mod namespace;
pub mod node;
mod persistent;
pub mod reply;
pub mod rows;
pub mod schedule;
pub mod security;
pub mod service;
pub mod subjects;
pub mod time;
pub mod timed;
pub mod xbus;
