//! Every maximum of the rules of schedules, named with its unit. Like those of [`crate::limits`] they hold on all replicas
//! and may only be changed by a new feature level.

/// Most schedules of one cluster.
pub const SCHEDULES_MAX: usize = 10_000;
/// Most bytes of the definitions of all schedules.
pub const DEFINITIONS_BYTES_MAX: usize = 64 << 20;
/// Longest name of a schedule, in bytes.
pub const NAME_BYTES_MAX: usize = 64;
/// Longest payload of a schedule, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 64 << 10;
/// Most headers of a definition. The bus adds a few of its own to each event.
pub const HEADERS_MAX: usize = 56;
/// Most bytes of all headers of a definition, names and values together. The rest is for those that the bus adds.
pub const HEADER_BYTES_MAX: usize = 7 << 10;
/// Longest cron expression, in bytes.
pub const CRON_BYTES_MAX: usize = 256;
/// Longest name of a time zone, in bytes.
pub const ZONE_BYTES_MAX: usize = 64;
/// Shortest interval, in milliseconds.
pub const EVERY_MS_MIN: u64 = 1000;
/// Longest interval, in milliseconds: 366 days.
pub const EVERY_MS_MAX: u64 = 366 * 86_400_000;
/// Longest jitter, in milliseconds: a day.
pub const JITTER_MS_MAX: u64 = 86_400_000;
/// Longest text of the last failure that a row keeps, in bytes.
pub const FAILURE_BYTES_MAX: usize = 256;
