//! What clients did and saw, one line of JSON each: the evidence that the checker judges.
//!
//! An operation is two lines, `invoke` and what became of it. A time-out or a lost connection is `unknown`,
//! never `fail`: the node may have done it. What a client only observes is one line, `seen`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The lab itself among the processes: faults, starts and ends of nodes.
pub(crate) const LAB: u32 = 0;

/// The name of the fault that is none: from here on everything must work on every node.
pub(crate) const THE_END: &str = "the end";

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Nanoseconds since the run began; never goes back.
    pub(crate) at: u64,
    /// Milliseconds since 1970, to find the place in the log of a node.
    pub(crate) wall: u64,
    /// Who: a producer, a consumer. Has one operation at a time, or one for each payload.
    pub(crate) process: u32,
    /// Number of the node that was asked or is meant; 0: none.
    pub(crate) node: u64,
    pub(crate) phase: Phase,
    #[serde(flatten)]
    pub(crate) op: Op,
}

/// What a line says of its operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    /// It begins.
    Invoke,
    /// It was done.
    Ok,
    /// It was refused, and leaves nothing behind.
    Fail,
    /// Nobody knows.
    Unknown,
    /// Not an operation: something was observed.
    Seen,
}

/// The logs that a run writes and reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Log {
    /// Written by all producers, followed by tailing consumers.
    Lab,
    /// Done by the durable consumer.
    Work,
    /// What the cluster itself tells: `roll.>`.
    Roll,
    /// Events that are kept for a day: none of a run may go.
    Aged,
    /// Publishes by the thousand, over pipelined connections.
    Burst,
}

/// What is done or seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub(crate) enum Op {
    /// A publish of the payloads `payload..payload + count`.
    Publish(Publish),
    /// A stream is opened; `connection` counts those of a process.
    Subscribe { log: Log, connection: u32, durable: bool },
    /// An event came on a stream.
    Deliver { log: Log, connection: u32, index: u64, id: String, payload: u64 },
    /// An event of a durable consumer is acknowledged.
    Ack { log: Log, connection: u32, index: u64 },
    /// The consumer has done everything up to there, as `node` tells it: that is committed.
    Floor { log: Log, index: u64 },
    /// A register is set.
    Write { register: u32, value: u64 },
    /// A register is read, linearizable.
    Read { register: u32, value: Option<u64> },
    /// What `node` has at the end of the run; `sum` covers every byte of the event.
    Stored { log: Log, index: u64, id: String, payload: u64, sum: u64 },
    /// An event `roll.node.up` or `roll.node.down` about `node`.
    Lifecycle { index: u64, incarnation: u64, up: bool },
    /// Who leads, as `node` tells it.
    Leader { leader: Option<u64>, term: Option<u64> },
    /// The lab started a process of `node`, or knows that it has ended.
    Process { running: bool },
    /// How long after the healing of `fault` `node` had done that, nanoseconds; none: not while the lab waited.
    Recovered { fault: String, what: Recovery, took: Option<u64>, bound: u64 },
    /// The process of `node` ended although nobody had told it to.
    Ended { words: String },
    /// `fault` did not do what it is for: that part of the run proves nothing.
    Missed { fault: String, why: String },
    /// The lab itself saw that a promise was broken.
    Broken { text: String },
    /// A fault, from `invoke` to `ok`. The nodes of `majority` can still form a quorum; a graceful fault
    /// must not be noticed by a client that tries twice.
    Fault { name: String, majority: Vec<u64>, graceful: bool },
}

/// What a node is to do after a healing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Recovery {
    /// It accepts a publish.
    Accepts,
    /// It has what was accepted first after the healing, by any node, and so everything before.
    Level,
}

/// A publish; index and id are known when a single event was accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Publish {
    pub(crate) log: Log,
    pub(crate) payload: u64,
    pub(crate) count: u64,
    /// 1 and up: a publish with a key may be tried again under the same key.
    pub(crate) attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) index: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) id: Option<String>,
    /// Why it was refused, or why nobody knows, as the node says.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) said: Option<String>,
    /// The pipelined connection, unique in a run: its publishes do not wait for the answers of those before.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub(crate) pipe: Option<u32>,
}

impl Publish {
    /// As it is asked for.
    pub(crate) const fn new(log: Log, payload: u64, count: u64, attempt: u32) -> Self {
        Self { log, payload, count, attempt, index: None, id: None, said: None, pipe: None }
    }
}

/// All lines of a run, in the order of time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct History {
    pub(crate) records: Vec<Record>,
}

/// An operation with its end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) process: u32,
    pub(crate) node: u64,
    pub(crate) begin: u64,
    /// None if it never ended.
    pub(crate) end: Option<u64>,
    /// Never `Invoke`; what never ended is `Unknown`.
    pub(crate) phase: Phase,
    /// As it was answered, or else as it was asked.
    pub(crate) op: &'a Op,
}

impl History {
    /// Pairs each `invoke` with what the same process wrote next, about the same payload if it is a publish.
    pub(crate) fn calls(&self) -> Vec<Call<'_>> {
        let mut calls: Vec<Call<'_>> = Vec::new();
        let mut open: BTreeMap<(u32, Option<u64>), usize> = BTreeMap::new();
        for record in &self.records {
            let Record { at, process, node, phase, op, .. } = record;
            let payload = if let Op::Publish(publish) = op { Some(publish.payload) } else { None };
            match phase {
                Phase::Seen => {}
                Phase::Invoke => {
                    open.insert((*process, payload), calls.len());
                    calls.push(Call {
                        process: *process,
                        node: *node,
                        begin: *at,
                        end: None,
                        phase: Phase::Unknown,
                        op,
                    });
                }
                Phase::Ok | Phase::Fail | Phase::Unknown => {
                    let call = open.remove(&(*process, payload)).and_then(|place| calls.get_mut(place));
                    let call = call.unwrap_or_else(|| panic!("an end without a beginning: {record:?}"));
                    (call.end, call.phase, call.op) = (Some(*at), *phase, op);
                }
            }
        }
        calls
    }

    /// What was observed.
    pub(crate) fn seen(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().filter(|record| record.phase == Phase::Seen)
    }

    /// Time of the last line.
    pub(crate) fn end(&self) -> u64 {
        self.records.last().map_or(0, |record| record.at)
    }

    /// Reads a file that a recorder wrote.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let lines = BufReader::new(File::open(path)?).lines();
        let records = lines.map(|line| serde_json::from_str(&line?).map_err(io::Error::other));
        Ok(Self { records: records.collect::<io::Result<_>>()? })
    }
}

/// Where all threads of a run write to.
#[derive(Clone, Debug)]
pub(crate) struct Recorder {
    began: Instant,
    sink: Arc<Mutex<Sink>>,
}

#[derive(Debug)]
struct Sink {
    file: BufWriter<File>,
    history: History,
}

impl Recorder {
    /// Writes to that file from now on.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let sink = Sink { file: BufWriter::new(File::create(path)?), history: History::default() };
        Ok(Self { began: Instant::now(), sink: Arc::new(Mutex::new(sink)) })
    }

    /// Writes one line.
    pub(crate) fn note(&self, process: u32, node: u64, phase: Phase, op: Op) {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // The clock is read under the lock: the order of lines is the order of time.
        let mut sink = self.sink();
        let record = Record { at: nanos(self.began.elapsed()), wall: millis(wall), process, node, phase, op };
        let mut line = serde_json::to_vec(&record).expect("a record is JSON");
        line.push(b'\n');
        sink.file.write_all(&line).expect("write the history");
        sink.history.records.push(record);
    }

    /// Takes everything so far, which may be much; the file is complete then.
    pub(crate) fn history(&self) -> History {
        let mut sink = self.sink();
        sink.file.flush().expect("write the history");
        std::mem::take(&mut sink.history)
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.sink.lock().expect("no writer of the history panics")
    }
}

/// As a history counts.
pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[test]
fn a_history_is_read_back_as_it_was_written() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let path = dir.path().join("history.ndjson");
    let recorder = Recorder::create(&path).expect("create the history");
    let publish = |index, id: Option<&str>| {
        let id = id.map(str::to_owned);
        Op::Publish(Publish { index, id, ..Publish::new(Log::Lab, 1 << 40, 1, 1) })
    };
    recorder.note(1, 2, Phase::Invoke, publish(None, None));
    let fault = Op::Fault { name: "pause leader".to_owned(), majority: vec![1, 3], graceful: false };
    recorder.note(LAB, 2, Phase::Invoke, fault);
    recorder.note(1, 2, Phase::Ok, publish(Some(7), Some("e_1")));
    recorder.note(5, 1, Phase::Seen, Op::Stored { log: Log::Roll, index: 1, id: "e_1".into(), payload: 0, sum: 9 });
    let history = recorder.history();
    assert_eq!(History::load(&path).expect("read the history"), history);
    let calls = history.calls();
    assert_eq!(calls.len(), 2);
    assert_eq!((calls[0].phase, calls[0].node), (Phase::Ok, 2));
    assert!(calls[0].end > Some(calls[0].begin), "{calls:?}");
    assert_eq!((calls[1].phase, calls[1].end), (Phase::Unknown, None), "what never ended is unknown");
}
