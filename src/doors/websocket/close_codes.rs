//! The close codes of this door, beside those of RFC 6455.

/// The registration is invalid, or the first frame is no registration.
pub(super) const BAD_REGISTRATION: u16 = 4400;
/// The credential of the client does not count any more: it was revoked, or has expired.
pub(super) const UNAUTHENTICATED: u16 = 4401;
/// The client lost the right to be what it is registered as.
pub(super) const FORBIDDEN: u16 = 4403;
/// No registration, or no sign of life, came in time.
pub(super) const TIMEOUT: u16 = 4408;
/// Another connection registered the same instance.
pub(super) const REPLACED: u16 = 4409;
/// The operator removed the client from the roll.
pub(super) const REMOVED: u16 = 4410;
/// The client does not read.
pub(super) const SLOW: u16 = 4429;
