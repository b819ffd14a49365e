//! The calls of one client that are being answered.

use std::task::{Context as Task, Poll};

use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};

/// Most bytes of the calls of one client that are being answered. More are not read meanwhile.
const CALLS_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The calls of a client that are being answered. They end when this is dropped.
#[derive(Debug, Default)]
pub struct CallsInFlight {
    /// Each resolves to its bytes when it has been answered.
    calls: FuturesUnordered<LocalBoxFuture<'static, usize>>,
    bytes: usize,
}

impl CallsInFlight {
    /// Begins to answer a call of so many bytes. The first poll hands proposals over, so it is done at once: calls keep
    /// their order.
    pub fn begin(&mut self, answer: impl Future<Output = ()> + 'static, bytes: usize, task: &mut Task<'_>) {
        let mut call = answer.map(move |()| bytes).boxed_local();
        if call.poll_unpin(task).is_pending() {
            self.bytes = self.bytes.saturating_add(bytes);
            self.calls.push(call);
        }
    }

    /// The number of calls.
    #[must_use]
    pub fn count(&self) -> usize {
        self.calls.len()
    }

    /// Whether there is room for another call, in bytes.
    #[must_use]
    pub const fn has_room(&self) -> bool {
        self.bytes < CALLS_BYTES_MAX
    }

    /// Goes on with the calls. Returns whether one was answered.
    pub fn progress(&mut self, task: &mut Task<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(bytes)) = self.calls.poll_next_unpin(task) {
            self.bytes = self.bytes.saturating_sub(bytes);
            moved = true;
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use futures_util::task::noop_waker_ref;
    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn calls_begin_in_their_order_and_count_until_they_are_answered() {
        let mut task = Task::from_waker(noop_waker_ref());
        let (mut calls, begun) = (CallsInFlight::default(), Rc::new(Cell::new(0)));
        let mut ends = Vec::new();
        for place in 0..3 {
            let (end, ended) = oneshot::channel::<()>();
            ends.push(end);
            let begun = Rc::clone(&begun);
            let answer = async move {
                assert_eq!(begun.replace(place + 1), place);
                ended.await.ok();
            };
            calls.begin(answer, CALLS_BYTES_MAX / 3 + 1, &mut task);
        }
        assert_eq!((begun.get(), calls.count(), calls.has_room()), (3, 3, false));
        assert!(!calls.progress(&mut task));
        ends.pop().unwrap().send(()).unwrap();
        assert!(calls.progress(&mut task));
        assert_eq!((calls.count(), calls.has_room()), (2, true));
        calls.begin(std::future::ready(()), 1, &mut task);
        assert_eq!(calls.count(), 2);
    }
}
