//! Crash points: places between two steps on the disk at which a test looks, or lets the step fail.
//!
//! A process can die between any two writes, and any write can fail. A test sets a hook with [`with`] that is called
//! at each [`point`] on its thread; it may copy the data directory, which is what a killed process leaves behind, or
//! answer that the step fails here. Steps that run on whatever thread is free pass a [`point_of`] a data directory,
//! for which a test sets a hook with [`watch`]. In a release the points are nothing.

use std::path::Path;

use crate::error::ReadError;

/// A place between two steps.
#[cfg(not(test))]
#[inline]
pub(crate) const fn point(_name: &'static str) -> Result<(), ReadError> {
    Ok(())
}

/// A place between two steps that work on this data directory.
#[cfg(not(test))]
#[inline]
pub(crate) const fn point_of(_directory: &Path, _name: &'static str) -> Result<(), ReadError> {
    Ok(())
}

#[cfg(test)]
type Hook = Box<dyn FnMut(&'static str) -> bool>;

#[cfg(test)]
std::thread_local! {
    static HOOK: std::cell::RefCell<Option<Hook>> = const { std::cell::RefCell::new(None) };
}

/// A place between two steps.
#[cfg(test)]
pub(crate) fn point(name: &'static str) -> Result<(), ReadError> {
    outcome(name, HOOK.with_borrow_mut(|hook| hook.as_mut().is_some_and(|hook| hook(name))))
}

#[cfg(test)]
fn outcome(name: &'static str, fails: bool) -> Result<(), ReadError> {
    if fails { Err(ReadError(format!("the test ends the step at {name}"))) } else { Ok(()) }
}

#[cfg(test)]
type Watcher = std::sync::Arc<dyn Fn(&'static str) -> bool + Send + Sync>;

#[cfg(test)]
static WATCHERS: std::sync::Mutex<std::collections::BTreeMap<std::path::PathBuf, Watcher>> =
    std::sync::Mutex::new(std::collections::BTreeMap::new());

/// A place between two steps that work on this data directory.
#[cfg(test)]
pub(crate) fn point_of(directory: &Path, name: &'static str) -> Result<(), ReadError> {
    // The hook may take long, and others pass their points meanwhile.
    let watcher = crate::lock::lock(&WATCHERS).get(directory).cloned();
    outcome(name, watcher.is_some_and(|watcher| watcher(name)))
}

/// Calls this hook at each point of this data directory from now on, on any thread, until [`unwatch`].
#[cfg(test)]
pub(crate) fn watch(directory: &Path, hook: impl Fn(&'static str) -> bool + Send + Sync + 'static) {
    crate::lock::lock(&WATCHERS).insert(directory.to_path_buf(), std::sync::Arc::new(hook));
}

/// Ends [`watch`].
#[cfg(test)]
pub(crate) fn unwatch(directory: &Path) {
    crate::lock::lock(&WATCHERS).remove(directory);
}

/// Runs with a hook that sees the name of each point on this thread, and answers whether the step fails there.
#[cfg(test)]
pub(crate) fn with<T>(hook: impl FnMut(&'static str) -> bool + 'static, run: impl FnOnce() -> T) -> T {
    struct Unset;
    impl Drop for Unset {
        fn drop(&mut self) {
            HOOK.set(None);
        }
    }
    HOOK.set(Some(Box::new(hook)));
    let _unset = Unset;
    run()
}
