//! Growing delays after failed logins, by principal and by address: five failures are free, then a further attempt has to
//! wait 1 s, 2 s and so on up to 60 s. A quarter of an hour after the last failure all is forgotten.
//!
//! Attempts that run at the same time count too, or a burst would pass before its first failure is known. The tables
//! are bounded: an entry that nobody waits for makes room for a new one, so made-up names cannot grow them, and cannot
//! push out those that are delayed.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures without a delay.
const FREE_FAILURES: u32 = 5;
/// The first delay, which doubles with each further failure.
const FIRST_DELAY: Duration = Duration::from_secs(1);
/// The longest delay.
const LONGEST_DELAY: Duration = Duration::from_secs(60);
/// After this time without a failure all failures are forgotten.
const FORGET: Duration = Duration::from_secs(15 * 60);
/// Most principals, and most addresses, that are remembered.
const ENTRIES_MAX: usize = 10_000;
/// Most attempts at the same time by one principal.
const PRINCIPAL_ATTEMPTS: u32 = 8;
/// Most attempts at the same time from one address, behind which there may be many people.
const ADDRESS_ATTEMPTS: u32 = 32;

/// Who failed to log in, how often and when.
#[derive(Clone)]
pub struct LoginDelays {
    tables: Arc<Mutex<Tables>>,
    /// Keys of entries are hashes with a random key: short, and nobody can choose two names that are one entry.
    hasher: RandomState,
}

struct Tables {
    principals: Table,
    addresses: Table,
}

/// An attempt to log in that was let in. Say how it ended; an attempt that is dropped was neither right nor wrong.
#[must_use = "an attempt that is dropped counts neither as a success nor as a failure"]
pub struct Attempt {
    tables: Arc<Mutex<Tables>>,
    principal: u64,
    address: u64,
}

impl Default for LoginDelays {
    fn default() -> Self {
        let tables = Tables { principals: Table::new(PRINCIPAL_ATTEMPTS), addresses: Table::new(ADDRESS_ATTEMPTS) };
        Self { tables: Arc::new(Mutex::new(tables)), hasher: RandomState::new() }
    }
}

impl fmt::Debug for LoginDelays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = locked(&self.tables);
        let (principals, addresses) = (tables.principals.entries.len(), tables.addresses.entries.len());
        f.debug_struct("LoginDelays").field("principals", &principals).field("addresses", &addresses).finish()
    }
}

impl LoginDelays {
    /// Lets an attempt in, before the password is looked at. The name of the principal is as the client says it.
    ///
    /// # Errors
    /// The time after which a new attempt makes sense.
    pub fn attempt(&self, principal: &str, address: IpAddr, now: Instant) -> Result<Attempt, Duration> {
        let (principal, address) = (self.hasher.hash_one(principal), self.hasher.hash_one(network(address)));
        let mut tables = locked(&self.tables);
        tables.principals.begin(principal, now)?;
        if let Err(wait) = tables.addresses.begin(address, now) {
            tables.principals.end(principal);
            return Err(wait);
        }
        drop(tables);
        Ok(Attempt { tables: Arc::clone(&self.tables), principal, address })
    }
}

impl Attempt {
    /// The password was right: the failures of the principal are forgotten, those of the address are not, or one account
    /// would be enough to try all others.
    pub fn succeeded(self) {
        locked(&self.tables).principals.forgive(self.principal);
    }

    /// The password was wrong, or there is no such principal.
    pub fn failed(self, now: Instant) {
        let mut tables = locked(&self.tables);
        tables.principals.fail(self.principal, now);
        tables.addresses.fail(self.address, now);
    }
}

impl Drop for Attempt {
    fn drop(&mut self) {
        let mut tables = locked(&self.tables);
        tables.principals.end(self.principal);
        tables.addresses.end(self.address);
    }
}

impl fmt::Debug for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Attempt")
    }
}

/// The tables. Nothing that could panic runs under the lock, so poisoned tables are whole.
fn locked(tables: &Mutex<Tables>) -> MutexGuard<'_, Tables> {
    tables.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What counts as one address: of IPv6 the first 64 bits, because every customer has so many addresses.
fn network(address: IpAddr) -> impl Hash {
    match address.to_canonical() {
        IpAddr::V4(address) => (4, u64::from(address.to_bits())),
        // The upper half always fits.
        IpAddr::V6(address) => (6, u64::try_from(address.to_bits() >> 64).unwrap_or_default()),
    }
}

struct Table {
    entries: HashMap<u64, Entry>,
    attempts_max: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    failures: u32,
    /// Attempts that have begun and not ended.
    running: u32,
    /// The last failure, or the first attempt when there was none.
    last: Instant,
}

impl Entry {
    fn delay(self) -> Duration {
        let Some(doublings) = self.failures.checked_sub(FREE_FAILURES) else { return Duration::ZERO };
        FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(LONGEST_DELAY)
    }

    fn is_forgotten(self, now: Instant) -> bool {
        self.running == 0 && now.saturating_duration_since(self.last) >= FORGET
    }
}

impl Table {
    fn new(attempts_max: u32) -> Self {
        Self { entries: HashMap::new(), attempts_max }
    }

    fn begin(&mut self, key: u64, now: Instant) -> Result<(), Duration> {
        if let Some(entry) = self.entries.get_mut(&key) {
            if entry.is_forgotten(now) {
                entry.failures = 0;
            }
            let left = entry.delay().saturating_sub(now.saturating_duration_since(entry.last));
            if !left.is_zero() {
                return Err(left);
            }
            let most = if entry.failures < FREE_FAILURES { self.attempts_max } else { 1 };
            if entry.running >= most {
                return Err(FIRST_DELAY);
            }
            entry.running = entry.running.saturating_add(1);
            return Ok(());
        }
        if self.entries.len() >= ENTRIES_MAX && !self.make_room(now) {
            return Err(FIRST_DELAY);
        }
        self.entries.insert(key, Entry { failures: 0, running: 1, last: now });
        Ok(())
    }

    fn fail(&mut self, key: u64, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.failures = entry.failures.saturating_add(1);
            entry.last = now;
        }
    }

    fn forgive(&mut self, key: u64) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.failures = 0;
        }
    }

    fn end(&mut self, key: u64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.running = entry.running.saturating_sub(1);
        if entry.running == 0 && entry.failures == 0 {
            self.entries.remove(&key);
        }
    }

    /// Drops what is forgotten, or else an eighth of the entries: those with the fewest failures, the oldest of these. So
    /// many at once, because each time costs a walk through the table.
    fn make_room(&mut self, now: Instant) -> bool {
        self.entries.retain(|_, entry| !entry.is_forgotten(now));
        if self.entries.len() < ENTRIES_MAX {
            return true;
        }
        let idle = self.entries.iter().filter(|(_, entry)| entry.running == 0);
        let mut least: Vec<_> = idle.map(|(key, entry)| (entry.failures, entry.last, *key)).collect();
        if least.len() > ENTRIES_MAX / 8 {
            least.select_nth_unstable(ENTRIES_MAX / 8);
            least.truncate(ENTRIES_MAX / 8);
        }
        for (.., key) in &least {
            self.entries.remove(key);
        }
        !least.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    fn fail(delays: &LoginDelays, principal: &str, address: IpAddr, now: Instant) -> Result<(), u64> {
        let attempt = delays.attempt(principal, address, now).map_err(|wait| wait.as_secs())?;
        attempt.failed(now);
        Ok(())
    }

    fn address(number: u32) -> IpAddr {
        IpAddr::V4(std::net::Ipv4Addr::from_bits(number))
    }

    #[test]
    fn five_failures_are_free_and_then_the_delay_doubles_up_to_a_minute() {
        let (delays, mut now) = (LoginDelays::default(), Instant::now());
        for _ in 0..5 {
            fail(&delays, "user:ann", HOME, now).unwrap();
        }
        for wait in [1, 2, 4, 8, 16, 32, 60, 60, 60] {
            assert_eq!(fail(&delays, "user:ann", HOME, now), Err(wait));
            now += Duration::from_secs(wait) - Duration::from_millis(1);
            delays.attempt("user:ann", HOME, now).expect_err("a moment too early");
            now += Duration::from_millis(1);
            fail(&delays, "user:ann", HOME, now).expect("after the delay one attempt is let in");
        }
    }

    #[test]
    fn failures_are_forgotten_after_a_quarter_of_an_hour() {
        let (delays, now) = (LoginDelays::default(), Instant::now());
        for _ in 0..5 {
            fail(&delays, "user:ann", HOME, now).unwrap();
        }
        let later = now + FORGET;
        for _ in 0..5 {
            fail(&delays, "user:ann", HOME, later).expect("all is forgotten");
        }
        assert_eq!(fail(&delays, "user:ann", HOME, later), Err(1));
    }

    #[test]
    fn a_success_forgives_the_principal_and_not_the_address() {
        let (delays, now) = (LoginDelays::default(), Instant::now());
        for _ in 0..4 {
            fail(&delays, "user:ann", HOME, now).unwrap();
        }
        delays.attempt("user:ann", HOME, now).unwrap().succeeded();
        for _ in 0..4 {
            fail(&delays, "user:ann", address(7), now).expect("ann begins anew");
        }
        fail(&delays, "user:bob", HOME, now).unwrap();
        assert_eq!(fail(&delays, "user:cid", HOME, now), Err(1), "the address has failed five times");
    }

    #[test]
    fn an_address_is_delayed_whatever_names_are_tried() {
        let (delays, now) = (LoginDelays::default(), Instant::now());
        for number in 0..5 {
            fail(&delays, &format!("user:{number}"), HOME, now).unwrap();
        }
        assert_eq!(fail(&delays, "user:ann", HOME, now), Err(1));
        fail(&delays, "user:ann", address(7), now).expect("another address is free");
        let six = |text: &str| text.parse::<IpAddr>().unwrap();
        for number in 0..5 {
            fail(&delays, &format!("user:{number}"), six(&format!("2001:db8::{number}")), now).unwrap();
        }
        assert_eq!(fail(&delays, "user:eve", six("2001:db8::ffff"), now), Err(1), "one customer");
        fail(&delays, "user:eve", six("2001:db8:0:1::1"), now).expect("another customer");
    }

    #[test]
    fn a_burst_is_bounded_before_its_first_failure_is_known() {
        let (delays, now) = (LoginDelays::default(), Instant::now());
        let burst: Vec<_> = (0..100).filter_map(|n| delays.attempt("user:ann", address(n), now).ok()).collect();
        assert_eq!(burst.len(), 8);
        for attempt in burst {
            attempt.failed(now);
        }
        assert_eq!(delays.attempt("user:ann", address(1), now).err(), Some(Duration::from_secs(8)));
        let later = now + Duration::from_secs(8);
        let one = delays.attempt("user:ann", address(1), later).expect("one attempt");
        delays.attempt("user:ann", address(2), later).expect_err("and no second one beside it");
        drop(one);
        drop(delays.attempt("user:ann", address(2), later).expect("an attempt that was dropped is no failure"));
    }

    #[test]
    fn made_up_names_neither_grow_the_tables_nor_push_out_those_that_are_delayed() {
        let (delays, now) = (LoginDelays::default(), Instant::now());
        for _ in 0..5 {
            fail(&delays, "user:ann", HOME, now).unwrap();
        }
        for number in 0..30_000_u32 {
            fail(&delays, &format!("user:{number}"), address(number), now).unwrap();
        }
        let tables = locked(&delays.tables);
        for table in [&tables.principals, &tables.addresses] {
            assert!((5_000..=ENTRIES_MAX).contains(&table.entries.len()), "{} entries", table.entries.len());
        }
        drop(tables);
        assert_eq!(fail(&delays, "user:ann", address(99_999), now), Err(1));
        assert_eq!(fail(&delays, "user:bob", HOME, now), Err(1));
    }

    #[test]
    fn attempts_that_succeed_leave_nothing_behind() {
        let (delays, now) = (LoginDelays::default(), Instant::now());
        for number in 0..100 {
            delays.attempt(&format!("user:{number}"), address(number), now).unwrap().succeeded();
        }
        assert_eq!(format!("{delays:?}"), "LoginDelays { principals: 0, addresses: 0 }");
    }
}
