//! What a principal uses at this node, against the limits of its roles. Time is passed in.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use arc_swap::ArcSwap;
use rollbook_cluster::lock::lock;
use rollbook_core::security::model::RoleLimits;

use crate::bus::error::Fault;

/// A rate with a burst of one second.
#[derive(Debug)]
struct Bucket {
    /// What is left. One request may take more than there is, and the next ones wait for that.
    left: f64,
    at: Option<Instant>,
}

impl Bucket {
    const fn new() -> Self {
        Self { left: 0.0, at: None }
    }

    /// Takes `amount`. Returns `false` when nothing is left.
    #[expect(clippy::as_conversions, reason = "rates far below 2^52 are exact in a float, larger ones need not be")]
    fn take(&mut self, per_second: u64, amount: u64, now: Instant) -> bool {
        let rate = per_second as f64;
        let gained = self.at.map_or(rate, |at| now.saturating_duration_since(at).as_secs_f64() * rate);
        self.at = Some(now);
        self.left = (self.left + gained).min(rate);
        if self.left < 1.0 {
            return false;
        }
        self.left -= amount as f64;
        true
    }
}

#[derive(Debug)]
struct Buckets {
    connects: Bucket,
    publishes: Bucket,
    bytes: Bucket,
    calls: Bucket,
}

/// What all clients of a principal use at this node, whatever roles their credentials claim.
#[derive(Debug)]
pub struct Counts {
    buckets: Mutex<Buckets>,
    connections: AtomicU64,
    streams: AtomicU64,
}

impl Default for Counts {
    fn default() -> Self {
        let buckets =
            Buckets { connects: Bucket::new(), publishes: Bucket::new(), bytes: Bucket::new(), calls: Bucket::new() };
        Self { buckets: Mutex::new(buckets), connections: AtomicU64::new(0), streams: AtomicU64::new(0) }
    }
}

impl Counts {
    const fn of(&self, stream: bool) -> &AtomicU64 {
        if stream { &self.streams } else { &self.connections }
    }
}

/// The limits of clients with the same rights, and what their principal uses.
#[derive(Debug)]
pub struct Usage {
    limits: ArcSwap<RoleLimits>,
    counts: Arc<Counts>,
}

/// A place of a connection or stream, given back when this is dropped.
#[derive(Debug)]
pub struct Place {
    counts: Arc<Counts>,
    stream: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.counts.of(self.stream).fetch_sub(1, Ordering::Relaxed);
    }
}

/// The fault of a client beyond a limit.
fn beyond(limit: &str, most: u64) -> Fault {
    Fault::overloaded(format!("the role of this principal allows {limit} of {most} at this node"))
}

impl Usage {
    /// The use of a principal under these limits.
    #[must_use]
    pub fn new(limits: RoleLimits, counts: Arc<Counts>) -> Self {
        Self { limits: ArcSwap::from_pointee(limits), counts }
    }

    /// Other limits count from now on.
    pub fn set_limits(&self, limits: RoleLimits) {
        self.limits.store(Arc::new(limits));
    }

    /// The limits.
    #[must_use]
    pub fn limits(&self) -> RoleLimits {
        **self.limits.load()
    }

    /// Takes a place for a connection.
    ///
    /// # Errors
    /// There are too many, or they come too fast.
    pub fn connect(&self, now: Instant) -> Result<Place, Fault> {
        let limits = self.limits();
        if let Some(most) = limits.connects_per_second
            && !lock(&self.counts.buckets).connects.take(most, 1, now)
        {
            return Err(beyond("new connections a second", most));
        }
        self.place(false, limits.connections, "connections")
    }

    /// Takes a place for a stream.
    ///
    /// # Errors
    /// There are too many.
    pub fn stream(&self) -> Result<Place, Fault> {
        self.place(true, self.limits().streams, "streams")
    }

    fn place(&self, stream: bool, most: Option<u64>, what: &str) -> Result<Place, Fault> {
        let before = self.counts.of(stream).fetch_add(1, Ordering::Relaxed);
        let place = Place { counts: Arc::clone(&self.counts), stream };
        match most.filter(|most| before >= *most) {
            Some(most) => Err(beyond(what, most)),
            None => Ok(place),
        }
    }

    /// Counts a publish of so many events and bytes to a namespace that holds so many bytes.
    ///
    /// # Errors
    /// It is beyond a limit.
    pub fn publish(
        &self,
        (events, bytes): (u64, u64),
        stored: impl FnOnce() -> u64,
        now: impl FnOnce() -> Instant,
    ) -> Result<(), Fault> {
        let limits = self.limits.load();
        if let Some(most) = limits.namespace_bytes.filter(|most| stored() >= *most) {
            return Err(beyond("stored bytes of a namespace", most));
        }
        if limits.publishes_per_second.is_none() && limits.publish_bytes_per_second.is_none() {
            return Ok(());
        }
        let (now, mut buckets) = (now(), lock(&self.counts.buckets));
        if let Some(most) = limits.publishes_per_second
            && !buckets.publishes.take(most, events, now)
        {
            return Err(beyond("published events a second", most));
        }
        if let Some(most) = limits.publish_bytes_per_second
            && !buckets.bytes.take(most, bytes, now)
        {
            return Err(beyond("published bytes a second", most));
        }
        Ok(())
    }

    /// Counts a call.
    ///
    /// # Errors
    /// They come too fast.
    pub fn call(&self, now: Instant) -> Result<(), Fault> {
        match self.limits.load().calls_per_second {
            Some(most) if !lock(&self.counts.buckets).calls.take(most, 1, now) => Err(beyond("calls a second", most)),
            _ => Ok(()),
        }
    }

    /// Connections and streams now.
    #[must_use]
    pub fn open(&self) -> (u64, u64) {
        (self.counts.connections.load(Ordering::Relaxed), self.counts.streams.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn usage(limits: RoleLimits) -> Usage {
        Usage::new(limits, Arc::default())
    }

    #[test]
    fn clients_of_one_principal_count_together_under_limits_of_their_own() {
        let counts = Arc::new(Counts::default());
        let with = |most| {
            let limits = RoleLimits { connections: Some(most), calls_per_second: Some(most), ..RoleLimits::default() };
            Usage::new(limits, Arc::clone(&counts))
        };
        let (few, many, now) = (with(1), with(3), Instant::now());
        let _two = [many.connect(now).unwrap(), many.connect(now).unwrap()];
        assert!(few.connect(now).is_err(), "the principal has two connections already");
        let _third = many.connect(now).unwrap();
        assert!(many.connect(now).is_err());
        assert!(few.call(now).is_ok() && few.call(now).is_err());
    }

    #[test]
    fn a_rate_allows_a_second_of_it_at_once_and_then_its_pace() {
        let (usage, start) = (usage(RoleLimits { calls_per_second: Some(3), ..RoleLimits::default() }), Instant::now());
        assert_eq!((0..5).filter(|_| usage.call(start).is_ok()).count(), 3);
        let later = start + Duration::from_millis(700);
        assert_eq!((0..5).filter(|_| usage.call(later).is_ok()).count(), 2);
        let much_later = later + Duration::from_secs(60);
        assert_eq!((0..9).filter(|_| usage.call(much_later).is_ok()).count(), 3, "no more than a second is saved");
    }

    #[test]
    fn a_large_publish_passes_and_the_next_ones_pay_for_it() {
        let limits = RoleLimits { publish_bytes_per_second: Some(100), ..RoleLimits::default() };
        let (usage, start) = (usage(limits), Instant::now());
        let publish = |seconds| usage.publish((1, 1000), || 0, || start + Duration::from_secs(seconds)).is_ok();
        assert_eq!((publish(0), publish(1), publish(8), publish(10)), (true, false, false, true));
    }

    #[test]
    fn places_are_given_back() {
        let limits = RoleLimits { connections: Some(1), streams: Some(2), ..RoleLimits::default() };
        let (usage, now) = (usage(limits), Instant::now());
        let first = usage.connect(now).unwrap();
        assert!(usage.connect(now).is_err());
        drop(first);
        let _again = usage.connect(now).unwrap();
        let _streams = [usage.stream().unwrap(), usage.stream().unwrap()];
        assert_eq!(usage.stream().unwrap_err().code(), "overloaded");
        assert_eq!(usage.open(), (1, 2));
    }

    #[test]
    fn a_full_namespace_takes_no_more_of_a_limited_principal() {
        let usage = usage(RoleLimits { namespace_bytes: Some(10), ..RoleLimits::default() });
        let now = Instant::now();
        assert!(usage.publish((1, 5), || 9, || now).is_ok() && usage.publish((1, 5), || 10, || now).is_err());
    }

    #[test]
    fn without_limits_nothing_is_refused() {
        let (usage, now) = (usage(RoleLimits::default()), Instant::now());
        let all = (0..10_000).all(|_| usage.call(now).is_ok() && usage.publish((9, 9 << 20), || 9, || now).is_ok());
        assert!(all);
    }
}
