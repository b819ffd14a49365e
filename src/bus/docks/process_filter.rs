//! Which processes a client may see, remembered for output that comes fast.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::commands::may_process;
use super::output::Output;
use crate::bus::security::identity::Identity;

/// Most processes of docks whose rights are remembered.
const KNOWN_MAX: usize = 10_000;

/// Which processes a client may see.
#[derive(Debug)]
pub struct ProcessFilter {
    identity: Arc<Identity>,
    /// By dock and process.
    known: Mutex<HashMap<(String, String), bool>>,
}

impl ProcessFilter {
    /// What this client may see.
    #[must_use]
    pub fn new(identity: Arc<Identity>) -> Self {
        Self { identity, known: Mutex::default() }
    }

    /// The client.
    #[must_use]
    pub const fn identity(&self) -> &Arc<Identity> {
        &self.identity
    }

    /// Rights have changed.
    pub fn forget(&self) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether the client may see the process.
    #[must_use]
    pub fn has(&self, output: &Output) -> bool {
        if self.identity.is_open() {
            return true;
        }
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= KNOWN_MAX {
            known.clear();
        }
        let key = (output.dock.clone(), output.id.clone());
        *known.entry(key).or_insert_with(|| may_process(&self.identity, &output.dock, &output.id))
    }
}
