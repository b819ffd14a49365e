//! The download of a build.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::super::store::builds::{Builds, discard};
use super::head::read_head;
use super::node_address::NodeAddress;
use crate::base::archive::limits::Limits;
use crate::base::archive::unpack::unpack as unpack_archive;
use crate::doors::hms::wire::texts::NO_BUILD_FETCHED;
use crate::net::framed_body::FramedBody;

/// How long a download may take.
const DOWNLOAD_MAX: Duration = Duration::from_secs(60 * 60);
/// How long a node may send nothing.
const SILENCE_MAX: Duration = Duration::from_secs(30);

/// Brings the build of a service to `path`. Nothing is at `path` when that fails.
///
/// # Errors
///
/// The text of the protocol, with the reason behind it when there is more to say than that the node has no build.
pub(crate) async fn fetch_build(
    node: Option<NodeAddress>,
    builds: &Builds,
    service: &str,
    path: &Path,
) -> Result<(), String> {
    let Some(node) = node else { return Err(NO_BUILD_FETCHED.into()) };
    let (archive, unpacked) = builds.incoming(&uuid::Uuid::new_v4().simple().to_string());
    let downloaded = timeout(DOWNLOAD_MAX, download(&node, service, &archive)).await;
    let fetched = match downloaded.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
        Ok(()) => unpack(&archive, &unpacked).await,
        Err(error) => Err(error),
    };
    let installed = fetched.and_then(|()| builds.install(&unpacked, path));
    remove_incoming(archive, unpacked).await;
    installed.map_err(|error| {
        tracing::warn!(service, node = node.address, %error, "could not fetch the build");
        match error.kind() {
            io::ErrorKind::NotFound => NO_BUILD_FETCHED.to_owned(),
            _ => format!("{NO_BUILD_FETCHED}: {error}"),
        }
    })
}

/// Removes what is left of a download, on another thread: a build may have many files.
async fn remove_incoming(archive: PathBuf, unpacked: PathBuf) {
    let removed = spawn_blocking(move || {
        discard(&archive);
        discard(&unpacked);
    });
    if let Err(error) = removed.await {
        tracing::error!(%error, "could not remove a download");
    }
}

/// Downloads to a file. A status other than 200 is [`io::ErrorKind::NotFound`].
async fn download(node: &NodeAddress, service: &str, archive: &Path) -> io::Result<()> {
    let mut stream = node.request("GET", &format!("/{service}"), "close").await?;
    let (head, buffer) = timeout(node.connect_timeout.saturating_mul(6), read_head(&mut stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    if head.status != 200 {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("the node answers {}", head.status)));
    }
    let mut file = tokio::fs::File::create(archive).await?;
    let mut body = FramedBody::new(stream, buffer, head.framing);
    let mut bytes = 0_u64;
    let silent = |_| io::Error::from(io::ErrorKind::TimedOut);
    while let Some(piece) = timeout(SILENCE_MAX, body.next()).await.map_err(silent)?? {
        bytes = bytes.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if bytes > Limits::MOST.compressed_bytes {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the build is larger than 1 GiB"));
        }
        file.write_all(&piece).await?;
    }
    file.flush().await
}

/// Unpacks into a new folder, and sees that the folder is on the disk: a build that has its place is complete for good.
async fn unpack(archive: &Path, unpacked: &Path) -> io::Result<()> {
    let (archive, unpacked) = (archive.to_owned(), unpacked.to_owned());
    let work = move || {
        unpack_archive(File::open(archive)?, &unpacked, &Limits::MOST).map_err(io::Error::other)?;
        rustix::fs::syncfs(File::open(&unpacked)?).map_err(io::Error::from)
    };
    spawn_blocking(work).await.map_err(io::Error::other)?
}
