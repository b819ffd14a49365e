//! Dead letters as a place of work: found by what they are about, published again or put away, one by one or many.
//!
//! May import what `consume` may, and nothing of its actors. Invariant: a letter is done when, and only when, its
//! disposition is stored, and the rules store one disposition of a letter, whichever nodes ask for it at the same time.

pub mod disposition;
pub mod filter;
pub mod jobs;
pub mod letter;
pub mod read;
pub mod retry;
