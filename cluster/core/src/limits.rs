//! Every maximum of the rules, named with its unit.
//!
//! A maximum that `apply` checks is a rule: a node with another value would have another state. The constants of this
//! file hold at every feature level, so none of them may be changed. Maxima that may differ between levels are fields
//! of [`Limits`]; a new value needs a new level.

use crate::level::FeatureLevel;

/// The maxima that may depend on the feature level.
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
    /// The maxima of the rules of `level`.
    #[must_use]
    pub const fn of(level: FeatureLevel) -> Self {
        // All levels so far have the same maxima. A larger value at a later level: `if level.get() >= ...`.
        let _all = level;
        Self {
            namespaces: NAMESPACES_MAX,
            consumers_per_namespace: CONSUMERS_PER_NAMESPACE_MAX,
            services: SERVICES_MAX,
            instances: INSTANCES_MAX,
        }
    }
}

/// Longest `key` or `trace_id` of an event, in bytes.
pub const FIELD_BYTES_MAX: usize = 1024;
/// Longest event id that a client may choose, in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 128;
/// Most headers of an event.
pub const HEADERS_MAX: usize = 64;
/// Most bytes of all headers of an event, names and values together.
pub const HEADER_BYTES_MAX: usize = 8 << 10;
/// Most events in one batch publish.
pub const BATCH_EVENTS_MAX: usize = 100_000;
/// Most namespaces of one cluster. Below feature level `BOUNDED` deleted namespaces count as well.
pub const NAMESPACES_MAX: usize = 100_000;
/// Most durable consumers of one namespace.
pub const CONSUMERS_PER_NAMESPACE_MAX: usize = 10_000;
/// Most deleted namespaces whose sequence numbers are remembered, from feature level `BOUNDED` on. When there are more,
/// the namespace that was deleted first is forgotten.
pub const NAMESPACES_DELETED_MAX: usize = 10_000;
/// Most instances or services that one command changes or removes, from feature level `BOUNDED` on. The rest needs
/// another command, so that no entry takes long to apply.
pub const ROLL_STEP_MAX: usize = 256;
/// About how many bytes of instances or services one command changes or removes. See [`ROLL_STEP_MAX`].
pub const ROLL_STEP_BYTES_MAX: usize = 512 << 10;
/// Most namespaces that one `TrimMany` trims.
pub const TRIMS_MAX: usize = 64;
/// Number of newest dedupe keys that are remembered for each subject at the first feature level.
pub const DEDUPE_KEYS_PER_SUBJECT: u32 = 1000;
/// Default dedupe window of a namespace, in milliseconds.
pub const DEDUPE_WINDOW_MS: u64 = 120_000;
/// Shortest dedupe window of a namespace, in milliseconds.
pub const DEDUPE_WINDOW_MS_MIN: u64 = 1000;
/// Longest dedupe window of a namespace, in milliseconds.
pub const DEDUPE_WINDOW_MS_MAX: u64 = 86_400_000;
/// Most dedupe keys that are remembered for a namespace; when there are more, the oldest keys are removed.
pub const DEDUPE_KEYS_MAX: u64 = 1_000_000;
/// Most bytes of the dedupe keys of a namespace; when there are more, the oldest keys are removed.
pub const DEDUPE_KEY_BYTES_MAX: u64 = 256 << 20;
/// Most rows that one `Tidy` command reads.
pub const TIDY_ROWS_MAX: usize = 1000;
/// Most rows of chosen ids that one `Trim` command reads; `Tidy` commands remove the rest.
pub const TRIM_ROWS_MAX: usize = 100;
/// Longest time for which an event may wait, in milliseconds: 366 days.
pub const DELAY_MS_MAX: u64 = 366 * 86_400_000;
/// Most events of one cluster that wait for their time.
pub const DELAYED_EVENTS_MAX: u64 = 10_000_000;
/// Most bytes of the records of all events of one cluster that wait for their time.
pub const DELAYED_BYTES_MAX: u64 = 4 << 30;
/// Most waiting events that one command appends. The rest needs another command, so that no entry takes long to apply.
pub const RELEASE_EVENTS_MAX: usize = 1000;
/// About how many bytes of waiting events one command appends. See [`RELEASE_EVENTS_MAX`].
pub const RELEASE_BYTES_MAX: usize = 1 << 20;
/// Longest central configuration, in bytes of its JSON text.
pub const CONFIG_BYTES_MAX: usize = 256 << 10;
/// Number of newest revisions of the central configuration that can be read and restored.
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
/// Most ranges of done events beyond the ack floor that a durable consumer remembers: 24 KiB at most.
pub const CONSUMER_RANGES_MAX: usize = 1024;
/// Most events whose delivery count a durable consumer remembers: 20 KiB at most.
pub const CONSUMER_ATTEMPTS_MAX: usize = 1024;
/// Most nodes that a cluster ever had, removed nodes included.
pub const NODES_MAX: usize = 1000;
/// Longest address of a node, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Number of newest forwarded batches of a node that are remembered, so that a batch that arrives twice is stored once.
pub const BATCHES_PER_PRODUCER: u64 = 64;
/// Most principals of one cluster.
pub const PRINCIPALS_MAX: usize = 100_000;
/// Most roles of one cluster, the built-in ones not counted.
pub const ROLES_MAX: usize = 1000;
/// Most credentials of one principal.
pub const CREDENTIALS_PER_PRINCIPAL_MAX: usize = 32;
/// Most issuers of JWTs that are trusted.
pub const ISSUERS_MAX: usize = 16;
/// Most rights of one role, and of one principal.
pub const RIGHTS_MAX: usize = 256;
/// Most roles of one principal.
pub const ROLES_PER_PRINCIPAL_MAX: usize = 32;
/// Longest name of a role or issuer, in bytes.
pub const ROLE_NAME_BYTES_MAX: usize = 64;
/// Longest row of an issuer, in bytes.
pub const ISSUER_BYTES_MAX: usize = 64 << 10;
/// Most lines for the audit of one command.
pub const AUDIT_LINES_MAX: usize = 256;
/// Most credentials that one command notes as used.
pub const CREDENTIALS_USED_MAX: usize = 1000;
/// Shortest time that the audit is kept, in milliseconds: 30 days.
pub const AUDIT_AGE_MS_MIN: u64 = 30 * 86_400_000;
