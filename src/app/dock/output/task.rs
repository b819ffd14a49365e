//! The task that rotates the files of one service and brings what is new to the hub.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::doors::hms::wire::op::Op;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::base::actors::hint;

use super::super::report::outbox::Outbox;
use super::super::report::room::Room;
use super::super::report::subscriptions::{Interest, SubscriptionKeys, Subscriptions};
use super::log_file::LogFile;
use super::tail::Tail;

/// The pause between two looks at a file that grows.
const SHORT_PAUSE: Duration = Duration::from_millis(20);
/// The pause between two looks at a file that does not grow.
const LONG_PAUSE: Duration = Duration::from_millis(250);
/// How long the place of the reading is kept when the hub is gone. A hub that subscribes again within this time misses
/// nothing.
const RESUME_WITHIN: Duration = Duration::from_secs(60);
/// How long the last output of an ended process may take to the hub before its exit is told anyway.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// Chunks of both files before other services have their turn.
const CHUNKS_AT_ONCE: usize = 16;

/// The output of one service.
#[derive(Debug)]
pub(crate) struct Output {
    stdout: Arc<LogFile>,
    stderr: Arc<LogFile>,
    drains: mpsc::Sender<oneshot::Sender<()>>,
    held: Arc<AtomicUsize>,
    _task: AbortOnDropHandle<()>,
}

impl Output {
    /// Opens the files of a service in `folder`, and reads what comes from now on.
    ///
    /// # Errors
    ///
    /// The files cannot be made.
    pub(crate) fn open(
        folder: &Path,
        service: &str,
        max_bytes: u64,
        outbox: &Arc<Outbox>,
        subscriptions: &Arc<Subscriptions>,
    ) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let open = |name: &str| LogFile::open(&folder.join(name), max_bytes).map(Arc::new);
        let (stdout, stderr) = (open("out.log")?, open("err.log")?);
        let (drains, drain_requests) = mpsc::channel(4);
        let held = Arc::<AtomicUsize>::default();
        let task = Task {
            service: service.to_owned(),
            streams: [(Op::Stdout, Tail::new(Arc::clone(&stdout))), (Op::Stderr, Tail::new(Arc::clone(&stderr)))],
            room: None,
            outbox: Arc::clone(outbox),
            changes: subscriptions.changes(),
            subscriptions: Arc::clone(subscriptions),
            last_wanted: None,
            follows: true,
            held: Arc::clone(&held),
            drain_requests,
        };
        Ok(Self { stdout, stderr, drains, held, _task: AbortOnDropHandle::new(tokio::spawn(task.run())) })
    }

    /// The handles that a process writes to.
    ///
    /// # Errors
    ///
    /// The files cannot be opened.
    pub(crate) fn writers(&self) -> io::Result<(File, File)> {
        Ok((self.stdout.writer()?, self.stderr.writer()?))
    }

    /// The file of the standard output and its present size.
    pub(crate) fn stdout(&self) -> (PathBuf, u64) {
        (self.stdout.path().to_owned(), self.stdout.size())
    }

    /// Writes a line of the agent into the standard error of the service.
    pub(crate) fn note(&self, text: &str) {
        let written =
            self.stderr.writer().and_then(|mut file| file.write_all(format!("rollbook: {text}\n").as_bytes()));
        if let Err(error) = written {
            tracing::warn!(%error, text, "could not write into the output of a service");
        }
    }

    /// Holds output back from the hub until the guard is dropped: what a new process writes comes after its spawn.
    pub(crate) fn hold(&self) -> Hold {
        self.held.fetch_add(1, Ordering::Relaxed);
        Hold { held: Arc::clone(&self.held) }
    }

    /// Waits until the hub was sent all that was written before, or for a second.
    pub(crate) async fn drain(&self) {
        let (done, is_done) = oneshot::channel();
        if self.drains.try_send(done).is_ok() {
            timeout(DRAIN_TIMEOUT, is_done).await.ok();
        }
    }
}

/// Holds output back until dropped.
#[derive(Debug)]
pub(crate) struct Hold {
    held: Arc<AtomicUsize>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.held.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Task {
    service: String,
    /// The streams, with the one first whose turn it is.
    streams: [(Op, Tail); 2],
    /// Room that was waited for.
    room: Option<Room>,
    outbox: Arc<Outbox>,
    subscriptions: Arc<Subscriptions>,
    changes: watch::Receiver<SubscriptionKeys>,
    /// When the hub last wanted the output.
    last_wanted: Option<Instant>,
    /// True while the place of the reading counts; false while everything is passed over.
    follows: bool,
    held: Arc<AtomicUsize>,
    drain_requests: mpsc::Receiver<oneshot::Sender<()>>,
}

/// How far one look at the files came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Progress {
    Nothing,
    Growth,
    /// There is more, and the hub has to read first.
    Blocked,
    /// There is more.
    More,
}

impl Task {
    async fn run(mut self) {
        let mut pause = SHORT_PAUSE;
        let mut drains: Vec<oneshot::Sender<()>> = Vec::new();
        loop {
            self.rotate().await;
            match self.look(!drains.is_empty()) {
                Progress::More => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Progress::Blocked => {
                    self.wait_for_room().await;
                    continue;
                }
                Progress::Growth => pause = SHORT_PAUSE,
                Progress::Nothing => pause = (pause * 2).min(LONG_PAUSE),
            }
            for done in drains.drain(..) {
                // Whoever asked may have given up.
                hint(done, ());
            }
            tokio::select! {
                () = sleep(pause) => {}
                Some(done) = self.drain_requests.recv() => drains.push(done),
                Ok(()) = self.changes.changed() => pause = SHORT_PAUSE,
            }
        }
    }

    /// Rotates the files that are full, on another thread: the copy takes time, and other services do not wait for that.
    async fn rotate(&mut self) {
        for (_, tail) in &mut self.streams {
            let Some(log) = tail.full_log() else { continue };
            let rotated = spawn_blocking(move || log.rotate()).await;
            tail.rotated(rotated.unwrap_or_else(|error| Err(io::Error::other(error))));
        }
    }

    /// Waits for room for a chunk. The files are rotated meanwhile, and the place among those who wait is kept.
    async fn wait_for_room(&mut self) {
        let outbox = Arc::clone(&self.outbox);
        let room = outbox.room().take();
        tokio::pin!(room);
        loop {
            tokio::select! {
                room = &mut room => {
                    self.room = room;
                    return;
                }
                Ok(()) = self.changes.changed() => return,
                () = sleep(LONG_PAUSE) => self.rotate().await,
            }
        }
    }

    fn look(&mut self, flush: bool) -> Progress {
        // Not kept when there is nothing to send.
        let room = self.room.take();
        let now = Instant::now();
        let keeps_place = self.last_wanted.is_some_and(|at| now.duration_since(at) < RESUME_WITHIN);
        match self.subscriptions.interest(&self.service) {
            Interest::Wanted => {
                self.last_wanted = Some(now);
                if !std::mem::replace(&mut self.follows, true) {
                    // A new subscription begins now, and not where the last look at the files was.
                    self.skip_to_end();
                }
                match self.held.load(Ordering::Relaxed) {
                    0 => self.send(flush, room),
                    _ => Progress::Growth,
                }
            }
            // A hub that has just connected subscribes in its next frames.
            Interest::Disconnected | Interest::Fresh if keeps_place => Progress::Nothing,
            _ => {
                (self.last_wanted, self.follows) = (None, false);
                self.skip_to_end()
            }
        }
    }

    fn skip_to_end(&mut self) -> Progress {
        let moved = self.streams.iter_mut().fold(false, |moved, (_, tail)| tail.skip_to_end() || moved);
        if moved { Progress::Growth } else { Progress::Nothing }
    }

    /// Sends what there is. The streams take turns, also from one call to the next.
    fn send(&mut self, flush: bool, mut room: Option<Room>) -> Progress {
        let (mut progress, mut without_more) = (Progress::Nothing, 0);
        for _ in 0..CHUNKS_AT_ONCE {
            match self.send_chunk(flush, room.take()) {
                Progress::Blocked => return Progress::Blocked,
                Progress::Nothing => without_more += 1,
                Progress::Growth | Progress::More => (progress, without_more) = (Progress::Growth, 0),
            }
            if without_more == self.streams.len() {
                return progress;
            }
            self.streams.rotate_left(1);
        }
        Progress::More
    }

    /// Sends a chunk of the stream whose turn it is.
    fn send_chunk(&mut self, flush: bool, room: Option<Room>) -> Progress {
        let [(op, tail), _] = &mut self.streams;
        if !tail.has_more() {
            return Progress::Nothing;
        }
        let Some(mut room) = room.or_else(|| self.outbox.room().try_take()) else { return Progress::Blocked };
        let Some(chunk) = tail.read(flush) else { return Progress::Nothing };
        let dropped = tail.take_dropped();
        if dropped > 0 {
            let line = format!("rollbook: {dropped} bytes of output were dropped\n");
            self.outbox.output(Op::Stderr, &self.service, Bytes::from(line), &mut room);
        }
        if !chunk.is_empty() {
            self.outbox.output(*op, &self.service, chunk, &mut room);
        }
        Progress::Growth
    }
}
