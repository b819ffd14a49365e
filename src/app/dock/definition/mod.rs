//! What a hub says about a service, checked and in types.
//!
//! Lives here: the service document, its restart policy, its readiness check and its command line.
//! May import: nothing of the agent.
//! Invariant: everything here is pure; a document that this folder accepts can be run without a further check of its form.

mod arguments;
pub(super) mod document;
mod duration;
pub(super) mod readiness;
pub(super) mod restart_policy;
