//! Appends events: sequence numbers, dedupe keys, chosen ids.
//!
//! `publish` applies the frames of callers, `roll_event` appends the events of the rules themselves. `keyed` decides by
//! `keys` and `ids` whether a publish repeats a stored event; `first` does the same by the rules of the first feature
//! level. Invariant: a refused publish changes no row of keys or ids.

pub(super) mod decode;
pub(super) mod first;
pub(super) mod ids;
pub(super) mod keyed;
pub(super) mod keys;
pub(super) mod publish;
pub(super) mod roll_event;
