//! Every maximum of the rules of Xbus, named with its unit. Like those of [`crate::limits`] they hold on all replicas
//! and may only be changed by a new feature level.

/// Most accounts of one cluster.
pub const ACCOUNTS_MAX: usize = 10_000;
/// Most actors of one account.
pub const ACTORS_PER_ACCOUNT_MAX: usize = 256;
/// Most actors of one cluster.
pub const ACTORS_MAX: usize = 50_000;
/// Most bytes of the rows of all accounts and actors.
pub const ACCOUNTS_BYTES_MAX: usize = 64 << 20;
/// Most entries of the configuration of an actor.
pub const CONFIG_ENTRIES_MAX: usize = 64;
/// Most bytes of all keys and values of the configuration of an actor.
pub const CONFIG_BYTES_MAX: usize = 16 << 10;
/// Longest certificate request or certificate, in bytes of PEM.
pub const PEM_BYTES_MAX: usize = 16 << 10;
/// Longest fingerprint of a certificate, in bytes of text.
pub const FINGERPRINT_BYTES_MAX: usize = 128;
/// Longest name of an account, actor, role, pipeline, version, node, input or output, in bytes.
pub const NAME_BYTES_MAX: usize = 128;
/// Longest type of an event, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 255;

/// Most pipelines of one cluster, all versions counted.
pub const PIPELINES_MAX: usize = 10_000;
/// Most bytes of all versions of all pipelines: their texts, and what these say.
pub const PIPELINES_BYTES_MAX: usize = 64 << 20;
/// Longest text of a pipeline, in bytes, and most bytes of what the text says.
pub const PIPELINE_BYTES_MAX: usize = 256 << 10;
/// Most nodes of a pipeline.
pub const NODES_MAX: usize = 256;
/// Most edges of a pipeline.
pub const EDGES_MAX: usize = 1024;
/// Most inputs of a node, and most outputs.
pub const PORTS_MAX: usize = 32;
/// Most actors that a node names, and most roles, and most event types.
pub const SELECTORS_MAX: usize = 256;
/// Most faults of a pipeline that are told; more would help nobody.
pub const FAULTS_MAX: usize = 64;

/// Most schemas of one cluster.
pub const SCHEMAS_MAX: usize = 1000;
/// Longest text of a schema, in bytes.
pub const SCHEMA_BYTES_MAX: usize = 64 << 10;
/// Most bytes of the rows of all schemas.
pub const SCHEMAS_BYTES_MAX: usize = 16 << 20;

/// Most envelopes at a time that are not complete.
pub const ENVELOPES_OPEN_MAX: usize = 10_000;
/// Most events of an envelope.
pub const EVENTS_MAX: usize = 4096;
/// Most fragments of an envelope, which is also the most parts of an event.
pub const FRAGMENTS_MAX: usize = 4096;
/// Most parts of an envelope: each event in each fragment is one.
pub const PARTS_MAX: u32 = 65_536;
/// Most bytes of all items of an envelope.
pub const ENVELOPE_BYTES_MAX: u64 = 1 << 30;
/// How long an envelope waits for its next fragment before it is stalled, in milliseconds.
pub const STALL_MS: u64 = 30_000;

/// Most processes of one cluster that have not ended.
pub const PROCESSES_OPEN_MAX: usize = 100_000;
/// About the most bytes of the rows of all processes that have not ended.
pub const PROCESS_BYTES_OPEN_MAX: usize = 256 << 20;
/// Most processes that begin with one envelope: that many active pipelines may match.
pub const PROCESSES_PER_ENVELOPE_MAX: usize = 256;
/// Most jobs of one process: a node with `rolebroadcast` has one for each actor.
pub const JOBS_MAX: usize = 4096;
/// Most log messages that are kept of one job.
pub const JOB_MESSAGES_MAX: usize = 16;
/// Most bytes of the log messages that are kept of all jobs of a process.
pub const PROCESS_MESSAGES_BYTES_MAX: usize = 64 << 10;
/// Longest text of a log message, and of the state of a process, in bytes; longer ones are cut.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// How long a detached job waits for its actor to come back, in milliseconds.
pub const DETACHED_MS: u64 = 60_000;
