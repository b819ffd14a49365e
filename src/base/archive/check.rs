//! Checks an archive without a trace: an upload, before it is stored.

use std::io::Read;

use super::error::ArchiveError;
use super::limits::{Contents, Limits};
use super::scan::{Sink, scan};

/// A sink that keeps nothing.
struct Nowhere;

impl Sink for Nowhere {}

/// Reads a whole gzip tar, and refuses what [`unpack`](super::unpack::unpack) would refuse. Writes nothing.
///
/// # Errors
///
/// The archive is refused, or cannot be read.
pub fn check<R: Read>(reader: R, limits: &Limits) -> Result<Contents, ArchiveError> {
    scan(reader, limits, &mut Nowhere)
}
