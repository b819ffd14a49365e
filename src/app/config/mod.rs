//! Configuration of a node, from defaults, file, environment and flags.

pub mod layers;
pub mod settings;
pub mod values;

#[cfg(test)]
mod tests;
