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
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::base::actors::hint;

use super::super::report::outbox::{Outbox, Room};
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
/// Chunks of one file before the other file has its turn.
const CHUNKS_AT_ONCE: usize = 8;

/// The output of one service.
#[derive(Debug)]
pub(crate) struct Output {
    folder: PathBuf,
    stdout: LogFile,
    stderr: LogFile,
    drains: mpsc::Sender<oneshot::Sender<()>>,
    held: Arc<AtomicUsize>,
    task: AbortHandle,
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
        let open = |name: &str| LogFile::open(&folder.join(name), max_bytes);
        let (drains, drain_requests) = mpsc::channel(4);
        let held = Arc::<AtomicUsize>::default();
        let task = Task {
            service: service.to_owned(),
            streams: [(Op::Stdout, Tail::new(open("out.log")?)), (Op::Stderr, Tail::new(open("err.log")?))],
            outbox: Arc::clone(outbox),
            changes: subscriptions.changes(),
            subscriptions: Arc::clone(subscriptions),
            last_wanted: None,
            follows: true,
            held: Arc::clone(&held),
            drain_requests,
        };
        Ok(Self {
            folder: folder.to_owned(),
            stdout: open("out.log")?,
            stderr: open("err.log")?,
            drains,
            held,
            task: tokio::spawn(task.run()).abort_handle(),
        })
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
        (self.folder.join("out.log"), self.stdout.size())
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

    /// Ends the reading, and removes all files.
    pub(crate) fn remove(&self) {
        self.task.abort();
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, folder = %self.folder.display(), "could not remove the output of a service");
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        self.task.abort();
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
    streams: [(Op, Tail); 2],
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
        let mut drains = Vec::new();
        loop {
            let progress = self.look(!drains.is_empty());
            match progress {
                Progress::More => {
                    tokio::task::yield_now().await;
                    continue;
                }
                Progress::Blocked => {
                    self.outbox.wait_for_room(LONG_PAUSE).await;
                    continue;
                }
                Progress::Growth => pause = SHORT_PAUSE,
                Progress::Nothing => pause = (pause * 2).min(LONG_PAUSE),
            }
            for done in drains.drain(..) {
                let done: oneshot::Sender<()> = done;
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

    fn look(&mut self, flush: bool) -> Progress {
        for (_, tail) in &mut self.streams {
            tail.rotate_if_full();
        }
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
                    0 => self.send(flush),
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

    fn send(&mut self, flush: bool) -> Progress {
        let mut progress = Progress::Nothing;
        for (op, tail) in &mut self.streams {
            for chunk_number in 0..=CHUNKS_AT_ONCE {
                if self.outbox.room() == Room::Full {
                    return Progress::Blocked;
                }
                if chunk_number == CHUNKS_AT_ONCE {
                    progress = Progress::More;
                    break;
                }
                let Some(chunk) = tail.read(flush) else { break };
                let dropped = tail.take_dropped();
                if dropped > 0 {
                    let line = format!("rollbook: {dropped} bytes of output were dropped\n");
                    self.outbox.output(Op::Stderr, &self.service, Bytes::from(line));
                }
                if !chunk.is_empty() {
                    self.outbox.output(*op, &self.service, chunk);
                }
                if progress == Progress::Nothing {
                    progress = Progress::Growth;
                }
            }
        }
        progress
    }
}
