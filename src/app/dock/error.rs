//! Why an agent does not run.

use std::io;
use std::path::PathBuf;

/// Why an agent could not start.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// A setting is wrong.
    #[error("{0}")]
    Config(String),
    /// The data directory cannot be used.
    #[error("data directory {}: {source}", path.display())]
    Data {
        /// The directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}
