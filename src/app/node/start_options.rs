//! What the operator asks of one start of a node.

/// What one start does that others do not.
#[derive(Debug, Clone, Copy, Default)]
pub struct StartOptions {
    /// Start although the file `MARK` is lost.
    pub accept_lost_mark: bool,
    /// Make another root token and write it into the data directory.
    pub new_root_token: bool,
}
