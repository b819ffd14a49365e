//! `PUT /ID?revision=R`: an archive becomes the build of a definition.

use std::io;

use bytes::Bytes;
use futures_util::stream::try_unfold;
use tempfile::NamedTempFile;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

use super::answer::{Chunks, TextAnswer, nothing, write};
use super::{Request, admit, refusal};
use crate::base::fault::FaultKind;
use crate::bus::access::Access;
use crate::bus::docks::builds::deploy::Deployed;
use crate::bus::docks::builds::folders::{ReceiveError, UploadFolder};
use crate::bus::docks::definition::Definition;
use crate::bus::error::Fault;
use crate::bus::security::usage::Place;
use crate::doors::hms::admit::Shown;
use crate::doors::hms::context::DoorContext;
use crate::doors::hms::wire::texts::SERVICE_NOT_FOUND;
use crate::net::framed_body::FramedBody;
use crate::net::peer::Peer;

/// Most bytes of a body that is read only to be refused behind it.
const REFUSED_BYTES_MAX: u64 = 64 * 1024 * 1024;

pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    context: &DoorContext,
    (peer, shown): (&Peer, &Shown),
    request: &mut Request<S>,
    (id, query): (&str, &str),
) -> io::Result<()> {
    let prepared = prepare(context, (peer, shown), id).await;
    if request.head.expects_continue && prepared.is_ok() {
        write(&mut request.stream, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
    }
    let (read, framing) = (std::mem::take(&mut request.read), request.head.framing);
    let arrival = async {
        let body = FramedBody::new(&mut request.stream, read, framing);
        match prepared {
            Ok(prepared) => Ok(receive(&prepared.folder, body).await?.map(|archive| (prepared, archive))),
            Err(fault) => {
                // A client that waits to be told sends no body.
                if !request.head.expects_continue {
                    drain(body).await?;
                }
                Ok(Err(refusal_of(&fault)))
            }
        }
    };
    let arrived = tokio::time::timeout(context.settings.upload_timeout, arrival).await;
    let arrived: io::Result<_> = arrived.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    match arrived? {
        Ok((prepared, archive)) => answer(context, prepared, (archive, &revision(query)), &mut request.stream).await,
        Err(refused) => refused.with_trailer().send(&mut request.stream).await,
    }
}

fn refusal_of(fault: &Fault) -> TextAnswer {
    if fault.kind == FaultKind::NotFound { TextAnswer::new(404, SERVICE_NOT_FOUND) } else { refusal(fault) }
}

/// What an upload needs before its body is read.
struct Prepared {
    access: Access,
    _place: Place,
    definition: Definition,
    folder: UploadFolder,
}

async fn prepare(context: &DoorContext, (peer, shown): (&Peer, &Shown), id: &str) -> Result<Prepared, Fault> {
    let (access, place) = admit(context, peer, shown).await?;
    let definition = context.docks.check_deploy(access.identity(), id).await?;
    let folder = context.docks.build_folders().open_upload()?;
    Ok(Prepared { access, _place: place, definition, folder })
}

/// The revision of the query; empty when there is none.
fn revision(query: &str) -> String {
    let mut members = form_urlencoded::parse(query.as_bytes());
    members.find(|(name, _)| name == "revision").map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// Receives the archive, and reads what remains of a body whose archive is not kept.
async fn receive<S: AsyncRead + Unpin>(
    folder: &UploadFolder,
    mut body: FramedBody<&mut S>,
) -> io::Result<Result<NamedTempFile, TextAnswer>> {
    let pieces = try_unfold(&mut body, |body| async { Ok(body.next().await?.map(|bytes| (bytes, body))) });
    let refused = match folder.receive(pieces).await {
        Ok(archive) => return Ok(Ok(archive)),
        Err(ReceiveError::Body(error)) => return Err(error),
        Err(ReceiveError::TooLarge(most)) => TextAnswer::new(413, format!("an archive has at most {most} bytes")),
        Err(ReceiveError::Disk(error)) => TextAnswer::new(500, format!("an archive cannot be kept: {error}")),
    };
    drain(body).await?;
    Ok(Err(refused))
}

/// Reads a body to its end, or to a bound.
async fn drain<S: AsyncRead + Unpin>(mut body: FramedBody<&mut S>) -> io::Result<()> {
    let mut read = 0_u64;
    while let Some(bytes) = body.next().await? {
        read = read.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        if read > REFUSED_BYTES_MAX {
            break;
        }
    }
    Ok(())
}

/// Deploys, and sends what the build writes while it writes.
async fn answer<S: AsyncRead + AsyncWrite + Unpin>(
    context: &DoorContext,
    prepared: Prepared,
    (archive, revision): (NamedTempFile, &str),
    stream: &mut S,
) -> io::Result<()> {
    let Prepared { access, definition, folder, _place } = prepared;
    let (output, mut came) = mpsc::channel::<Bytes>(8);
    let deploying = async {
        let what = (&definition, revision);
        let deployed = context.docks.deploy(access.identity(), what, (&folder, archive), &output).await;
        // Others may upload while the end of the output is read.
        drop((output, folder));
        deployed
    };
    let mut sent = Sent { stream: Some(stream), chunks: None };
    // The receiver ends with this: whoever has gone ends the build, because nothing takes its output.
    let sending = async move {
        while let Some(bytes) = came.recv().await {
            sent.send(&bytes).await?;
        }
        Ok::<_, io::Error>(sent)
    };
    let (deployed, sent) = tokio::join!(deploying, sending);
    let mut sent = sent?;
    match deployed {
        Ok(Deployed::Stored) => sent.nothing().await,
        Ok(Deployed::Built) => sent.end(200).await,
        Ok(Deployed::Failed(why)) => {
            tracing::info!(definition = definition.id(), why, "a build has failed");
            sent.end_with(&format!("{why}\n")).await
        }
        Err(fault) => {
            let status = if fault.kind == FaultKind::NotFound { 404 } else { 500 };
            let text = if status == 404 { SERVICE_NOT_FOUND.to_owned() } else { fault.text.into_owned() };
            sent.refuse(status, text).await
        }
    }
}

/// What was sent of an answer.
struct Sent<'s, S> {
    stream: Option<&'s mut S>,
    chunks: Option<Chunks<'s, S>>,
}

impl<'s, S: AsyncRead + AsyncWrite + Unpin> Sent<'s, S> {
    /// Sends output of the build: the status of the answer is 200 from then on.
    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(stream) = self.stream.take() {
            self.chunks = Some(Chunks::begin(stream, 200, "text/plain; charset=utf-8").await?);
        }
        match &mut self.chunks {
            Some(chunks) => chunks.send(bytes).await,
            None => Ok(()),
        }
    }

    async fn nothing(&mut self) -> io::Result<()> {
        match self.stream.take() {
            Some(stream) => nothing(stream).await,
            None => Ok(()),
        }
    }

    async fn end(&mut self, status: u16) -> io::Result<()> {
        self.send(&[]).await?;
        match self.chunks.take() {
            Some(chunks) => chunks.end(Some(status)).await,
            None => Ok(()),
        }
    }

    /// The build has failed: its output ends with why, and stock clients see the trailer.
    async fn end_with(&mut self, why: &str) -> io::Result<()> {
        if let Some(stream) = self.stream.take() {
            return TextAnswer::new(500, why).with_trailer().send(stream).await;
        }
        self.send(why.as_bytes()).await?;
        self.end(500).await
    }

    async fn refuse(&mut self, status: u16, text: String) -> io::Result<()> {
        if let Some(stream) = self.stream.take() {
            return TextAnswer::new(status, text).with_trailer().send(stream).await;
        }
        self.send(text.as_bytes()).await?;
        self.end(status).await
    }
}
