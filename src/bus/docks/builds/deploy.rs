//! One upload: the archive is checked, built where the definition says so, and stored.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use rollbook_core::security::right::Verb;
use tempfile::NamedTempFile;
use tokio::sync::mpsc;

use super::folders::{BuildLimits, UploadFolder};
use super::run::{Ended, run};
use super::store::store;
use crate::base::archive::{check, pack, unpack};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::docks::definition::Definition;
use crate::bus::docks::hub::DockHub;
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;

/// What an upload has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deployed {
    /// There was nothing to build, and the archive is stored.
    Stored,
    /// The build was successful and is stored.
    Built,
    /// The build was not. The text says why.
    Failed(String),
}

impl DockHub {
    /// Checks that a client may deploy, and that there is what it deploys.
    ///
    /// # Errors
    /// [`FaultKind::NotFound`], the client may not, or the node runs no builds.
    pub async fn check_deploy(&self, who: &Identity, id: &str) -> Result<Definition, Fault> {
        who.check(Verb::Process, &format!("all/{id}"))?;
        self.fresh().await?;
        let found = self.client().get(id)?.map(|(definition, _)| definition);
        let found = found.ok_or_else(|| Fault::new(FaultKind::NotFound, format!("there is no definition {id}")))?;
        if found.build().is_some() && !self.build_folders().limits().builds {
            let text = "this node runs no builds: hms.builds or hms.listen is off; deploy at another node, or what is built already";
            return Err(Fault::new(FaultKind::Forbidden, text));
        }
        Ok(found)
    }

    /// Deploys an archive, a gzipped tar, as a build of this revision. What a build writes goes to `output`.
    ///
    /// # Errors
    /// [`FaultKind::BadRequest`]: the archive is not taken, and the text says why. Or it cannot be stored now.
    pub async fn deploy(
        &self,
        who: &Identity,
        (definition, revision): (&Definition, &str),
        (folder, archive): (&UploadFolder, NamedTempFile),
        output: &mpsc::Sender<Bytes>,
    ) -> Result<Deployed, Fault> {
        let limits = self.build_folders().limits();
        let (archive, deployed) = match definition.build() {
            None => {
                look(archive.path(), limits).await?;
                (archive, Deployed::Stored)
            }
            Some(_) => {
                let tree = folder.tree();
                open(archive.path(), &tree, limits).await?;
                drop(archive);
                if let Ended::Badly(why) = run(definition, &tree, limits, output).await {
                    return Ok(Deployed::Failed(why));
                }
                (close(folder, tree, limits).await?, Deployed::Built)
            }
        };
        let at = clock::timestamp().to_string();
        let edit = |definition: &mut Definition| definition.set_deployed(revision, &at);
        store(self.client(), definition.id(), archive.path(), &who.actor(""), edit).await?;
        Ok(deployed)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Fault> + Send + 'static) -> Result<T, Fault> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Fault::internal(error.to_string()))?
}

fn not_taken(error: &impl ToString) -> Fault {
    Fault::new(FaultKind::BadRequest, error.to_string())
}

fn disk(error: &std::io::Error) -> Fault {
    Fault::internal(format!("an archive cannot be kept: {error}"))
}

/// Looks at an archive without writing anything.
async fn look(archive: &Path, limits: &BuildLimits) -> Result<(), Fault> {
    let (archive, limits) = (archive.to_owned(), limits.archive());
    blocking(move || {
        let file = std::fs::File::open(archive).map_err(|error| disk(&error))?;
        check::check(file, &limits).map_err(|error| not_taken(&error))
    })
    .await
    .map(drop)
}

async fn open(archive: &Path, tree: &Path, limits: &BuildLimits) -> Result<(), Fault> {
    let (archive, tree, limits) = (archive.to_owned(), tree.to_owned(), limits.archive());
    blocking(move || {
        let file = std::fs::File::open(archive).map_err(|error| disk(&error))?;
        unpack::unpack(file, &tree, &limits).map_err(|error| not_taken(&error))
    })
    .await
    .map(drop)
}

/// Packs what a build has made.
async fn close(folder: &UploadFolder, tree: PathBuf, limits: &BuildLimits) -> Result<NamedTempFile, Fault> {
    let (file, limits) = (folder.file().map_err(|error| disk(&error))?, limits.archive());
    blocking(move || {
        let writer = file.reopen().map_err(|error| disk(&error))?;
        pack::pack(&tree, writer, &limits).map_err(|error| not_taken(&error))?;
        Ok(file)
    })
    .await
}
