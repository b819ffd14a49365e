//! A bound on the bytes that many holders have together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The bound. Clones share one count.
#[derive(Debug, Clone)]
pub struct Budget {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// Most bytes of all holders.
    max: usize,
    /// Bytes of all holders now.
    used: AtomicUsize,
}

/// The bytes of one holder. Given back when this is dropped.
#[derive(Debug)]
pub struct Lease {
    /// The bound.
    budget: Budget,
    /// Bytes that this holder has.
    bytes: usize,
}

impl Budget {
    /// A budget of this many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self { inner: Arc::new(Inner { max: bytes_max, used: AtomicUsize::new(0) }) }
    }

    /// A lease of no bytes.
    #[must_use]
    pub fn lease(&self) -> Lease {
        Lease { budget: self.clone(), bytes: 0 }
    }

    /// Bytes that all leases have now.
    #[must_use]
    pub fn used(&self) -> usize {
        self.inner.used.load(Ordering::Relaxed)
    }
}

impl Lease {
    /// Changes the lease to this many bytes. Returns `false`, and changes nothing, when that exceeds the budget. A
    /// single lease always fits.
    #[must_use]
    pub fn cover(&mut self, bytes: usize) -> bool {
        let Inner { max, used } = &*self.budget.inner;
        if bytes <= self.bytes {
            used.fetch_sub(self.bytes.saturating_sub(bytes), Ordering::Relaxed);
            self.bytes = bytes;
            return true;
        }
        let more = bytes.saturating_sub(self.bytes);
        let before = used.fetch_add(more, Ordering::Relaxed);
        let alone = before <= self.bytes;
        if !alone && before.saturating_add(more) > *max {
            used.fetch_sub(more, Ordering::Relaxed);
            return false;
        }
        self.bytes = bytes;
        true
    }

    /// Gives all bytes back.
    pub fn free(&mut self) {
        self.budget.inner.used.fetch_sub(self.bytes, Ordering::Relaxed);
        self.bytes = 0;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.free();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_together_hold_no_more_than_the_bound_but_one_alone_may() {
        let budget = Budget::new(100);
        let (mut one, mut two) = (budget.lease(), budget.lease());
        assert!(one.cover(60) && two.cover(40));
        assert!(!two.cover(41), "it holds what it held");
        assert_eq!(budget.used(), 100);
        assert!(one.cover(10) && two.cover(90));
        drop(one);
        assert!(two.cover(500), "alone");
        let mut three = budget.lease();
        assert!(!three.cover(1));
        two.free();
        assert!(three.cover(1));
        drop((two, three));
        assert_eq!(budget.used(), 0);
    }
}
