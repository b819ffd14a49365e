//! Tickets: `rbt_<node>_<43 characters>`, for a client that can present nothing but a URL, such as the `EventSource` of
//! browsers. A ticket is for one use within 30 seconds. It lives in the memory of the node that gave it, whose number it
//! names, so that any other node knows whom to ask.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::base62::{self, RandomError, SECRET_CHARACTERS};
use super::secret::Secret;
use super::token::sha256;

/// How every ticket begins.
pub const TICKET_PREFIX: &str = "rbt_";
/// How long a ticket can be used.
pub const TICKET_LIFETIME: Duration = Duration::from_secs(30);
/// Most tickets that wait for their use on one node.
pub const TICKETS_MAX: usize = 10_000;
/// Most digits of the number of a node.
const NODE_DIGITS_MAX: usize = 20;

/// Why there is no ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Too many tickets wait for their use.
    #[error("{TICKETS_MAX} tickets wait for their use; try again in {} s", TICKET_LIFETIME.as_secs())]
    Full,
    /// There are no random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// The tickets that wait for their use, each with what its owner left here.
pub struct Tickets<T> {
    table: Mutex<Table<T>>,
}

struct Table<T> {
    /// By the hash of the ticket, so that the time of a search tells nothing about a ticket.
    waiting: HashMap<[u8; 32], (T, Instant)>,
    /// In the order of their ends. Used tickets stay until the queue is tidied.
    ends: VecDeque<([u8; 32], Instant)>,
}

impl<T> Default for Tickets<T> {
    fn default() -> Self {
        Self { table: Mutex::new(Table { waiting: HashMap::new(), ends: VecDeque::new() }) }
    }
}

impl<T> fmt::Debug for Tickets<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").field("waiting", &self.table().waiting.len()).finish()
    }
}

impl<T> Tickets<T> {
    /// A new ticket of the node with this number, which will give back this value once.
    ///
    /// # Errors
    /// [`TICKETS_MAX`] tickets wait already, or there are no random bytes.
    pub fn issue(&self, node: u64, value: T, now: Instant) -> Result<Secret, TicketError> {
        let mut text = format!("{TICKET_PREFIX}{node}_");
        // A secret that grows leaves parts of itself behind.
        text.reserve_exact(SECRET_CHARACTERS);
        base62::push_secret(&mut text)?;
        let (key, end) = (sha256(text.as_bytes()), now.checked_add(TICKET_LIFETIME).unwrap_or(now));
        let mut table = self.table();
        table.tidy(now);
        if table.waiting.len() >= TICKETS_MAX {
            return Err(TicketError::Full);
        }
        table.waiting.insert(key, (value, end));
        table.ends.push_back((key, end));
        Ok(Secret::new(text))
    }

    /// The value of a ticket, which is used up by this; `None` when the text is no ticket that can still be used.
    pub fn redeem(&self, text: &str, now: Instant) -> Option<T> {
        node_of(text)?;
        let (value, end) = self.table().waiting.remove(&sha256(text.as_bytes()))?;
        (now < end).then_some(value)
    }

    /// The table. Nothing that could panic runs under the lock, so a poisoned table is whole.
    fn table(&self) -> MutexGuard<'_, Table<T>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Table<T> {
    fn tidy(&mut self, now: Instant) {
        while let Some((key, _)) = self.ends.pop_front_if(|(_, end)| *end <= now) {
            self.waiting.remove(&key);
        }
        // Only used tickets can make the queue longer than the table.
        if self.ends.len() >= TICKETS_MAX.saturating_mul(2) {
            self.ends.retain(|(key, _)| self.waiting.contains_key(key));
        }
    }
}

/// The number of the node that has given a ticket; `None` when the text has not the form of a ticket.
#[must_use]
pub fn node_of(text: &str) -> Option<u64> {
    let (node, secret) = text.strip_prefix(TICKET_PREFIX)?.split_once('_')?;
    let number = (1..=NODE_DIGITS_MAX).contains(&node.len()) && node.bytes().all(|byte| byte.is_ascii_digit());
    let fits = number && secret.len() == SECRET_CHARACTERS && base62::is_base62(secret);
    if fits { node.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_gives_its_value_back_once() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let ticket = tickets.issue(3, "ann", now).unwrap();
        assert_eq!(node_of(ticket.expose()), Some(3), "{}", ticket.expose());
        assert_eq!(tickets.redeem(ticket.expose(), now), Some("ann"));
        assert_eq!(tickets.redeem(ticket.expose(), now), None);
    }

    #[test]
    fn a_ticket_ends_after_30_seconds() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let (late, early) = (tickets.issue(9, 1, now).unwrap(), tickets.issue(9, 2, now).unwrap());
        let end = now + TICKET_LIFETIME;
        assert_eq!(tickets.redeem(early.expose(), end - Duration::from_millis(1)), Some(2));
        assert_eq!(tickets.redeem(late.expose(), end), None);
    }

    #[test]
    fn a_text_that_is_no_ticket_is_not_redeemed() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let ticket = tickets.issue(9, (), now).unwrap();
        let cut = &ticket.expose()[..ticket.expose().len() - 1];
        let (long, far) =
            (format!("{}0", ticket.expose()), ticket.expose().replace("rbt_9_", "rbt_99999999999999999999_"));
        let nameless = ticket.expose().replace("rbt_9_", "rbt_");
        for text in ["", "rbt_", cut, &long, &far, &nameless, &"rbt_".repeat(1_000_000), "rbt_\u{e9}"] {
            assert_eq!(tickets.redeem(text, now), None, "{:.60}", text);
        }
        assert_eq!(tickets.redeem(ticket.expose(), now), Some(()));
    }

    #[test]
    fn a_full_table_refuses_until_tickets_end_or_are_used() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        let issued: Vec<Secret> = (0..TICKETS_MAX).map(|number| tickets.issue(9, number, now).unwrap()).collect();
        assert_eq!(tickets.issue(9, 0, now).err(), Some(TicketError::Full));
        assert_eq!(tickets.redeem(issued[7].expose(), now), Some(7));
        tickets.issue(9, 0, now).expect("there is room for one");
        assert_eq!(tickets.issue(9, 0, now).err(), Some(TicketError::Full));
        tickets.issue(9, 0, now + TICKET_LIFETIME).expect("all old tickets have ended");
        assert_eq!(tickets.table().waiting.len(), 1);
    }

    #[test]
    fn tickets_that_are_used_at_once_do_not_fill_the_table() {
        let (tickets, now) = (Tickets::default(), Instant::now());
        for number in 0..TICKETS_MAX * 5 {
            let ticket = tickets.issue(9, number, now).expect("no other ticket waits");
            assert_eq!(tickets.redeem(ticket.expose(), now), Some(number));
        }
        let queued = tickets.table().ends.len();
        assert!(queued <= TICKETS_MAX * 2, "{queued} ends are kept");
    }
}
