//! The application: reads the configuration, builds the floors bottom up, drains in reverse.

pub mod bench;
pub mod cli;
pub mod config;
mod descriptors;
mod isolation;
mod lines;
mod log;
mod membership;
mod parts;
pub mod run;
mod signals;
