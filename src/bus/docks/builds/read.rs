//! Archives out of the replicated state.

use bytes::Bytes;
use futures_util::stream::{Stream, try_unfold};
use rollbook_core::xbus::id::Id;

use crate::base::fault::FaultKind;
use crate::bus::docks::client::DockClient;
use crate::bus::error::Fault;

/// A build that can be read.
#[derive(Debug, Clone)]
pub struct StoredBuild {
    id: Id,
    chunks: u32,
    /// Its length.
    pub bytes: u64,
}

/// The newest build of a definition.
///
/// # Errors
/// [`FaultKind::NotFound`], with a text that says what there is not: `Service not found` or `No builds found`.
pub fn find(client: &DockClient, id: &str) -> Result<StoredBuild, Fault> {
    client.look(|docks| {
        let none = |text: &'static str| Fault::new(FaultKind::NotFound, text);
        let row = docks.definition(id).ok_or_else(|| none("Service not found"))?;
        let build = row.build_id().and_then(|build| Some((build, docks.build(&build)?)));
        let (id, row) = build.ok_or_else(|| none("No builds found"))?;
        Ok(StoredBuild { id, chunks: row.chunks, bytes: row.bytes })
    })
}

/// The bytes of a build, chunk by chunk. When a newer build takes its place meanwhile, the stream ends with an error.
pub fn stream(client: DockClient, build: StoredBuild) -> impl Stream<Item = Result<Bytes, Fault>> {
    try_unfold((client, build, 0_u32), |(client, build, ordinal)| async move {
        if ordinal >= build.chunks {
            return Ok(None);
        }
        let (reader, id) = (client.bus().node().state().builds(), build.id);
        let read = tokio::task::spawn_blocking(move || reader.chunk(&id, ordinal)).await;
        let chunk = read.map_err(|error| Fault::internal(error.to_string()))??;
        let chunk =
            chunk.ok_or_else(|| Fault::new(FaultKind::NotFound, "a newer build has taken the place of this one"))?;
        Ok(Some((Bytes::from(chunk), (client, build, ordinal.saturating_add(1)))))
    })
}
