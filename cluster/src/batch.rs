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
const IN_FLIGHT_MAX: usize = 2;
/// Asks that may wait for the batcher.
pub(crate) const QUEUE_ASKS_MAX: usize = 65_536;

/// Gathers asks until the queue is closed.
pub(crate) async fn run(carrier: Arc<Carrier>, mut asks: mpsc::Receiver<Ask>) {
    let in_flight = Arc::new(Semaphore::new(IN_FLIGHT_MAX));
    let mut held: Option<Ask> = None;
    loop {
        let Some(first) = (match held.take() {
            Some(ask) => Some(ask),
            None => asks.recv().await,
        }) else {
            return;
        };
        let Ok(permit) = Arc::clone(&in_flight).acquire_owned().await else { return };
        let mut gathered = Gathered::new(carrier.has_peers(), first.frames.len());
        gathered.push(first);
        while gathered.bytes < ENTRY_BYTES_MAX {
            let Ok(next) = asks.try_recv() else { break };
            if gathered.bytes.saturating_add(next.frames.len()) > ENTRY_BYTES_MAX {
                held = Some(next);
                break;
            }
            gathered.push(next);
        }
        gathered.seal(carrier.next_batch(gathered.answers.len()));
        let carrier = Arc::clone(&carrier);
        tokio::spawn(async move {
            carrier.carry(gathered).await;
            drop(permit);
        });
    }
}
