//! The fragments of envelopes in the book.

use std::time::Duration;

use rollbook_core::subjects::subject::Namespace;
use rollbook_core::xbus::id::Id;

use super::client::XbusClient;
use crate::bus::error::Fault;

/// Fragments whose places are read at a time.
const PLACES: usize = 64;
/// How long a node that has not applied the newest entries waits for the fragments of an envelope.
const BEHIND: Duration = Duration::from_secs(5);
/// Pause between two looks for them.
const LOOK: Duration = Duration::from_millis(5);

/// Reads the fragments of an envelope in their order.
#[derive(Debug)]
pub struct Fragments {
    client: XbusClient,
    envelope: Id,
    /// Sequence numbers that were read and not used, the next one last.
    places: Vec<u64>,
    next: u32,
}

impl Fragments {
    /// The fragments of an envelope, from the first one on.
    #[must_use]
    pub const fn of(client: XbusClient, envelope: Id) -> Self {
        Self { client, envelope, places: Vec::new(), next: 0 }
    }

    /// The payload of the next fragment; `None` behind the last one that there is now.
    ///
    /// # Errors
    /// The store failed, or the fragment is gone from the book.
    pub async fn next(&mut self) -> Result<Option<Vec<u8>>, Fault> {
        if self.places.is_empty() {
            let found = self.client.fragments(self.envelope, self.next, PLACES).await?;
            let Some((last, _)) = found.last() else { return Ok(None) };
            self.next = last.saturating_add(1);
            self.places = found.into_iter().map(|(_, sequence)| sequence).rev().collect();
        }
        let Some(sequence) = self.places.pop() else { return Ok(None) };
        let book = self.client.bus().node().state().book();
        let read = move || book.get(Namespace::XBUS, sequence, |event| event.payload.map(<[u8]>::to_vec));
        let payload = self.client.bus().read(read).await?;
        payload.flatten().map(Some).ok_or_else(|| Fault::internal("a fragment is gone from the book"))
    }

    /// The payload of the first fragment of an envelope that is complete somewhere in the cluster, also when this node
    /// has not applied that yet.
    ///
    /// # Errors
    /// The store failed, or the envelope is gone.
    pub async fn first(&mut self) -> Result<Vec<u8>, Fault> {
        let wait = async {
            loop {
                if let Some(payload) = self.next().await? {
                    return Ok(payload);
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        let found = tokio::time::timeout(BEHIND, wait).await;
        found.unwrap_or_else(|_| Err(Fault::internal("the envelope is gone from the book")))
    }
}
