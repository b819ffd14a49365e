//! Output of processes for one reader, in a queue that is bounded in bytes.
//!
//! Invariant: whoever reads too slowly misses output, and is told how much.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::hub::DockHub;
use super::output::{self, Gaps, Output};
use super::process_filter::ProcessFilter;
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::error::Fault;
use crate::bus::live::message::{Delivered, LiveMessage, LiveSink};
use crate::bus::live::subjects::LiveSubscription;
use crate::bus::security::identity::Identity;
use crate::bus::security::usage::Place;

/// Most bytes that wait for one reader.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// What a message costs beside its data.
const MESSAGE_BYTES: usize = 128;
/// How long what a reader may see is remembered.
const RIGHTS_MAX: Duration = Duration::from_secs(1);

/// What a reader gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TailItem {
    /// A message of a process.
    Output(Output),
    /// So many messages were not read in time.
    Dropped(u64),
    /// Nothing follows: the node stops, or the credential of the reader does not count any more.
    End,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Output>,
    bytes: usize,
    dropped: u64,
    gaps: Gaps,
}

#[derive(Debug)]
struct Queue {
    filter: ProcessFilter,
    state: Mutex<State>,
    more: Notify,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LiveSink for Queue {
    fn deliver(&self, _: u64, message: &LiveMessage) -> Delivered {
        let Some(output) = output::read(message).filter(|output| self.filter.has(output)) else {
            return Delivered::Queued;
        };
        let mut state = self.lock();
        let missed = state.gaps.before(&output);
        state.dropped = state.dropped.saturating_add(missed);
        let bytes = output.data.len().saturating_add(MESSAGE_BYTES);
        if state.bytes > 0 && state.bytes.saturating_add(bytes) > BYTES_MAX {
            state.dropped = state.dropped.saturating_add(1);
            return Delivered::Queued;
        }
        state.bytes = state.bytes.saturating_add(bytes);
        // What came from another node shares the memory of a whole batch.
        let data = Bytes::copy_from_slice(&output.data);
        state.waiting.push_back(Output { data, ..output });
        Delivered::Sleeping
    }

    fn wake(&self) {
        self.more.notify_one();
    }

    fn client(&self) -> u64 {
        0
    }
}

/// Follows the output of a process, or of all, until this is dropped.
#[derive(Debug)]
pub struct Tail {
    hub: DockHub,
    queue: Arc<Queue>,
    /// When the rights of the reader were looked at last.
    checked: Instant,
    /// Its place among the streams of its principal.
    _place: Place,
    _subscription: LiveSubscription,
}

impl DockHub {
    /// Follows a process, or all that the client may see, from now on.
    ///
    /// # Errors
    /// [`FaultKind::NotFound`]: there is no such definition. The client or the node has too many streams.
    pub async fn tail(&self, who: Arc<Identity>, id: Option<&str>) -> Result<Tail, Fault> {
        self.check_follow(&who, id).await?;
        let _place = who.usage().stream()?;
        let filter = output::filter(id).ok_or_else(|| Fault::new(FaultKind::NotFound, "no definition has this id"))?;
        let queue = Arc::new(Queue { filter: ProcessFilter::new(who), state: Mutex::default(), more: Notify::new() });
        let (subjects, sink) = (self.client().bus().live_subjects(), Arc::clone(&queue));
        let subscription = subjects.subscribe(filter, "", (sink, 0), true);
        let _subscription = subscription.map_err(|full| Fault::overloaded(full.to_string()))?;
        Ok(Tail { hub: self.clone(), queue, checked: clock::now(), _place, _subscription })
    }
}

impl Tail {
    /// What comes next.
    pub async fn next(&mut self) -> TailItem {
        loop {
            if self.is_over() {
                return TailItem::End;
            }
            {
                let mut state = self.queue.lock();
                if let Some(output) = state.waiting.pop_front() {
                    let bytes = output.data.len().saturating_add(MESSAGE_BYTES);
                    state.bytes = state.bytes.saturating_sub(bytes);
                    return TailItem::Output(output);
                }
                if state.dropped > 0 {
                    return TailItem::Dropped(std::mem::take(&mut state.dropped));
                }
            }
            tokio::select! {
                () = self.hub.draining().cancelled() => return TailItem::End,
                () = self.queue.more.notified() => {}
                () = tokio::time::sleep(RIGHTS_MAX) => {}
            }
        }
    }

    /// Looks at the rights of the reader now and then. Whether its credential does not count any more.
    fn is_over(&mut self) -> bool {
        if clock::now().saturating_duration_since(self.checked) < RIGHTS_MAX {
            return false;
        }
        self.checked = clock::now();
        self.queue.filter.forget();
        self.hub.client().bus().authority().lost(self.queue.filter.identity()).is_some()
    }
}
