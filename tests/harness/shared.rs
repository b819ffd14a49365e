//! What a thread that reads shares with a test that waits.

use std::fmt::Debug;
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The state, and who waits for a change of it.
#[derive(Default)]
pub(crate) struct Shared<S> {
    state: Mutex<S>,
    changed: Condvar,
}

impl<S: Debug> Shared<S> {
    pub(crate) fn lock(&self) -> MutexGuard<'_, S> {
        self.state.lock().expect("the state")
    }

    /// Changes it.
    pub(crate) fn change(&self, change: impl FnOnce(&mut S)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Waits until there is something to take; `None` when it is not there in time.
    pub(crate) fn within<T>(&self, bound: Duration, mut take: impl FnMut(&mut S) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + bound;
        let mut state = self.lock();
        loop {
            if let Some(taken) = take(&mut state) {
                return Some(taken);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.changed.wait_timeout(state, left).expect("the state").0;
        }
    }

    /// The same; panics when it is not there in time.
    pub(crate) fn wait<T>(&self, what: &str, bound: Duration, take: impl FnMut(&mut S) -> Option<T>) -> T {
        self.within(bound, take).unwrap_or_else(|| panic!("waited {bound:?} for: {what}; there is {:?}", self.lock()))
    }
}
