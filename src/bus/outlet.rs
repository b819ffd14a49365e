//! The way out to one client: a few chunks of bytes between an actor and a response body.
//!
//! Both ends live on one thread, so there is no lock. The writer waits while too much is
//! queued; the body hands over everything that is there in one piece, so that many
//! events go out in one write.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};

/// The writer waits while this many bytes are queued.
const QUEUE_BYTES_MAX: usize = 256 << 10;
/// Chunks are joined up to this size.
pub(super) const JOIN_BYTES_MAX: usize = 64 << 10;

#[derive(Default)]
struct Shared {
    chunks: VecDeque<Bytes>,
    bytes: usize,
    ended: bool,
    reader_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
    leaver: Option<Waker>,
}

/// The writing end.
#[derive(Clone)]
pub struct Outlet {
    shared: Rc<RefCell<Shared>>,
}

impl std::fmt::Debug for Outlet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Outlet").finish_non_exhaustive()
    }
}

/// The reading end: the body of a response. Dropping it is how a client leaves.
#[derive(Debug)]
pub struct Body {
    outlet: Outlet,
}

/// A new pair.
#[must_use]
pub fn pair() -> (Outlet, Body) {
    let outlet = Outlet { shared: Rc::default() };
    (outlet.clone(), Body { outlet })
}

impl Outlet {
    /// Queues a chunk. Nothing happens when the client has gone.
    pub fn push(&self, chunk: Bytes) {
        let mut shared = self.shared.borrow_mut();
        if shared.reader_gone || shared.ended || chunk.is_empty() {
            return;
        }
        shared.bytes = shared.bytes.saturating_add(chunk.len());
        shared.chunks.push_back(chunk);
        wake(shared.reader.take());
    }

    /// Ends the stream behind what is queued.
    pub fn end(&self) {
        let mut shared = self.shared.borrow_mut();
        shared.ended = true;
        wake(shared.reader.take());
    }

    /// Waits until there is room; `false` when the client has gone.
    pub async fn ready(&self) -> bool {
        poll_fn(|cx| {
            let mut shared = self.shared.borrow_mut();
            if shared.reader_gone || shared.ended {
                return Poll::Ready(false);
            }
            if shared.bytes < QUEUE_BYTES_MAX {
                return Poll::Ready(true);
            }
            shared.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Waits until the client has gone.
    pub async fn gone(&self) {
        poll_fn(|cx| {
            let mut shared = self.shared.borrow_mut();
            if shared.reader_gone {
                return Poll::Ready(());
            }
            shared.leaver = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether the writer should wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.borrow().bytes >= QUEUE_BYTES_MAX
    }

    /// Whether the client has gone.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.shared.borrow().reader_gone
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Body {
    /// What waits, in one piece; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await?.ok()
    }
}

impl MessageBody for Body {
    type Error = std::convert::Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let mut shared = self.outlet.shared.borrow_mut();
        let Some(first) = shared.chunks.pop_front() else {
            if shared.ended {
                return Poll::Ready(None);
            }
            shared.reader = Some(cx.waker().clone());
            return Poll::Pending;
        };
        let chunk = join(first, &mut shared.chunks);
        shared.bytes = shared.bytes.saturating_sub(chunk.len());
        if shared.bytes < QUEUE_BYTES_MAX {
            wake(shared.writer.take());
        }
        if shared.chunks.is_empty() {
            // Thousands of streams are idle at a time: an empty queue keeps no memory.
            shared.chunks = VecDeque::new();
        }
        Poll::Ready(Some(Ok(chunk)))
    }
}

fn join(first: Bytes, rest: &mut VecDeque<Bytes>) -> Bytes {
    let fits = |size: usize, next: Option<&Bytes>| next.is_some_and(|n| size.saturating_add(n.len()) <= JOIN_BYTES_MAX);
    if !fits(first.len(), rest.front()) {
        return first;
    }
    let mut joined = BytesMut::from(first.as_ref());
    while fits(joined.len(), rest.front()) {
        if let Some(next) = rest.pop_front() {
            joined.extend_from_slice(&next);
        }
    }
    joined.freeze()
}

impl Drop for Body {
    fn drop(&mut self) {
        let mut shared = self.outlet.shared.borrow_mut();
        shared.reader_gone = true;
        shared.chunks = VecDeque::new();
        wake(shared.writer.take());
        wake(shared.leaver.take());
    }
}
