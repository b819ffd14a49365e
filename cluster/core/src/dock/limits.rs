//! Every maximum of the rules of docks, named with its unit. Like those of [`crate::limits`] they hold on all replicas
//! and may only be changed by a new feature level.

/// Most definitions of one cluster.
pub const DEFINITIONS_MAX: usize = 10_000;
/// Longest id of a definition or dock, in bytes.
pub const ID_BYTES_MAX: usize = 255;
/// Longest document of a definition, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 64 << 10;
/// Most bytes of the documents of all definitions.
pub const DOCUMENTS_BYTES_MAX: usize = 16 << 20;

/// Longest chunk of a build, in bytes.
pub const BUILD_CHUNK_BYTES_MAX: usize = 256 << 10;
/// Most chunks of a build.
pub const BUILD_CHUNKS_MAX: u32 = 65_536;
/// Most bytes of a build.
pub const BUILD_BYTES_MAX: u64 = 1 << 30;
/// Most bytes of all builds, finished and open.
pub const BUILDS_BYTES_MAX: u64 = 8 << 30;
/// Most builds at a time that are open: whose chunks are still arriving.
pub const BUILDS_OPEN_MAX: usize = 16;
/// How many of the newest finished builds of a definition are kept.
pub const BUILDS_KEPT: usize = 2;
/// After this time without a chunk an open build is abandoned, in milliseconds.
pub const BUILD_IDLE_MS: u64 = 600_000;
/// Bytes of the SHA-256 of a build.
pub const SHA256_BYTES: usize = 32;

/// Most process events of one change.
pub const EVENTS_MAX: usize = 256;
/// Longest text of a process event, in bytes; callers cut longer ones.
pub const TEXT_BYTES_MAX: usize = 4 << 10;
/// The latest time of a process event, milliseconds since 1970: the end of the year 9999.
pub const AT_MS_MAX: u64 = 253_402_300_799_999;
