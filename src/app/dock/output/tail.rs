//! The reading of what one file has newly got, in chunks that end at line ends where possible.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::super::report::room::CHUNK_BYTES_MAX;
use super::log_file::{LogFile, Rotation};

/// How far the reading may be behind the file before bytes are passed over.
const BEHIND_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How far behind the end the reading goes on then.
const RESUME_BYTES: u64 = 64 * 1024;
/// How long a line without an end waits for its end.
const LINE_WAIT: Duration = Duration::from_millis(50);
/// The pause after a rotation that failed.
const ROTATE_AGAIN: Duration = Duration::from_secs(10);

/// Where the reading of one file is.
#[derive(Debug)]
pub(crate) struct Tail {
    log: Arc<LogFile>,
    position: u64,
    /// What was not read yet when the file was rotated.
    backlog: Option<Backlog>,
    dropped: u64,
    /// True after bytes were passed over: the rest of a line is passed over too.
    inside_line: bool,
    /// When the beginning of a line without an end was seen, and how many bytes it had.
    waits: Option<(Instant, usize)>,
    /// When the last rotation failed.
    rotation_failed: Option<Instant>,
}

/// The rest of a rotated file.
#[derive(Debug)]
struct Backlog {
    file: File,
    position: u64,
    end: u64,
}

impl Tail {
    /// Reads what comes from now on.
    pub(crate) fn new(log: Arc<LogFile>) -> Self {
        let position = log.size();
        Self { log, position, backlog: None, dropped: 0, inside_line: false, waits: None, rotation_failed: None }
    }

    /// True when there is something to read.
    pub(crate) fn has_more(&self) -> bool {
        self.backlog.is_some() || self.log.size() != self.position
    }

    /// Passes over everything, without a count: nobody wants the output. Says whether there was any.
    pub(crate) fn skip_to_end(&mut self) -> bool {
        let end = self.log.size();
        let moved = end != self.position || self.backlog.is_some();
        (self.position, self.backlog, self.dropped, self.inside_line, self.waits) = (end, None, 0, false, None);
        moved
    }

    /// The file, when it is due for a rotation. The caller rotates the file and then calls [`Tail::rotated`].
    pub(crate) fn full_log(&self) -> Option<Arc<LogFile>> {
        let pauses = self.rotation_failed.is_some_and(|at| at.elapsed() < ROTATE_AGAIN);
        (!pauses && self.log.is_full()).then(|| Arc::clone(&self.log))
    }

    /// Goes on behind a rotation. When the rotation failed, a file far beyond its bound is emptied: a full disk is no
    /// reason to fill it further.
    pub(crate) fn rotated(&mut self, rotation: io::Result<Rotation>) {
        match rotation {
            Ok(rotation) => {
                self.rotation_failed = None;
                self.move_to(rotation);
            }
            Err(error) => {
                tracing::warn!(file = %self.log.path().display(), %error, "could not rotate the output of a service");
                self.rotation_failed = Some(Instant::now());
                if self.log.is_far_beyond() {
                    self.empty_file();
                }
            }
        }
    }

    fn empty_file(&mut self) {
        match self.log.empty() {
            Ok(size) => {
                let rest = self.backlog.take().map_or(0, |backlog| backlog.end.saturating_sub(backlog.position));
                self.drop_bytes(rest.saturating_add(size.saturating_sub(self.position)));
                self.position = 0;
                tracing::warn!(file = %self.log.path().display(), size, "emptied the output of a service");
            }
            Err(error) => {
                tracing::error!(file = %self.log.path().display(), %error, "the output of a service is not bounded");
            }
        }
    }

    fn move_to(&mut self, rotation: Rotation) {
        if let Some(backlog) = self.backlog.take() {
            self.drop_bytes(backlog.end.saturating_sub(backlog.position));
        }
        if self.position >= rotation.removed {
            self.position = self.position.saturating_sub(rotation.removed);
            return;
        }
        let from = self.position.max(rotation.older_from);
        self.drop_bytes(from.saturating_sub(self.position));
        let copied_to = rotation.older_from.saturating_add(rotation.older_bytes);
        self.drop_bytes(rotation.removed.saturating_sub(copied_to.max(from)));
        let position = from.saturating_sub(rotation.older_from);
        self.backlog = Some(Backlog { file: rotation.older, position, end: rotation.older_bytes });
        self.position = 0;
    }

    /// The next chunk. None when there is nothing new; `flush` gives a line without an end at once.
    pub(crate) fn read(&mut self, flush: bool) -> Option<Bytes> {
        self.pass_over();
        let mut buffer = vec![0; CHUNK_BYTES_MAX];
        let read = self.fill(&mut buffer);
        buffer.truncate(read);
        let line_end = buffer.iter().rposition(|byte| *byte == b'\n').map(|at| at.saturating_add(1));
        match line_end {
            Some(end) => buffer.truncate(end),
            None if buffer.is_empty() => return None,
            None if buffer.len() < CHUNK_BYTES_MAX && !flush && self.must_wait(buffer.len()) => return None,
            None => {}
        }
        self.waits = None;
        self.advance(buffer.len());
        if self.inside_line {
            let rest = buffer.iter().position(|byte| *byte == b'\n').map_or(buffer.len(), |at| at.saturating_add(1));
            self.dropped = self.dropped.saturating_add(to_u64(rest));
            self.inside_line = line_end.is_none();
            buffer.drain(..rest);
        }
        buffer.shrink_to_fit();
        Some(Bytes::from(buffer))
    }

    /// The number of bytes that were passed over since the last call.
    pub(crate) fn take_dropped(&mut self) -> u64 {
        // The count is told when it is complete.
        if self.inside_line { 0 } else { std::mem::take(&mut self.dropped) }
    }

    /// Reads the rest of the rotated file first and then, into the same chunk, the file: a line may begin in the one and
    /// end in the other.
    fn fill(&mut self, buffer: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some(backlog) = &self.backlog {
            let rest = backlog.end.saturating_sub(backlog.position).saturating_sub(to_u64(read));
            let room = buffer.get_mut(read..).unwrap_or_default();
            let length = usize::try_from(rest).unwrap_or(usize::MAX).min(room.len());
            if length == 0 {
                break;
            }
            let position = backlog.position.saturating_add(to_u64(read));
            match log_error(backlog.file.read_at(room.get_mut(..length).unwrap_or_default(), position)) {
                0 => {
                    // Somebody else made the file shorter.
                    self.backlog = None;
                    self.drop_bytes(rest);
                    return 0;
                }
                more => read = read.saturating_add(more),
            }
        }
        let more = log_error(self.log.read_at(buffer.get_mut(read..).unwrap_or_default(), self.position));
        read.saturating_add(more)
    }

    fn advance(&mut self, bytes: usize) {
        let mut bytes = to_u64(bytes);
        if let Some(backlog) = &mut self.backlog {
            let of_backlog = bytes.min(backlog.end.saturating_sub(backlog.position));
            backlog.position = backlog.position.saturating_add(of_backlog);
            bytes = bytes.saturating_sub(of_backlog);
            if backlog.position >= backlog.end {
                self.backlog = None;
            }
        }
        self.position = self.position.saturating_add(bytes);
    }

    /// True while a line without an end still waits.
    fn must_wait(&mut self, length: usize) -> bool {
        match self.waits {
            Some((since, before)) if before == length => since.elapsed() < LINE_WAIT,
            _ => {
                self.waits = Some((Instant::now(), length));
                true
            }
        }
    }

    /// Passes over bytes when the reading is too far behind.
    fn pass_over(&mut self) {
        let size = self.log.size();
        if size < self.position {
            // Somebody else truncated the file.
            self.position = 0;
        }
        let rest = self.backlog.as_ref().map_or(0, |backlog| backlog.end.saturating_sub(backlog.position));
        if rest.saturating_add(size.saturating_sub(self.position)) <= BEHIND_BYTES_MAX {
            return;
        }
        let to = size.saturating_sub(RESUME_BYTES).max(self.position);
        self.drop_bytes(rest.saturating_add(to.saturating_sub(self.position)));
        (self.position, self.backlog) = (to, None);
    }

    fn drop_bytes(&mut self, bytes: u64) {
        if bytes > 0 {
            self.dropped = self.dropped.saturating_add(bytes);
            self.inside_line = true;
            self.waits = None;
        }
    }
}

fn log_error(read: io::Result<usize>) -> usize {
    read.unwrap_or_else(|error| {
        tracing::warn!(%error, "could not read the output of a service");
        0
    })
}

fn to_u64(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    struct Fixture {
        tail: Tail,
        writer: File,
        folder: tempfile::TempDir,
    }

    fn rotate_if_full(tail: &mut Tail) {
        if let Some(log) = tail.full_log() {
            tail.rotated(log.rotate());
        }
    }

    fn fixture(max_bytes: u64) -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let log = LogFile::open(&folder.path().join("out.log"), max_bytes).unwrap();
        Fixture { writer: log.writer().unwrap(), tail: Tail::new(Arc::new(log)), folder }
    }

    #[test]
    fn chunks_end_at_line_ends() {
        let Fixture { mut tail, mut writer, folder: _folder } = fixture(1 << 24);
        let text: Vec<u8> = (0..10_000).flat_map(|number| format!("line {number}\n").into_bytes()).collect();
        writer.write_all(&text).unwrap();
        writer.write_all(b"half").unwrap();
        let mut read = Vec::new();
        while let Some(chunk) = tail.read(false) {
            assert!(chunk.len() <= CHUNK_BYTES_MAX && chunk.ends_with(b"\n"));
            read.extend_from_slice(&chunk);
        }
        assert_eq!(read, text);
        writer.write_all(b" whole\n").unwrap();
        assert_eq!(tail.read(false).unwrap(), "half whole\n");
    }

    #[test]
    fn a_line_without_an_end_comes_after_a_moment_and_at_once_when_flushed() {
        let Fixture { mut tail, mut writer, folder: _folder } = fixture(1 << 24);
        writer.write_all(b"name: ").unwrap();
        assert_eq!(tail.read(false), None);
        let since = Instant::now();
        let chunk = loop {
            match tail.read(false) {
                Some(chunk) => break chunk,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        assert!(chunk == "name: " && since.elapsed() >= LINE_WAIT / 2);
        writer.write_all(b"x").unwrap();
        assert_eq!(tail.read(true).unwrap(), "x");
    }

    #[test]
    fn rotation_in_the_middle_of_the_reading_loses_nothing() {
        let Fixture { mut tail, mut writer, folder: _folder } = fixture(300_000);
        let (mut written, mut read) = (Vec::new(), Vec::new());
        for round in 0..20 {
            for number in 0..5_000 {
                let line = format!("round {round} line {number}\n");
                writer.write_all(line.as_bytes()).unwrap();
                written.extend_from_slice(line.as_bytes());
            }
            rotate_if_full(&mut tail);
            // Only a part, so that the rest has to come out of the rotated file.
            for _ in 0..round {
                read.extend(tail.read(true).unwrap_or_default());
            }
            if round % 3 == 2 {
                while let Some(chunk) = tail.read(true) {
                    read.extend_from_slice(&chunk);
                }
            }
        }
        while let Some(chunk) = tail.read(true) {
            read.extend_from_slice(&chunk);
        }
        let dropped = usize::try_from(tail.take_dropped()).unwrap();
        assert_eq!(read.len() + dropped, written.len());
        assert!(written.ends_with(&read[read.len() - 100_000..]));
    }

    #[test]
    fn a_file_that_cannot_be_rotated_is_emptied_before_it_fills_the_disk() {
        let Fixture { mut tail, mut writer, folder } = fixture(100_000);
        std::fs::create_dir(folder.path().join("out.log.0")).unwrap();
        let line = [vec![b'x'; 99], vec![b'\n']].concat();
        writer.write_all(&line.repeat(1_500)).unwrap();
        rotate_if_full(&mut tail);
        assert_eq!(tail.log.size(), 150_000, "there is time for another attempt");
        tail.rotation_failed = None;
        writer.write_all(&line.repeat(1_000)).unwrap();
        rotate_if_full(&mut tail);
        assert_eq!(tail.log.size(), 0);
        writer.write_all(b"the rest of a line\nnext\n").unwrap();
        assert_eq!(tail.read(false).unwrap(), "next\n");
        assert_eq!(tail.take_dropped(), 250_000 + 19);
    }

    #[test]
    fn what_is_too_far_behind_is_passed_over_up_to_a_line_and_counted() {
        let Fixture { mut tail, mut writer, folder: _folder } = fixture(1 << 30);
        let line = [vec![b'x'; 99], vec![b'\n']].concat();
        for _ in 0..100 {
            writer.write_all(&line.repeat(1_000)).unwrap();
        }
        let mut read = 0;
        while let Some(chunk) = tail.read(false) {
            assert!(chunk.len() % 100 == 0);
            read += chunk.len();
        }
        assert_eq!(tail.take_dropped(), 10_000_000 - to_u64(read));
        assert!(read > 0 && read <= 64 * 1024);
    }

    #[test]
    fn a_line_without_any_end_comes_in_full_chunks() {
        let Fixture { mut tail, mut writer, folder: _folder } = fixture(1 << 24);
        writer.write_all(&vec![b'x'; 100_000]).unwrap();
        let chunks: Vec<usize> = std::iter::from_fn(|| tail.read(true)).map(|chunk| chunk.len()).collect();
        assert_eq!(chunks, [32_768, 32_768, 32_768, 1_696]);
    }
}
