//! A bounded queue of bytes between a subscription and its response body.
//!
//! Both ends live on one thread, so there is no lock. The writer waits while too many bytes are queued. The body hands
//! over everything that is queued in one piece, so that many events leave in one write.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use actix_web::body::{BodySize, MessageBody};
use bytes::{Bytes, BytesMut};

use crate::base::actors::Hold;

/// The writer waits while this many bytes are queued.
const QUEUE_BYTES_MAX: usize = 256 << 10;
/// Chunks are joined up to this size.
pub const JOIN_BYTES_MAX: usize = 64 << 10;

/// The state that both ends share.
#[derive(Default)]
struct Shared {
    /// The queue.
    chunks: VecDeque<Bytes>,
    /// Bytes in the queue.
    bytes: usize,
    /// Bytes that were ever queued.
    queued: u64,
    /// How many of them the connection has taken. Bytes count as taken when the connection asks for more.
    taken: u64,
    /// The writer has ended the stream.
    ended: bool,
    /// The body was dropped: the client has gone.
    reader_gone: bool,
    /// Wakes the body.
    reader: Option<Waker>,
    /// Wakes the writer.
    writer: Option<Waker>,
    /// Tasks that wait until their bytes are taken. Each has at most one copy of an event in the queue.
    watchers: Vec<Waker>,
    /// Keeps the actor that writes. The actor serves this client alone and ends when the client leaves.
    hold: Option<Hold>,
}

/// A position in the bytes that were ever queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

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

/// The reading end: the body of a response. The client has left when this is dropped.
#[derive(Debug)]
pub struct Body {
    outlet: Outlet,
}

/// A new queue.
#[must_use]
pub fn pair() -> (Outlet, Body) {
    let outlet = Outlet { shared: Rc::default() };
    (outlet.clone(), Body { outlet })
}

impl Outlet {
    /// Queues a chunk. Does nothing when the client has gone.
    pub fn push(&self, chunk: Bytes) {
        let mut shared = self.shared.borrow_mut();
        if shared.reader_gone || shared.ended || chunk.is_empty() {
            return;
        }
        shared.bytes = shared.bytes.saturating_add(chunk.len());
        shared.queued = shared.queued.saturating_add(length(chunk.len()));
        shared.chunks.push_back(chunk);
        wake(shared.reader.take());
    }

    /// Ends the stream behind what is queued.
    pub fn end(&self) {
        let mut shared = self.shared.borrow_mut();
        shared.ended = true;
        wake(shared.reader.take());
        wake(shared.writer.take());
    }

    /// Keeps the actor that writes until the client leaves. When the client has left already, the actor ends at once.
    pub fn hold(&self, hold: Hold) {
        let mut shared = self.shared.borrow_mut();
        if !shared.reader_gone {
            shared.hold = Some(hold);
        }
    }

    /// The actor that writes keeps itself from now on; `None` when the client has left, and the actor with it.
    #[must_use]
    pub fn release_hold(&self) -> Option<Hold> {
        self.shared.borrow_mut().hold.take()
    }

    /// Waits until there is room. Returns `false` when the client has gone.
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

    /// The end of what was queued so far.
    #[must_use]
    pub fn mark(&self) -> Mark {
        Mark(self.shared.borrow().queued)
    }

    /// Waits until the connection has taken everything up to a mark and asks for more. Returns `false` when the client
    /// has gone before that.
    pub async fn taken(&self, Mark(mark): Mark) -> bool {
        poll_fn(|cx| {
            let mut shared = self.shared.borrow_mut();
            if shared.taken >= mark {
                return Poll::Ready(true);
            }
            if shared.reader_gone {
                return Poll::Ready(false);
            }
            if !shared.watchers.iter().any(|watcher| watcher.will_wake(cx.waker())) {
                shared.watchers.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until the client has gone.
    #[cfg(test)]
    pub async fn gone(&self) {
        poll_fn(|cx| {
            let mut shared = self.shared.borrow_mut();
            if shared.reader_gone {
                return Poll::Ready(());
            }
            shared.watchers.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether the writer should wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.shared.borrow().bytes >= QUEUE_BYTES_MAX
    }

    /// Whether a chunk that is queued now may reach the client.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let shared = self.shared.borrow();
        !shared.reader_gone && !shared.ended
    }
}

/// A number of bytes as it is counted.
fn length(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl Body {
    /// Everything that is queued, in one piece; `None` at the end.
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
        shared.taken = shared.queued.saturating_sub(length(shared.bytes));
        shared.watchers.drain(..).for_each(Waker::wake);
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
        drop(shared.hold.take());
        shared.watchers.drain(..).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[actix_web::test]
    async fn what_was_taken_is_known_and_what_a_client_left_behind_too() {
        let (outlet, mut body) = pair();
        let before = outlet.mark();
        assert!(outlet.taken(before).await, "there was nothing");
        outlet.push(Bytes::from(vec![1; 100 << 10]));
        let first = outlet.mark();
        outlet.push(Bytes::from(vec![2; 100 << 10]));
        let second = outlet.mark();
        let (waits, late) = (outlet.clone(), outlet.clone());
        let waits = actix_web::rt::spawn(async move { waits.taken(second).await });
        actix_web::rt::task::yield_now().await;
        assert_eq!(body.next().await.map(|chunk| chunk.len()), Some(100 << 10));
        let early = tokio::time::timeout(Duration::from_millis(20), outlet.taken(first)).await;
        assert!(early.is_err(), "it may still be in the buffers of the connection");
        assert_eq!(body.next().await.map(|chunk| chunk.len()), Some(100 << 10));
        assert!(outlet.taken(first).await);
        actix_web::rt::task::yield_now().await;
        assert!(!waits.is_finished(), "of the second one nobody can say");
        drop(body);
        assert!(!waits.await.unwrap());
        assert!(late.taken(first).await && !late.taken(second).await, "also when asked later");
    }
}
