//! `GET /ID`: the newest build of a definition.

use std::io;
use std::pin::pin;

use futures_util::StreamExt as _;
use rollbook_core::security::principal::Kind;
use rollbook_core::security::right::Verb;
use tokio::io::AsyncWrite;

use super::answer::{end, write};
use super::{admit, refusal};
use crate::bus::docks::builds::read;
use crate::bus::error::Fault;
use crate::bus::security::identity::Identity;
use crate::doors::hms::admit::Shown;
use crate::doors::hms::context::DoorContext;
use crate::net::peer::Peer;

/// Docks fetch what they are told to run; others need the right.
fn check(who: &Identity, id: &str) -> Result<(), Fault> {
    if who.principal().kind() == Kind::Dock { Ok(()) } else { who.check(Verb::Process, &format!("all/{id}")) }
}

pub(super) async fn serve<S: AsyncWrite + Unpin>(
    context: &DoorContext,
    (peer, shown): (&Peer, &Shown),
    stream: &mut S,
    id: &str,
) -> io::Result<()> {
    let client = context.docks.client().clone();
    let found = async {
        let (access, _place) = admit(context, peer, shown).await?;
        check(access.identity(), id)?;
        context.docks.fresh().await?;
        read::find(&client, id)
    };
    let build = match found.await {
        Ok(build) => build,
        Err(fault) => return refusal(&fault).send(stream).await,
    };
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/gzip\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        build.bytes
    );
    write(stream, head.as_bytes()).await?;
    let mut chunks = pin!(read::stream(client, build));
    while let Some(chunk) = chunks.next().await {
        // The length is announced, so whoever gets less knows that it is not all.
        let chunk = chunk.map_err(|fault| io::Error::other(fault.to_string()))?;
        write(stream, &chunk).await?;
    }
    end(stream).await
}
