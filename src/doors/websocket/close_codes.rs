//! Close codes of this door, beside those of RFC 6455.

/// Bad registration, or a first frame that is none.
pub(super) const BAD_REGISTRATION: u16 = 4400;
/// No registration, or no sign of life, in time.
pub(super) const TIMEOUT: u16 = 4408;
/// Another connection is that instance now.
pub(super) const REPLACED: u16 = 4409;
/// The operator took it off the roll.
pub(super) const REMOVED: u16 = 4410;
/// It does not read.
pub(super) const SLOW: u16 = 4429;
