//! Errors that are not failures of the node: those of the caller, and those that were told already.

/// The command line asks for something that makes no sense: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Usage(pub(crate) String);

/// The command has written all there is to say; what it found is a failure: exit code 1.
#[derive(Debug, thiserror::Error)]
#[error("")]
pub(crate) struct AlreadyReported;
