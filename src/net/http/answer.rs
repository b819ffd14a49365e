//! An answer, written as the client takes it.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_http::h1::Message;
use actix_http::{ConnectionType, Response, StatusCode};
use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use tokio_util::codec::Encoder as _;

use super::socket::BufferedSocket;

/// Most bytes of a body that wait to be written.
const OUT_BYTES_MAX: usize = 32 << 10;
/// What a stream keeps of its buffer while it has nothing to say, bytes.
const QUIET_BYTES_MAX: usize = 2 << 10;

/// What matters of the request.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    /// Only for the head of the answer.
    pub(super) head: bool,
    /// By a client that does not know chunks: its answer ends with the connection.
    pub(super) old: bool,
    /// The connection ends with the answer.
    pub(super) last: bool,
}

/// Writes an answer. Whether the connection can be used for another request.
///
/// # Errors
/// The client has gone, or the body broke off.
pub(super) async fn send(wire: &RefCell<BufferedSocket>, answer: Response<BoxBody>, asked: Asked) -> io::Result<bool> {
    let (mut head, mut body) = answer.into_parts();
    let size = body.size();
    let stream = size == BodySize::Stream;
    let unframed = stream && asked.old;
    if unframed {
        head.head_mut().no_chunking(true);
    }
    if unframed || asked.last {
        head.head_mut().set_connection_type(ConnectionType::Close);
    }
    let bare = matches!(head.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    {
        let wire = &mut *wire.borrow_mut();
        wire.codec.encode(Message::Item((head, size)), &mut wire.out)?;
    }
    if asked.head || bare || matches!(size, BodySize::None | BodySize::Sized(0)) {
        poll_fn(|cx| wire.borrow_mut().flush(cx)).await?;
    } else {
        let mut whole = false;
        poll_fn(|cx| carry(&mut wire.borrow_mut(), &mut body, stream, &mut whole, cx)).await?;
    }
    let keeps = wire.borrow().codec.keep_alive();
    Ok(keeps)
}

/// Moves a body to the socket as far as it goes.
fn carry(
    wire: &mut BufferedSocket,
    body: &mut BoxBody,
    stream: bool,
    whole: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    loop {
        while !*whole && wire.out.len() < OUT_BYTES_MAX {
            match Pin::new(&mut *body).poll_next(cx) {
                Poll::Ready(Some(Ok(chunk))) => wire.codec.encode(Message::Chunk(Some(chunk)), &mut wire.out)?,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(io::Error::other(error.to_string()))),
                Poll::Ready(None) => {
                    wire.codec.encode(Message::Chunk(None), &mut wire.out)?;
                    *whole = true;
                }
                Poll::Pending => break,
            }
        }
        let full = wire.out.len() >= OUT_BYTES_MAX;
        match wire.flush(cx) {
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Ready(Ok(())) if *whole => return Poll::Ready(Ok(())),
            // There may be more of the body.
            Poll::Ready(Ok(())) if full => {}
            // The body wakes us, or the socket does.
            Poll::Ready(Ok(())) | Poll::Pending => break,
        }
    }
    if stream {
        wire.relax(QUIET_BYTES_MAX);
        // Whoever has closed his side has left: his events must go to others at once.
        if wire.watch(cx).is_ready() || wire.ended {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
    }
    Poll::Pending
}
