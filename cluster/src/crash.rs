//! Crash points: places between two steps on the disk at which a test looks, or lets the step fail.
//!
//! A process can die between any two writes, and any write can fail. A test sets a hook with [`with`] that is called
//! at each [`point`] on its thread; it may copy the data directory, which is what a killed process leaves behind, or
//! answer that the step fails here. In a release the points are nothing.

use crate::error::ReadError;

/// A place between two steps.
#[cfg(not(test))]
#[inline]
pub(crate) const fn point(_name: &'static str) -> Result<(), ReadError> {
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
    let fails = HOOK.with_borrow_mut(|hook| hook.as_mut().is_some_and(|hook| hook(name)));
    if fails { Err(ReadError(format!("the test ends the step at {name}"))) } else { Ok(()) }
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
