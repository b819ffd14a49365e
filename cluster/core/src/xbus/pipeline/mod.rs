//! Pipelines: graphs of nodes, along whose edges envelopes go from actor to actor.
//!
//! ```text
//! document   a pipeline as somebody wrote it, which may have faults
//! check      a document becomes a graph, or a list of faults
//! graph      a pipeline without faults, and whom its nodes name
//! order      which node stands before which, and where a cycle is
//! version    versions of a pipeline: draft, active, inactive
//! ```
//!
//! Imports `xbus::id` and `xbus::limits` alone.
//!
//! Invariant: a [`graph::Graph`] that exists is a directed acyclic graph whose nodes, names and edges are checked.

pub mod check;
pub mod document;
pub mod graph;
mod order;
#[cfg(test)]
mod tests;
pub mod version;
