//! Membership of the cluster: the founding, changes of the membership, and which changes a majority survives.
//!
//! May import `replicate` and the rooms below. Invariant: a cluster begins once, and changes one step at a time.

pub(crate) mod founding;
pub(crate) mod members;
pub(crate) mod quorum;
