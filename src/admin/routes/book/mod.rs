//! Events over REST: stored ones are looked up, and those that wait for their time are listed and cancelled.

pub(in crate::admin) mod delayed;
pub(in crate::admin) mod events;
