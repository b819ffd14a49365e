//! Room for output in the queue before the hub. Those who wait get room in the order in which they came, one chunk each, so
//! a loud service does not keep the output of others from the hub.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most bytes of output in the queue.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;
/// Most bytes of one chunk of output.
pub(crate) const CHUNK_BYTES_MAX: usize = 32 * 1024;
/// The permits for a chunk, one for each byte.
const CHUNK_PERMITS: u32 = 32 * 1024;

/// The room for the output of all services.
#[derive(Debug)]
pub(crate) struct OutputRoom {
    bytes: Arc<Semaphore>,
}

/// Room for one chunk. What is not used is given back when dropped.
#[derive(Debug)]
pub(crate) struct Room(OwnedSemaphorePermit);

impl OutputRoom {
    pub(super) fn new() -> Self {
        Self { bytes: Arc::new(Semaphore::new(OUTPUT_BYTES_MAX)) }
    }

    /// Room for one chunk, unless others wait or the queue is full.
    pub(crate) fn try_take(&self) -> Option<Room> {
        Arc::clone(&self.bytes).try_acquire_many_owned(CHUNK_PERMITS).ok().map(Room)
    }

    /// Waits for room for one chunk. Whoever gives the future up loses the place among those who wait.
    pub(crate) async fn take(&self) -> Option<Room> {
        Arc::clone(&self.bytes).acquire_many_owned(CHUNK_PERMITS).await.ok().map(Room)
    }

    /// True when nothing takes room.
    #[cfg(test)]
    pub(super) fn is_unused(&self) -> bool {
        self.bytes.available_permits() == OUTPUT_BYTES_MAX
    }
}

impl Room {
    /// Takes the room of a frame. The few bytes around a chunk of full length have none.
    pub(super) fn split(&mut self, bytes: usize) -> Option<Self> {
        self.0.split(bytes.min(self.0.num_permits())).map(Self)
    }
}
