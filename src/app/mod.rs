//! The application: the configuration, the start and stop of a node, the command line and the benchmark.
//!
//! Builds the floors from the bottom up and drains them in reverse. Nothing imports this floor except `main`.

pub mod bench;
pub mod cli;
pub mod config;
pub mod dock;
mod lines;
mod log;
pub mod node;
