//! Archives into the replicated state: one chunk after the other, and then the definition that has the build.

use std::path::Path;

use rollbook_core::dock::change::{BuildBegin, BuildChunk, BuildFinish, Change};
use rollbook_core::dock::limits::BUILD_CHUNK_BYTES_MAX;
use rollbook_core::error::Refusal;
use rollbook_core::security::actor::Actor;
use sha2_digest::Sha256;
use tokio::io::AsyncReadExt as _;
use uuid::Uuid;

use crate::base::fault::FaultKind;
use crate::bus::docks::client::DockClient;
use crate::bus::docks::definition::Definition;
use crate::bus::error::Fault;

mod sha2_digest {
    //! SHA-256, as far as archives need it.
    use aws_lc_rs::digest::{Context, SHA256};

    pub(super) struct Sha256(Context);

    impl Sha256 {
        pub(super) fn new() -> Self {
            Self(Context::new(&SHA256))
        }

        pub(super) fn update(&mut self, bytes: &[u8]) {
            self.0.update(bytes);
        }

        pub(super) fn finish(self) -> Vec<u8> {
            self.0.finish().as_ref().to_vec()
        }
    }
}

/// How often a chunk, or the end, is proposed again whose outcome is unknown, or for which there was no leader.
const TRIES_MAX: u32 = 60;
/// Pause before that.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Stores an archive as the build of a definition. `edit` changes the definition that points to the build.
///
/// # Errors
/// There is no such definition, there is no room, or the cluster cannot store it now. Nothing of the archive is kept then.
pub(super) async fn store(
    client: &DockClient,
    id: &str,
    archive: &Path,
    actor: &Actor,
    edit: impl Fn(&mut Definition),
) -> Result<Definition, Fault> {
    let build = Uuid::new_v4().into_bytes().to_vec();
    let stored = whole(client, (id, &build), archive, actor, edit).await;
    if stored.is_err() {
        let abandoned = client.change(None, Change::BuildAbandon(build), actor.clone()).await;
        if let Err(refusal) = abandoned {
            tracing::debug!(%refusal, id, "a build that is not whole goes later");
        }
    }
    stored
}

async fn whole(
    client: &DockClient,
    (id, build): (&str, &[u8]),
    archive: &Path,
    actor: &Actor,
    edit: impl Fn(&mut Definition),
) -> Result<Definition, Fault> {
    let begin = BuildBegin { build: build.to_vec(), definition: id.to_owned() };
    propose(client, None, &Change::BuildBegin(begin), actor).await?;
    let disk = |error: std::io::Error| Fault::internal(format!("an archive cannot be read: {error}"));
    let mut file = tokio::fs::File::open(archive).await.map_err(disk)?;
    let (mut digest, mut chunks, mut bytes) = (Sha256::new(), 0_u32, 0_u64);
    loop {
        let mut chunk = Vec::with_capacity(BUILD_CHUNK_BYTES_MAX);
        let most = u64::try_from(BUILD_CHUNK_BYTES_MAX).unwrap_or(u64::MAX);
        (&mut file).take(most).read_to_end(&mut chunk).await.map_err(disk)?;
        if chunk.is_empty() {
            break;
        }
        digest.update(&chunk);
        bytes = bytes.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        let change = BuildChunk { build: build.to_vec(), ordinal: chunks, bytes: chunk };
        propose(client, None, &Change::BuildChunk(change), actor).await?;
        chunks = chunks.saturating_add(1);
    }
    let sha256 = digest.finish();
    for _ in 0..TRIES_MAX {
        let found = client.get(id)?;
        let (mut definition, revision) =
            found.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("there is no definition {id}")))?;
        edit(&mut definition);
        let (build, sha256, document) = (build.to_vec(), sha256.clone(), definition.json());
        let finish = BuildFinish { build, chunks, bytes, sha256, document };
        match propose(client, Some(revision), &Change::BuildFinish(finish), actor).await {
            Ok(()) => return Ok(definition),
            Err(Refusal::RevisionMismatch(_)) => {}
            Err(refusal) => return Err(refusal.into()),
        }
    }
    Err(Fault::unavailable(format!("{id} was changed by others again and again")))
}

/// Proposes a change that may be repeated, until its outcome is known.
async fn propose(client: &DockClient, if_revision: Option<u64>, change: &Change, actor: &Actor) -> Result<(), Refusal> {
    let mut last = Refusal::Unavailable("no leader".to_owned());
    for _ in 0..TRIES_MAX {
        match client.change(if_revision, change.clone(), actor.clone()).await {
            Ok(_) => return Ok(()),
            Err(refusal @ (Refusal::Unavailable(_) | Refusal::Overloaded(_) | Refusal::OutcomeUnknown(_))) => {
                last = refusal;
                tokio::time::sleep(PAUSE).await;
            }
            Err(refusal) => return Err(refusal),
        }
    }
    Err(last)
}
