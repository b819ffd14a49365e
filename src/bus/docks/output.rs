//! Lines of processes, and their starts and ends, on their way to whoever follows them, over all nodes.
//!
//! They are live messages: subject `_docks.ID`, in which the dots of the id are slashes; payload: kind, number, length of
//! the dock's id, its id, data. The number counts what a dock has said of one process through its connection, so a follower
//! sees what it has missed. Invariant: only a node publishes here, see [`crate::bus::access::live`].

use std::collections::HashMap;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use bytestring::ByteString;

use crate::bus::live::filter::{LiveFilter, LiveSubject};
use crate::bus::live::message::LiveMessage;
use crate::bus::live::route::Wakes;
use crate::bus::live::subjects::{LiveSubjects, OwnRoutes};

/// The first token of these subjects.
pub const FIRST_TOKEN: &str = "_docks";
/// Most processes whose messages are counted for one dock.
const COUNTED_MAX: usize = 10_000;

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputKind {
    /// What a process wrote to its standard output.
    Stdout,
    /// What a process wrote to its standard error.
    Stderr,
    /// A process began; the data is its pid in JSON.
    Spawn,
    /// A process ended; the data is its exit code in JSON, `null` after a signal.
    Exit,
}

impl OutputKind {
    const fn number(self) -> u8 {
        match self {
            Self::Stdout => 0,
            Self::Stderr => 1,
            Self::Spawn => 2,
            Self::Exit => 3,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Stdout),
            1 => Some(Self::Stderr),
            2 => Some(Self::Spawn),
            3 => Some(Self::Exit),
            _ => None,
        }
    }
}

/// A message of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// What it is.
    pub kind: OutputKind,
    /// The definition of the process.
    pub id: String,
    /// Its dock.
    pub dock: String,
    /// Counts the messages of the process on this dock.
    pub number: u64,
    /// Lines, or JSON.
    pub data: Bytes,
}

/// Reads a message.
#[must_use]
pub fn read(message: &LiveMessage) -> Option<Output> {
    let id = message.subject.strip_prefix(FIRST_TOKEN)?.strip_prefix('.')?.replace('/', ".");
    let mut rest = message.payload.clone();
    let kind = OutputKind::from_number(rest.try_get_u8().ok()?)?;
    let number = rest.try_get_u64_le().ok()?;
    let length = usize::from(rest.try_get_u16_le().ok()?);
    let dock = rest.get(..length)?;
    let dock = str::from_utf8(dock).ok()?.to_owned();
    rest.advance(length);
    Some(Output { kind, id, dock, number, data: rest })
}

/// What a follower of one process, or of all, subscribes to. `None` when the id is none.
#[must_use]
pub fn filter(id: Option<&str>) -> Option<LiveFilter> {
    let text = match id {
        Some(id) => subject_text(id)?,
        None => format!("{FIRST_TOKEN}.>"),
    };
    LiveFilter::parse(text.into()).ok()
}

/// Whether a text can be the id of a definition: letters, digits, `-` and `.`, at most 255 bytes.
#[must_use]
pub fn is_id(text: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
    (1..=255).contains(&text.len()) && text.bytes().all(legal)
}

fn subject_text(id: &str) -> Option<String> {
    is_id(id).then(|| format!("{FIRST_TOKEN}.{}", id.replace('.', "/")))
}

/// Publishes what one dock says.
#[derive(Debug)]
pub struct OutputPublisher {
    subjects: LiveSubjects,
    dock: ByteString,
    routes: OwnRoutes,
    wakes: Wakes,
    /// By process: its subject, and the number of its last message.
    processes: HashMap<String, (LiveSubject, u64)>,
    buffer: BytesMut,
}

impl OutputPublisher {
    /// The publisher of one dock.
    #[must_use]
    pub fn new(subjects: LiveSubjects, dock: &str) -> Self {
        let (routes, wakes) = (OwnRoutes::default(), Wakes::default());
        Self { subjects, dock: dock.into(), routes, wakes, processes: HashMap::new(), buffer: BytesMut::new() }
    }

    /// Gives a message to whoever follows the process. Connections are woken by [`OutputPublisher::flush`]. A text that is
    /// no id of a definition has no followers.
    pub fn publish(&mut self, kind: OutputKind, id: &str, data: &[u8]) {
        if !self.processes.contains_key(id) {
            let subject = subject_text(id).and_then(|text| LiveSubject::parse(text.into()).ok());
            let Some(subject) = subject else { return };
            if self.processes.len() >= COUNTED_MAX {
                self.processes.clear();
            }
            self.processes.insert(id.to_owned(), (subject, 0));
        }
        let Some((subject, number)) = self.processes.get_mut(id) else { return };
        *number = number.wrapping_add(1);
        self.buffer.reserve(data.len().saturating_add(self.dock.len()).saturating_add(16));
        self.buffer.put_u8(kind.number());
        self.buffer.put_u64_le(*number);
        self.buffer.put_u16_le(u16::try_from(self.dock.len()).unwrap_or_default());
        self.buffer.extend_from_slice(self.dock.as_bytes());
        self.buffer.extend_from_slice(data);
        let payload = self.buffer.split().freeze();
        let message = LiveMessage { subject: subject.text().clone(), payload, ..LiveMessage::default() };
        self.subjects.publish(subject, &message, (&mut self.routes, None), &mut self.wakes);
    }

    /// Wakes the connections that have got messages. To be called at the end of what came at once.
    pub fn flush(&mut self) {
        self.wakes.wake();
    }
}

/// Notices messages that a follower has missed.
#[derive(Debug, Default)]
pub struct Gaps(HashMap<(String, String), u64>);

impl Gaps {
    /// How many messages of the process are missing before this one.
    pub fn before(&mut self, output: &Output) -> u64 {
        if self.0.len() >= COUNTED_MAX {
            self.0.clear();
        }
        let known = self.0.entry((output.dock.clone(), output.id.clone())).or_insert(output.number.saturating_sub(1));
        let last = std::mem::replace(known, output.number);
        // A dock that has come back counts anew.
        output.number.saturating_sub(last.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::bus::live::message::{Delivered, LiveSink};

    #[derive(Debug, Default)]
    struct Follower(Mutex<Vec<Output>>);

    impl LiveSink for Follower {
        fn deliver(&self, _: u64, message: &LiveMessage) -> Delivered {
            self.0.lock().unwrap().push(read(message).unwrap());
            Delivered::Queued
        }

        fn wake(&self) {}

        fn client(&self) -> u64 {
            1
        }
    }

    fn sink(follower: &Arc<Follower>) -> Arc<dyn LiveSink> {
        Arc::<Follower>::clone(follower)
    }

    #[test]
    fn followers_of_one_process_and_of_all_get_what_it_says() {
        let subjects = LiveSubjects::new(1);
        let (one, all) = (Arc::<Follower>::default(), Arc::<Follower>::default());
        let _one = subjects.subscribe(filter(Some("shop.web")).unwrap(), "", (sink(&one), 1), false).unwrap();
        let _all = subjects.subscribe(filter(None).unwrap(), "", (sink(&all), 1), false).unwrap();
        let mut publisher = OutputPublisher::new(subjects, "d1");
        publisher.publish(OutputKind::Spawn, "shop.web", b"12");
        publisher.publish(OutputKind::Stdout, "other", b"x");
        publisher.publish(OutputKind::Stdout, "shop.web", b"hello\n");
        publisher.publish(OutputKind::Stdout, "no id", b"x");
        let heard: Vec<_> = one.0.lock().unwrap().iter().map(|one| (one.kind, one.number, one.data.clone())).collect();
        let expected = [(OutputKind::Spawn, 1, "12".into()), (OutputKind::Stdout, 2, "hello\n".into())];
        assert_eq!(heard, expected);
        let ids: Vec<_> = all.0.lock().unwrap().iter().map(|one| format!("{}@{}", one.id, one.dock)).collect();
        assert_eq!(ids, ["shop.web@d1", "other@d1", "shop.web@d1"]);
    }

    #[test]
    fn what_was_missed_is_counted_and_a_dock_that_comes_back_counts_anew() {
        let mut gaps = Gaps::default();
        let mut missed = |dock: &str, number| {
            let (id, data) = ("a".to_owned(), Bytes::new());
            gaps.before(&Output { kind: OutputKind::Stdout, id, dock: dock.to_owned(), number, data })
        };
        let seen: Vec<u64> = [7, 8, 11, 1, 2].into_iter().map(|number| missed("d1", number)).collect();
        assert_eq!(seen, [0, 0, 2, 0, 0]);
        assert_eq!(missed("d2", 30), 0);
    }

    #[test]
    fn a_message_that_is_cut_anywhere_is_none() {
        let subjects = LiveSubjects::new(1);
        let follower = Arc::<Follower>::default();
        let _kept = subjects.subscribe(filter(None).unwrap(), "", (sink(&follower), 1), false).unwrap();
        OutputPublisher::new(subjects, "d1").publish(OutputKind::Stdout, "a", b"");
        assert_eq!(follower.0.lock().unwrap().len(), 1);
        let whole = [&[0_u8][..], &1_u64.to_le_bytes(), &2_u16.to_le_bytes(), b"d1"].concat();
        for length in 0..whole.len() {
            let payload = Bytes::copy_from_slice(whole.get(..length).unwrap());
            let message = LiveMessage { subject: "_docks.a".into(), payload, ..LiveMessage::default() };
            assert_eq!(read(&message), None, "{length} bytes");
        }
    }
}
