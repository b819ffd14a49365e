//! Locks: what a thread that panicked held is as good as before, for each change is one step.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a panic of somebody who held it.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
