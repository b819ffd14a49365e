//! Connected clients of services, the same for every door: their handles, the messages to them, their requests and
//! answers.
//!
//! Invariant: a message to a client never blocks its sender. A client that cannot keep up loses what may be lost, and
//! is disconnected otherwise.

pub mod announcement;
pub mod call;
pub mod clients;
pub mod commands;
pub mod no_announcements;
pub mod plain;
