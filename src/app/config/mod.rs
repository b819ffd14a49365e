//! The configuration of a node, from defaults, file, environment and flags.
//!
//! [`settings`] defines the sections, [`values`] their special types, [`layers`] reads and merges the layers. The
//! section of a door lies with its door.

pub mod layers;
pub mod settings;
pub mod values;

#[cfg(test)]
mod tests;
