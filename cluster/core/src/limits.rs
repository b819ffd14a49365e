//! Every maximum of the rules, named with its unit.
//!
//! A maximum that `apply` checks is a rule: all nodes of a cluster must have the same one. The constants of this file
//! are the same at every feature level, so none of them may be changed. Maxima that differ between levels are fields
//! of [`Limits`], and a new value belongs to a new level.

use crate::level::FeatureLevel;

/// The maxima that depend on the feature level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most namespaces of one cluster that clients can see.
    pub namespaces: usize,
    /// Most durable consumers of one namespace.
    pub consumers_per_namespace: usize,
    /// Most services of one cluster.
    pub services: usize,
    /// Most connected instances of one cluster.
    pub instances: usize,
}

impl Limits {
    /// The maxima of that level.
    #[must_use]
    pub const fn of(level: FeatureLevel) -> Self {
        // The same at all levels so far. A larger value at a later level: `if level.get() >= ...`.
        let _all = level;
        Self {
            namespaces: NAMESPACES_MAX,
            consumers_per_namespace: CONSUMERS_PER_NAMESPACE_MAX,
            services: SERVICES_MAX,
            instances: INSTANCES_MAX,
        }
    }
}

/// Longest `key`, `trace_id` of an event, in bytes.
pub const FIELD_BYTES_MAX: usize = 1024;
/// Longest event id a client may choose, in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 128;
/// Most headers of an event.
pub const HEADERS_MAX: usize = 64;
/// Longest headers of an event: names and values together, in bytes.
pub const HEADER_BYTES_MAX: usize = 8 << 10;
/// Most events in one batch publish.
pub const BATCH_EVENTS_MAX: usize = 100_000;
/// Most namespaces of one cluster, deleted ones that still hold their numbering included.
pub const NAMESPACES_MAX: usize = 100_000;
/// Most durable consumers of one namespace.
pub const CONSUMERS_PER_NAMESPACE_MAX: usize = 10_000;
/// Most deleted namespaces whose numbering is remembered from feature level `BOUNDED` on; the one that was deleted
/// first is forgotten.
pub const NAMESPACES_DELETED_MAX: usize = 10_000;
/// Most instances or services that one command changes or takes off the roll from feature level `BOUNDED` on, and
/// about how many bytes of them: what is left needs another command.
pub const ROLL_STEP_MAX: usize = 256;
/// See [`ROLL_STEP_MAX`].
pub const ROLL_STEP_BYTES_MAX: usize = 512 << 10;
/// Most namespaces that one `TrimMany` trims.
pub const TRIMS_MAX: usize = 64;
/// Newest dedupe keys remembered for each subject at the first feature level.
pub const DEDUPE_KEYS_PER_SUBJECT: u32 = 1000;
/// How long a dedupe key is remembered when the namespace does not say otherwise, in milliseconds.
pub const DEDUPE_WINDOW_MS: u64 = 120_000;
/// Shortest time that a namespace may say, in milliseconds.
pub const DEDUPE_WINDOW_MS_MIN: u64 = 1000;
/// Longest time that a namespace may say, in milliseconds.
pub const DEDUPE_WINDOW_MS_MAX: u64 = 86_400_000;
/// Most dedupe keys that are remembered for a namespace; the oldest go first.
pub const DEDUPE_KEYS_MAX: u64 = 1_000_000;
/// Most bytes of the dedupe keys that are remembered for a namespace; the oldest go first.
pub const DEDUPE_KEY_BYTES_MAX: u64 = 256 << 20;
/// Most rows that one `Tidy` looks at.
pub const TIDY_ROWS_MAX: usize = 1000;
/// Most rows of chosen ids that one `Trim` looks at; `Tidy` goes on.
pub const TRIM_ROWS_MAX: usize = 100;
/// Longest central configuration, in bytes of its JSON text.
pub const CONFIG_BYTES_MAX: usize = 256 << 10;
/// Newest revisions of the central configuration that can be looked at and returned to.
pub const CONFIG_REVISIONS_KEPT: u64 = 100;
/// Most services of one cluster.
pub const SERVICES_MAX: usize = 100_000;
/// Most connected instances of one cluster.
pub const INSTANCES_MAX: usize = 200_000;
/// Most capabilities of one instance.
pub const CAPABILITIES_MAX: usize = 256;
/// Most actions of one capability.
pub const ACTIONS_MAX: usize = 1024;
/// Longest id of a service or instance, and longest name of a capability or action, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest text for people, in bytes.
pub const TEXT_BYTES_MAX: usize = 1024;
/// Longest version or kind of a service, in bytes.
pub const VERSION_BYTES_MAX: usize = 64;
/// Longest metadata of a service, in bytes of its JSON text.
pub const METADATA_BYTES_MAX: usize = 16 << 10;
/// Longest name of a durable consumer or group, in bytes.
pub const CONSUMER_NAME_BYTES_MAX: usize = 64;
/// Most ranges of positions behind its floor that a durable consumer remembers as done with: 24 KiB at most.
pub const CONSUMER_RANGES_MAX: usize = 1024;
/// Most events of which a durable consumer remembers how often they were delivered: 20 KiB at most.
pub const CONSUMER_ATTEMPTS_MAX: usize = 1024;
/// Most nodes that a cluster ever had, those that were removed included.
pub const NODES_MAX: usize = 1000;
/// Longest address of a node, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Newest forwarded batches of a node that are remembered, so that one that comes twice is stored once.
pub const BATCHES_PER_PRODUCER: u64 = 64;
