//! The body of a request, read from the connection when the application asks for it. A slow application holds up nobody
//! else, and bytes that nobody wants are not kept.

use std::cell::RefCell;
use std::future::Future as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::error::PayloadError;
use actix_http::h1::Message;
use bytes::Bytes;
use futures_util::Stream;
use tokio::time::Sleep;
use tokio_util::codec::Decoder as _;

use super::socket::BufferedSocket;

/// Longest time without a byte of a body. A door may bound the time of the whole body.
const SILENCE_MAX: Duration = Duration::from_secs(30);
/// The interim answer that a client may wait for before it sends its body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The body of one request. After the end of the request it reads nothing.
pub(super) struct Incoming {
    /// The connection.
    wire: Rc<RefCell<BufferedSocket>>,
    /// Number of the request.
    request: u64,
    /// Ends the wait for the next bytes.
    silence: Option<Pin<Box<Sleep>>>,
}

impl Incoming {
    /// The body of the present request.
    pub(super) fn new(wire: &Rc<RefCell<BufferedSocket>>) -> Self {
        Self { wire: Rc::clone(wire), request: wire.borrow().request, silence: None }
    }
}

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { wire, request, silence } = &mut *self;
        let mut wire = wire.borrow_mut();
        let wire = &mut *wire;
        while wire.body && wire.request == *request {
            match wire.codec.decode(&mut wire.read) {
                Ok(Some(Message::Chunk(Some(chunk)))) => {
                    wire.waits = false;
                    return Poll::Ready(Some(Ok(chunk)));
                }
                Ok(Some(Message::Chunk(None))) => {
                    wire.body = false;
                    break;
                }
                // A request where a body was expected cannot be, or the codec is not in step.
                Ok(Some(Message::Item(_))) | Err(_) => return Poll::Ready(Some(Err(PayloadError::EncodingCorrupted))),
                Ok(None) => {}
            }
            if wire.ended {
                return Poll::Ready(Some(Err(PayloadError::Incomplete(None))));
            }
            if std::mem::take(&mut wire.waits) {
                wire.out.extend_from_slice(CONTINUE);
            }
            if let Err(error) = ready!(wire.flush(cx)) {
                return Poll::Ready(Some(Err(PayloadError::Io(error))));
            }
            match wire.fill(cx) {
                Poll::Ready(Ok(_)) => *silence = None,
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(PayloadError::Incomplete(Some(error))))),
                Poll::Pending => {
                    let silence = silence.get_or_insert_with(|| Box::pin(tokio::time::sleep(SILENCE_MAX)));
                    ready!(silence.as_mut().poll(cx));
                    return Poll::Ready(Some(Err(PayloadError::Incomplete(Some(io::ErrorKind::TimedOut.into())))));
                }
            }
        }
        Poll::Ready(None)
    }
}
