//! The application: reads the configuration, builds the floors bottom up, drains in reverse.

pub mod bench;
pub mod cli;
pub mod config;
mod lines;
mod log;
pub mod node;
