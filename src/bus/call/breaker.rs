//! A circuit breaker: an instance that keeps failing at a capability gets no requests for a while.

use std::time::{Duration, Instant};

/// Failures are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);
/// With fewer requests than this in a window the breaker stays closed.
const REQUESTS_MIN: u32 = 20;
/// How long an open breaker lets nothing through before it tries one request.
const REST: Duration = Duration::from_secs(10);

/// What a breaker lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Every request.
    Closed,
    /// No request until this time.
    Open(Instant),
    /// One trial request, which was sent at this time.
    HalfOpen(Instant),
}

/// The breaker of one capability of one instance.
#[derive(Debug, Clone)]
pub(super) struct Breaker {
    /// What is let through now.
    state: State,
    /// Begin of the present window.
    since: Instant,
    /// Requests that ended in this window.
    requests: u32,
    /// Those of them that failed.
    failures: u32,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub(super) const fn new(now: Instant) -> Self {
        Self { state: State::Closed, since: now, requests: 0, failures: 0 }
    }

    /// Failures in the present window.
    #[must_use]
    pub(super) const fn failures(&self) -> u32 {
        self.failures
    }

    /// Name of the state, for the operator.
    #[must_use]
    pub(super) const fn name(&self) -> &'static str {
        match self.state {
            State::Closed => "closed",
            State::Open(_) => "open",
            State::HalfOpen(_) => "half_open",
        }
    }

    /// Whether a request may go through now.
    #[must_use]
    pub(super) fn permits(&self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open(until) => now >= until,
            // A trial without an outcome is given up after the rest.
            State::HalfOpen(since) => now.saturating_duration_since(since) >= REST,
        }
    }

    /// A request goes through.
    pub(super) const fn pass(&mut self, now: Instant) {
        if !matches!(self.state, State::Closed) {
            self.state = State::HalfOpen(now);
        }
    }

    /// A request has ended.
    pub(super) fn record(&mut self, failed: bool, now: Instant) {
        if let State::HalfOpen(_) | State::Open(_) = self.state {
            *self = Self::new(now);
            if failed {
                self.state = State::Open(now + REST);
            }
            return;
        }
        if now.saturating_duration_since(self.since) > WINDOW {
            *self = Self::new(now);
        }
        self.requests = self.requests.saturating_add(1);
        self.failures = self.failures.saturating_add(u32::from(failed));
        if self.requests >= REQUESTS_MIN && self.failures.saturating_mul(2) >= self.requests {
            self.state = State::Open(now + REST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_twenty_failures_open_it_and_one_success_after_a_rest_closes_it() {
        let begin = Instant::now();
        let mut breaker = Breaker::new(begin);
        for n in 0..19 {
            breaker.record(n % 2 == 0, begin);
            assert_eq!(breaker.state, State::Closed, "after {n}");
        }
        breaker.record(true, begin);
        assert_eq!(breaker.state, State::Open(begin + REST));
        assert!(!breaker.permits(begin + REST - Duration::from_millis(1)));
        assert!(breaker.permits(begin + REST));
        breaker.pass(begin + REST);
        assert!(!breaker.permits(begin + REST), "one request at a time");
        breaker.record(true, begin + REST);
        assert_eq!(breaker.state, State::Open(begin + REST * 2), "the trial failed");
        breaker.pass(begin + REST * 2);
        breaker.record(false, begin + REST * 2);
        assert_eq!(breaker.state, State::Closed);
    }

    #[test]
    fn failures_of_a_window_that_has_ended_do_not_count() {
        let begin = Instant::now();
        let mut breaker = Breaker::new(begin);
        (0..19).for_each(|_| breaker.record(true, begin));
        let later = begin + WINDOW + Duration::from_secs(1);
        breaker.record(true, later);
        assert_eq!((breaker.state, breaker.failures), (State::Closed, 1));
    }
}
