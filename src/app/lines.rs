//! Writes lines to standard error and standard output from a queue, because such a stream may be slow, full or
//! closed.
//!
//! A write to a pipe without a reader blocks, and a write to a closed stream or a full disk fails. A thread of its
//! own writes, so a broken stream loses lines and never blocks a thread that serves clients or the log. The queue is
//! bounded in bytes. Lost lines are counted, and one line reports them once there is room.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rollbook_cluster::lock::lock;

/// Most bytes in the queue. The thread may hold as many.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Pause before the next write to a stream that takes nothing now (`EAGAIN`).
const AGAIN: Duration = Duration::from_millis(10);

/// Formats the line that reports lost lines.
pub(super) type Notice = fn(lost: u64) -> String;

/// The queue of one stream. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signals a new line, a finished write, or the end.
    changed: Condvar,
    notice: Notice,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<u8>,
    /// Lines lost since the last line that fitted, for the report.
    lost: u64,
    /// Bytes ever queued, and bytes ever written or lost, so that a flush knows when its lines are done.
    put: u64,
    done: u64,
    /// Whether a flush timed out. No other flush waits until a write succeeds.
    stuck: bool,
}

impl Lines {
    /// Starts the thread that writes to `stream`. Without a thread all lines are lost.
    pub(super) fn start(name: &str, stream: impl Write + Send + 'static, notice: Notice) -> Self {
        let shared = Arc::new(Shared { queue: Mutex::default(), changed: Condvar::new(), notice });
        let writes = Arc::clone(&shared);
        let started = std::thread::Builder::new().name(name.to_owned()).spawn(move || writes.run(stream));
        if started.is_err() {
            lock(&shared.queue).stuck = true;
        }
        Self { shared }
    }

    /// Queues a line, which ends with a line feed. Never blocks on the stream.
    pub(super) fn put(&self, line: &[u8]) {
        let mut queue = lock(&self.shared.queue);
        if queue.waiting.len().saturating_add(line.len()) > QUEUE_BYTES_MAX {
            queue.lost = queue.lost.saturating_add(1);
            return;
        }
        if queue.lost > 0 {
            let notice = (self.shared.notice)(std::mem::take(&mut queue.lost));
            queue.push(notice.as_bytes());
        }
        queue.push(line);
        drop(queue);
        self.shared.changed.notify_all();
    }

    /// Waits until all queued lines are written or lost, at most for that long. Returns at once when an earlier flush
    /// timed out.
    pub(super) fn flush(&self, most: Duration) {
        let until = Instant::now() + most;
        let mut queue = lock(&self.shared.queue);
        let put = queue.put;
        while queue.done < put && !queue.stuck {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                queue.stuck = true;
                return;
            }
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
    }
}

impl Queue {
    fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
        self.put = self.put.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
    }
}

impl Shared {
    fn run(&self, mut stream: impl Write) {
        loop {
            let mut queue = lock(&self.queue);
            while queue.waiting.is_empty() {
                queue = self.changed.wait(queue).unwrap_or_else(std::sync::PoisonError::into_inner);
            }
            let bytes = std::mem::take(&mut queue.waiting);
            drop(queue);
            // Nobody can be told of lines that cannot be written.
            write_all(&mut stream, &bytes).ok();
            let mut queue = lock(&self.queue);
            queue.done = queue.done.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            queue.stuck = false;
            drop(queue);
            self.changed.notify_all();
        }
    }
}

/// Like [`Write::write_all`], but waits for a stream that another process has made non-blocking.
fn write_all(stream: &mut impl Write, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(AGAIN),
            Err(error) => return Err(error),
        }
    }
    stream.flush()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A stream that takes what it gets once it is allowed to.
    struct Gate {
        open: mpsc::Receiver<()>,
        seen: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without the sender it is open for good.
            self.open.recv().ok();
            self.seen.send(bytes.to_vec()).map_err(io::Error::other)?;
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gate() -> (Lines, mpsc::Sender<()>, mpsc::Receiver<Vec<u8>>) {
        let ((open, opened), (seen, sees)) = (mpsc::channel(), mpsc::channel());
        (Lines::start("lines", Gate { open: opened, seen }, |lost| format!("{lost} lost\n")), open, sees)
    }

    #[test]
    fn lines_arrive_whole_and_in_order() {
        let (lines, open, seen) = gate();
        drop(open);
        for n in 0..1000 {
            lines.put(format!("{n}\n").as_bytes());
        }
        lines.flush(Duration::from_secs(10));
        let text = String::from_utf8(seen.try_iter().flatten().collect()).unwrap();
        assert_eq!(text, (0..1000).map(|n| format!("{n}\n")).collect::<String>());
    }

    #[test]
    fn a_stream_that_takes_nothing_costs_lines_bounded_memory_and_one_wait() {
        let (lines, open, seen) = gate();
        let line = [b'x'; 1024];
        lines.put(&line);
        let begun = Instant::now();
        lines.flush(Duration::from_millis(50));
        for _ in 0..5000 {
            lines.put(&line);
            // The first wait was in vain: these return at once.
            lines.flush(Duration::from_secs(5));
        }
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(lock(&lines.shared.queue).waiting.len() <= QUEUE_BYTES_MAX);
        drop(open);
        let is_written = || {
            let queue = lock(&lines.shared.queue);
            queue.done >= queue.put
        };
        while !is_written() {
            std::thread::sleep(Duration::from_millis(1));
        }
        lines.put(b"later\n");
        lines.flush(Duration::from_secs(10));
        let text = String::from_utf8(seen.try_iter().flatten().collect()).unwrap();
        let (_, end) = text.rsplit_once('x').unwrap();
        let lost: u64 = end.strip_suffix(" lost\nlater\n").unwrap().parse().unwrap();
        let kept = text.matches('x').count() / line.len();
        assert_eq!(u64::try_from(kept).unwrap() + lost, 5001);
    }

    #[test]
    fn a_stream_that_is_closed_costs_nothing_but_its_lines() {
        let (lines, open, seen) = gate();
        drop((open, seen));
        for _ in 0..3 {
            lines.put(b"gone\n");
            let begun = Instant::now();
            lines.flush(Duration::from_secs(10));
            assert!(begun.elapsed() < Duration::from_secs(5));
        }
    }
}
