//! The body of a request, taken from its connection as it is asked for: whoever reads slowly holds up nobody else, and
//! nothing is kept that nobody wants.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use actix_http::error::PayloadError;
use actix_http::h1::Message;
use bytes::Bytes;
use futures_util::Stream;
use tokio_util::codec::Decoder as _;

use super::wire::Wire;

/// What a client waits for that has a long body.
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// The body of the request in hand.
pub(super) struct Incoming(pub(super) Rc<RefCell<Wire>>);

impl Stream for Incoming {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut wire = self.0.borrow_mut();
        let wire = &mut *wire;
        while wire.body {
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
            if let Err(error) = ready!(wire.fill(cx)) {
                return Poll::Ready(Some(Err(PayloadError::Incomplete(Some(error)))));
            }
        }
        Poll::Ready(None)
    }
}
