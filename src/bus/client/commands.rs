//! Commands of the operator that a client got and has not acknowledged.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::base::actors::hint;

/// Most commands of one client without an acknowledgement.
const WAITING_MAX: usize = 64;

/// The commands of one client, by number.
#[derive(Debug)]
pub struct Commands {
    /// Number of the newest command.
    last: u64,
    /// Where the acknowledgements go.
    waiting: HashMap<u64, oneshot::Sender<bool>>,
}

impl Commands {
    /// No commands yet; their numbers will be greater than `last`.
    #[must_use]
    pub fn new(last: u64) -> Self {
        Self { last, waiting: HashMap::new() }
    }

    /// Adds a command. Returns its number; `None` when too many wait, and the command is not given.
    pub fn give(&mut self, done: oneshot::Sender<bool>) -> Option<u64> {
        self.waiting.retain(|_, done| !done.is_closed());
        if self.waiting.len() >= WAITING_MAX {
            return None;
        }
        self.last = self.last.wrapping_add(1);
        self.waiting.insert(self.last, done);
        Some(self.last)
    }

    /// Whether somebody waits for the acknowledgement of this command.
    #[must_use]
    pub fn is_awaited(&self, number: u64) -> bool {
        self.waiting.get(&number).is_some_and(|done| !done.is_closed())
    }

    /// The client has acknowledged a command; `handled` says whether it has a handler for it.
    pub fn done(&mut self, number: u64, handled: bool) {
        if let Some(done) = self.waiting.remove(&number) {
            // The operator may have stopped waiting.
            hint(done, handled);
        }
    }
}
