//! The disk below everything: files and folders of a node, RocksDB's options, free space, open files.
//!
//! Invariant: names and options of the stores are in one place, and a store of an unknown version is refused.

pub(crate) mod complete;
pub mod disk;
pub mod files;
pub(crate) mod layout;
#[cfg(test)]
mod tests;
