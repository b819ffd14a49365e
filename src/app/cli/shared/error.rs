//! Errors with an exit code of their own: wrong usage, and failures that were reported already.

/// The command line makes no sense: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The command has already reported its failure: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("")]
pub(crate) struct AlreadyReported;
