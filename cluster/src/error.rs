//! Errors because of which a node cannot run, and errors of reads. Refusals of the rules are in `rollbook_core::error`.

use std::io;
use std::path::PathBuf;

/// Why a node cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The data directory cannot be used.
    #[error("data directory {}: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// Another process has the data directory open.
    #[error("data directory {} is in use by another process", .0.display())]
    InUse(PathBuf),
    /// The data directory was written by a release that this one does not know.
    #[error("data directory {} has format {found:?}, this release knows {known:?}", path.display())]
    Format {
        /// The directory.
        path: PathBuf,
        /// What is there.
        found: String,
        /// What this release reads.
        known: &'static str,
    },
    /// The data directory belongs to another node.
    #[error("data directory {} belongs to node {found}, not to node {configured}", path.display())]
    NodeId {
        /// The directory.
        path: PathBuf,
        /// Node that wrote the directory.
        found: u64,
        /// Node that was asked for.
        configured: u64,
    },
    /// The raft log is damaged at a place that is not a torn tail.
    #[error(
        "raft log is corrupt: {file} at offset {offset}: {detail}; nothing was changed; restore this node from a backup, or remove it from the cluster and let it join again under a new id"
    )]
    Corrupt {
        /// The damaged file.
        file: String,
        /// Where in the file.
        offset: u64,
        /// What is wrong there.
        detail: String,
    },
    /// The raft log ends before what was acknowledged.
    #[error(
        "raft log ends at entry {found}, but entry {promised} was acknowledged: {file} ends at offset {offset}; nothing was changed; acknowledged events are missing, restore this node from a backup, or remove it from the cluster and let it join again under a new id"
    )]
    Truncated {
        /// Last entry in the log.
        found: u64,
        /// Last entry that was acknowledged.
        promised: u64,
        /// The newest log file that is there.
        file: String,
        /// Where its valid part ends.
        offset: u64,
    },
    /// The raft log has an older vote than the one that was given.
    #[error(
        "raft log has the vote of term {found}, but this node voted in term {promised}: {file} ends at offset {offset}; nothing was changed; a node that forgets its vote could vote twice, restore this node from a backup, or remove it from the cluster and let it join again under a new id"
    )]
    LostVote {
        /// Term of the vote in the log.
        found: u64,
        /// Term of the last vote that was given.
        promised: u64,
        /// The newest log file that is there.
        file: String,
        /// Where its valid part ends.
        offset: u64,
    },
    /// The high-water mark is lost, so the node cannot know whether the raft log is whole.
    #[error(
        "high-water mark {} {what}, so that acknowledged entries that are missing from the raft log would stay unnoticed; nothing was changed; put the file back, or remove this node from the cluster and let it join again under a new id; to go on with the raft log as it is, start once with --accept-lost-mark",
        path.display()
    )]
    LostMark {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// The state is ahead of the raft log, so payloads are missing.
    #[error(
        "state of this node is at entry {state}, but its raft log ends at {log}: files of the data directory are missing"
    )]
    StateAhead {
        /// Applied index of the state.
        state: u64,
        /// Last index of the log.
        log: u64,
    },
    /// The ledger has fewer events than were settled in it.
    #[error(
        "ledger {} ends at event {found} of namespace {namespace} (number {number}), but all events up to {promised} were settled in it: files of it are missing or were cut; restore this node from a backup, or remove it from the cluster and let it join again under a new id",
        directory.display()
    )]
    LedgerBehind {
        /// Directory of the ledger.
        directory: PathBuf,
        /// Name of the namespace.
        namespace: String,
        /// Number of the namespace, which keys and other messages name.
        number: u32,
        /// Last event that is there.
        found: u64,
        /// Last event that was settled.
        promised: u64,
    },
    /// A store failed.
    #[error("store {store}: {detail}")]
    Store {
        /// Which database.
        store: &'static str,
        /// The error text of RocksDB.
        detail: String,
    },
    /// This node cannot be part of the cluster in its present state.
    #[error("{0}")]
    Cluster(String),
    /// The certificates cannot be used.
    #[error("{0}")]
    Tls(String),
    /// Raft stopped.
    #[error("raft: {0}")]
    Raft(String),
}

/// A read of the book failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("book: {0}")]
pub struct ReadError(pub String);

impl From<rocksdb::Error> for ReadError {
    fn from(error: rocksdb::Error) -> Self {
        Self(error.to_string())
    }
}

/// A failure of RocksDB as the error type of openraft.
pub(crate) fn io_error(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}
