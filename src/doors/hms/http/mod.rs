//! The few requests of HTTP beside CONNECT: `GET /`, `PUT /ID` and `GET /ID`.
//!
//! Stock clients send their archive in chunks, and read the outcome of a build from a trailer, which the HTTP server of the
//! other doors does not write. So this is a server of one request for each connection, in a hundred lines around
//! `httparse`. Imports the pure parts of the door, and the bus. Invariant: a refusal is sent when the body was read to its
//! end, or to a bound, because stock clients look for an answer only then.

mod answer;
mod download;
pub(super) mod head;
mod upload;

use bytes::BytesMut;
use percent_encoding::percent_decode_str;
use tokio::io::{AsyncRead, AsyncWrite};

use super::admit::Shown;
use super::context::DoorContext;
use super::settings::NAME;
use super::wire::texts::{CANNOT_FIND, TERMINAL_BANNER};
use crate::bus::access::Access;
use crate::bus::error::Fault;
use crate::bus::security::origin::Origin;
use crate::bus::security::usage::Place;
use crate::net::http::status::status;
use crate::net::peer::Peer;
use answer::TextAnswer;
use head::{Head, HeadError};

/// A request whose head was read.
pub(super) struct Request<S> {
    pub(super) head: Head,
    pub(super) stream: S,
    /// What came behind the head.
    pub(super) read: BytesMut,
}

/// Answers a request.
pub(super) async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    context: &DoorContext,
    peer: &Peer,
    mut request: Request<S>,
) {
    let (path, query) = request.head.target.split_once('?').unwrap_or((&request.head.target, ""));
    let (id, query) = (id_of(path), query.to_owned());
    let shown = Shown { authorization: request.head.authorization.take(), token: None };
    let served = match (request.head.method.as_str(), id) {
        ("GET", _) if path == "/" => TextAnswer::new(200, TERMINAL_BANNER).send(&mut request.stream).await,
        ("PUT", Some(id)) => upload::serve(context, (peer, &shown), &mut request, (&id, &query)).await,
        ("GET", Some(id)) => download::serve(context, (peer, &shown), &mut request.stream, &id).await,
        _ => TextAnswer::new(404, format!("{CANNOT_FIND}{path}")).send(&mut request.stream).await,
    };
    if let Err(error) = served {
        tracing::debug!(%error, address = %peer.address, "a request was not answered to its end");
    }
}

/// Answers a head that cannot be read.
pub(super) async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, error: &HeadError) {
    TextAnswer::new(error.status(), error.to_string()).send(stream).await.ok();
}

/// The definition that a path names: its one part.
fn id_of(path: &str) -> Option<String> {
    let part = path.strip_prefix('/').filter(|part| !part.is_empty() && !part.contains('/'))?;
    percent_decode_str(part).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

/// Who asks.
async fn admit(context: &DoorContext, peer: &Peer, shown: &Shown) -> Result<(Access, Place), Fault> {
    shown.admit(&context.access, Origin::new(NAME, Some(peer.clone()))).await
}

/// The answer that says why there is no other.
fn refusal(fault: &Fault) -> TextAnswer {
    TextAnswer::new(status(fault.kind).as_u16(), fault.text.clone().into_owned())
}
