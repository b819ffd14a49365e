//! What a publish does: sequence numbers, dedupe keys, chosen ids.

pub(super) mod decode;
pub(super) mod first;
pub(super) mod ids;
pub(super) mod keyed;
pub(super) mod keys;
pub(super) mod publish;
pub(super) mod tell;
