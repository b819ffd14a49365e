//! The roll on this node: registrations of services and instances, announcements of changes, and the removal of clients
//! that left.
//!
//! Invariant: everything that must be equal on all nodes is a command of the rules. This room only decides when to
//! propose a command.

pub mod actor_place;
pub mod announcer;
pub mod pending_leaves;
pub mod registration;
#[expect(clippy::module_inception, reason = "the file of `Roll` is called as the type is")]
pub mod roll;
pub mod services;
