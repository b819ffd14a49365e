//! The fragments of envelopes in the book.

use std::time::Duration;

use rollbook_core::subjects::subject::Namespace;
use rollbook_core::xbus::envelope::row::EnvelopeStatus;
use rollbook_core::xbus::id::Id;

use crate::base::clock;
use crate::bus::error::Fault;
use crate::bus::xbus::client::XbusClient;

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
}

/// How an envelope begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// How many fragments the envelope has.
    pub fragments: u32,
    /// The payload of the first one.
    pub first: Vec<u8>,
}

/// How an envelope begins that is complete somewhere in the cluster, also when this node has not applied that yet.
///
/// # Errors
/// The store failed, or the envelope is gone.
pub async fn start(client: &XbusClient, envelope: Id) -> Result<Start, Fault> {
    if let Some(payload) = client.recent().get(envelope) {
        return Ok(Start { fragments: 1, first: payload.to_vec() });
    }
    let until = clock::now() + BEHIND;
    loop {
        if let Some(start) = look(client, envelope).await? {
            return Ok(start);
        }
        if clock::now() >= until {
            return Err(Fault::internal(format!("envelope {envelope} is gone from the book")));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// One look, with one change of threads.
async fn look(client: &XbusClient, envelope: Id) -> Result<Option<Start>, Fault> {
    let state = client.bus().node().state();
    let (reader, book) = (state.xbus(), state.book());
    let read = move || {
        let Some(row) = reader.envelope(envelope)?.filter(|row| row.status() == EnvelopeStatus::Complete) else {
            return Ok(None);
        };
        let Some((_, sequence)) = reader.fragments(envelope, 0, 1)?.first().copied() else { return Ok(None) };
        let payload = book.get(Namespace::XBUS, sequence, |event| event.payload.map(<[u8]>::to_vec))?;
        Ok(payload.flatten().map(|first| Start { fragments: row.fragments, first }))
    };
    Ok(client.bus().read(read).await?)
}
