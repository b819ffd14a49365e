//! Lines on their way to a stream that may be slow, full or closed: standard error and standard output of a node.
//!
//! A write to a pipe that nobody reads blocks, and one to a stream that is closed or on a full disk fails. A thread of
//! its own writes, so that both cost lines and never a thread that serves clients or the log. The queue is bounded in
//! bytes; what does not fit is counted, and told by one line once there is room.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rollbook_cluster::lock::lock;

/// Most bytes that wait for the stream; as many may be in the hands of the thread.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// Pause before a stream that takes nothing now (`EAGAIN`) is tried again.
const AGAIN: Duration = Duration::from_millis(10);

/// The line that tells how many lines were lost.
pub(super) type Notice = fn(lost: u64) -> String;

/// A handle that puts lines into the queue of one stream. Clones share the queue.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    queue: Mutex<Queue>,
    /// Something was put into the queue, or written, or the end has come.
    changed: Condvar,
    notice: Notice,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<u8>,
    /// Lines that did not fit since the last one that did.
    lost: u64,
    /// Bytes that were ever put into the queue, and those that the thread is done with.
    put: u64,
    done: u64,
    /// Somebody has waited in vain. Nobody waits again before something is written.
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

    /// Puts a line, with its line feed, into the queue. Never blocks on the stream.
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

    /// Waits until what was put is written or has failed, at most that long, and not at all while an earlier wait
    /// was in vain.
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
            // Lines that cannot be written are lost, and there is nobody to tell.
            write_all(&mut stream, &bytes).ok();
            let mut queue = lock(&self.queue);
            queue.done = queue.done.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
            queue.stuck = false;
            drop(queue);
            self.changed.notify_all();
        }
    }
}

/// Like [`Write::write_all`], but a stream that another process has made non-blocking is waited for.
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
