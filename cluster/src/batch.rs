//! The batcher: many asks become one raft entry, or one batch for the leader.
//!
//! It takes what waits, up to 128 KiB, while at most a few batches are in flight. No
//! timer: when the disk is quick, batches are small and prompt; when it is slow, they
//! grow by themselves. Where a batch then goes is up to [`crate::carry`].

use std::sync::Arc;

use tokio::sync::{Semaphore, mpsc};

use crate::carry::Carrier;
use crate::gather::{Ask, ENTRY_BYTES_MAX, Gathered};

/// Batches on their way at the same time: one gathers while one is being synced. More would make smaller
/// entries, each of which costs a round through raft and its share of an fsync.
const IN_FLIGHT_MAX: u16 = 2;
/// A smaller batch leaves only when no other is on its way: by then it has grown.
const ALONE_BELOW_BYTES: usize = 32 << 10;
/// Asks that may wait for the batcher.
pub(crate) const QUEUE_ASKS_MAX: usize = 65_536;

/// Gathers asks until the queue is closed.
pub(crate) async fn run(carrier: Arc<Carrier>, mut asks: mpsc::Receiver<Ask>) {
    let in_flight = Arc::new(Semaphore::new(usize::from(IN_FLIGHT_MAX)));
    let mut held: Option<Ask> = None;
    loop {
        let Some(first) = (match held.take() {
            Some(ask) => Some(ask),
            None => asks.recv().await,
        }) else {
            return;
        };
        let mut gathered = Gathered::new(carrier.has_peers(), first.frames.len());
        gathered.push(first);
        held = fill(&mut gathered, &mut asks);
        let wanted = if gathered.bytes < ALONE_BELOW_BYTES { u32::from(IN_FLIGHT_MAX) } else { 1 };
        let Ok(mut permits) = Arc::clone(&in_flight).acquire_many_owned(wanted).await else { return };
        let permit = permits.split(1);
        drop(permits);
        if held.is_none() {
            held = fill(&mut gathered, &mut asks);
        }
        gathered.seal(carrier.next_batch(gathered.answers.len()));
        let carrier = Arc::clone(&carrier);
        tokio::spawn(async move {
            carrier.carry(gathered).await;
            drop(permit);
        });
    }
}

/// Takes what waits, as far as it fits; gives back the first that does not.
fn fill(gathered: &mut Gathered, asks: &mut mpsc::Receiver<Ask>) -> Option<Ask> {
    while gathered.bytes < ENTRY_BYTES_MAX {
        let next = asks.try_recv().ok()?;
        if gathered.bytes.saturating_add(next.frames.len()) > ENTRY_BYTES_MAX {
            return Some(next);
        }
        gathered.push(next);
    }
    None
}
