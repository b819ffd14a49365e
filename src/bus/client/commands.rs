//! Commands of the operator that a client was given and has not acknowledged.

use std::collections::HashMap;

use tokio::sync::oneshot;

use crate::base::actors::hint;

/// Most that wait for the acknowledgement of one client.
const WAITING_MAX: usize = 64;

/// The commands of one client, each under a number.
#[derive(Debug)]
pub struct Commands {
    last: u64,
    waiting: HashMap<u64, oneshot::Sender<bool>>,
}

impl Commands {
    /// None; their numbers will be greater than this one.
    #[must_use]
    pub fn new(last: u64) -> Self {
        Self { last, waiting: HashMap::new() }
    }

    /// The number of one that is given now; `None` when too many wait: it is not given.
    pub fn give(&mut self, done: oneshot::Sender<bool>) -> Option<u64> {
        self.waiting.retain(|_, done| !done.is_closed());
        if self.waiting.len() >= WAITING_MAX {
            return None;
        }
        self.last = self.last.wrapping_add(1);
        self.waiting.insert(self.last, done);
        Some(self.last)
    }

    /// Whether somebody waits for the acknowledgement of that one.
    #[must_use]
    pub fn is_awaited(&self, number: u64) -> bool {
        self.waiting.get(&number).is_some_and(|done| !done.is_closed())
    }

    /// The client has acknowledged that one, and says whether it is `handled`: whether anything there takes it.
    pub fn done(&mut self, number: u64, handled: bool) {
        if let Some(done) = self.waiting.remove(&number) {
            // Whoever gave it may have stopped waiting.
            hint(done, handled);
        }
    }
}
