//! What is published at a time: the stored forms.
//!
//! Imports nothing of the other rooms. Invariant: tags of stored messages are never used twice.

pub mod delayed;
