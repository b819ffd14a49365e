//! The exact texts of the protocol: stock peers compare some of them, and their users know the others.

/// Answers an unknown operation, an operation before the handshake, a second handshake, and `add` on a dock.
pub const NOT_SUPPORTED: &str = "Command is not supported";
/// Stands in for an error that has no text.
pub const UNKNOWN_ERROR: &str = "unknown error";
/// Fails a request when 65536 requests wait already. Never on the wire.
pub const TOO_MANY_REQUESTS: &str = "stack overflow";
/// Answers a handshake of another version of the protocol.
pub const OTHER_PROTOCOL: &str = "Server and client do not speak the same protocol";
/// Answers a handshake of neither a client nor a dock.
pub const INVALID_HANDSHAKE: &str = "Invalid handshake";
/// Fails a client whose terminal did not say its type. Never on the wire.
pub const INVALID_HANDSHAKE_REPLY: &str = "Server sent invalid handshake";
/// Answers `add` of a service that is there.
pub const SERVICE_EXISTS: &str = "Service already exist";
/// Answers `add` of a name that has other characters than letters, digits, `-` and `.`.
pub const SERVICE_NAME: &str = "Service name should be alphanumericish";
/// Answers operations, downloads and uploads of a service that is not there.
pub const SERVICE_NOT_FOUND: &str = "Service not found";
/// Answers the download of a service that was never deployed.
pub const NO_BUILDS: &str = "No builds found";
/// Answers a request for any other path, which follows the text.
pub const CANNOT_FIND: &str = "cannot find ";
/// Answers a `sync` without a service on a dock.
pub const SERVICE_REQUIRED: &str = "Service must be passed";
/// Answers a `sync` whose build the dock cannot download.
pub const NO_BUILD_FETCHED: &str = "Could not fetch build";
/// The head that answers CONNECT, misspelled as in the original. Frames follow, and never a body.
pub const SWITCHING_PROTOCOLS: &str =
    "HTTP/1.1 101 Swiching Protocols\r\nUpgrade: hms-protocol\r\nConnection: Upgrade\r\n\r\n";
/// The body that a terminal answers `GET /`.
pub const TERMINAL_BANNER: &str = "hms-terminal 0.4.4\n";
/// The version that a terminal and a dock of rollbook state, for stock peers that compare it.
pub const VERSION: &str = "0.4.4";
/// The origin of a message that has none.
pub const UNKNOWN_ORIGIN: &str = "unknown";
/// The id by which a client subscribes to all services.
pub const ALL_SERVICES: &str = "*";
