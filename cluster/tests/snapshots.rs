//! Nodes in one process, one of which was away for so long that it needs a snapshot, over a slow network.

#![expect(
    clippy::as_conversions,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rollbook_cluster::node::Node;
use rollbook_cluster::running::{NodeConfig, Running};
use rollbook_cluster::timing::HEARTBEAT;
use rollbook_core::command::{Command, Done};
use rollbook_core::dock::change::{self as dock, BuildBegin, BuildChunk, BuildFinish, DefinitionSet};
use rollbook_core::entry::{FLAG_CREATE, FLAG_INTERNAL, FLAG_KEYED, begin_publish, finish_publish};
use rollbook_core::event::Event;
use rollbook_core::level::FeatureLevel;
use rollbook_core::machine::Machine;
use rollbook_core::xbus::account::register::{ActorRequest, Registration};
use rollbook_core::xbus::account::row::{ActorKind, ActorStatus};
use rollbook_core::xbus::change::{AccountAccept, ActorStatusSet, Change, FragmentReceived};
use rollbook_core::xbus::envelope::part::{EventView, Fragment, Part};
use rollbook_core::xbus::id::Id;
use tempfile::TempDir;

/// Bytes of an event that does not compress.
const EVENT_BYTES: usize = 100_000;
/// What the snapshot holds in the end: some seconds at the speed of the slow network.
const EVENTS: u64 = 160;
/// Bytes that the slow network carries in a second, on each connection.
const SLOW: u64 = 2 << 20;
/// More than anything here takes on a loaded machine.
const LONG: Duration = Duration::from_secs(60);

/// A TCP forwarder that carries at most so many bytes in a second on each connection.
struct Forwarder {
    address: String,
    bytes_per_second: Arc<AtomicU64>,
}

fn forward(mut from: TcpStream, mut to: TcpStream, bytes_per_second: &AtomicU64) {
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        if count == 0 || to.write_all(&buffer[..count]).is_err() {
            to.shutdown(std::net::Shutdown::Both).ok();
            return;
        }
        let pace = bytes_per_second.load(Ordering::Relaxed).max(1);
        std::thread::sleep(Duration::from_micros(count as u64 * 1_000_000 / pace));
    }
}

impl Forwarder {
    fn start(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let bytes_per_second = Arc::new(AtomicU64::new(u64::MAX));
        let pace = Arc::clone(&bytes_per_second);
        std::thread::spawn(move || {
            for near in listener.incoming() {
                let near = near.unwrap();
                let Ok(far) = TcpStream::connect(to) else { continue };
                for (from, to) in [(&near, &far), (&far, &near)] {
                    let (from, to, pace) = (from.try_clone().unwrap(), to.try_clone().unwrap(), Arc::clone(&pace));
                    std::thread::spawn(move || forward(from, to, &pace));
                }
            }
        });
        Self { address, bytes_per_second }
    }

    fn pace(&self, bytes_per_second: u64) {
        self.bytes_per_second.store(bytes_per_second, Ordering::Relaxed);
    }
}

/// Three nodes, each behind a forwarder.
struct Trial {
    directory: TempDir,
    ports: BTreeMap<u64, SocketAddr>,
    forwarders: BTreeMap<u64, Forwarder>,
    running: BTreeMap<u64, Running>,
    runtime: tokio::runtime::Runtime,
}

impl Drop for Trial {
    fn drop(&mut self) {
        // Before their directory goes: a node that cannot write its log ends the process.
        std::thread::scope(|scope| {
            for running in std::mem::take(&mut self.running).into_values() {
                scope.spawn(|| running.stop().ok());
            }
        });
    }
}

impl Trial {
    fn start() -> Self {
        let listeners: BTreeMap<u64, TcpListener> =
            (1..=3).map(|id| (id, TcpListener::bind("127.0.0.1:0").unwrap())).collect();
        let ports: BTreeMap<u64, SocketAddr> =
            listeners.iter().map(|(id, listener)| (*id, listener.local_addr().unwrap())).collect();
        let forwarders = ports.iter().map(|(id, port)| (*id, Forwarder::start(*port))).collect();
        let mut trial = Self {
            directory: tempfile::tempdir().unwrap(),
            ports,
            forwarders,
            running: BTreeMap::new(),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(),
        };
        for (id, listener) in listeners {
            trial.run(id, listener);
        }
        trial.wait("all are ready", || (1..=3).all(|id| trial.node(id).consensus().ready().is_ok()).then_some(()));
        trial
    }

    fn data(&self, id: u64) -> PathBuf {
        self.directory.path().join(id.to_string())
    }

    fn run(&mut self, id: u64, listener: TcpListener) {
        let config = NodeConfig {
            id,
            data: self.data(id),
            listener: Some(listener),
            address: self.forwarders[&id].address.clone(),
            founders: self.forwarders.iter().map(|(id, forwarder)| (*id, forwarder.address.clone())).collect(),
            tls: None,
            timeout: Duration::from_secs(10),
            node_timeout: Duration::from_secs(5),
            heartbeat: HEARTBEAT,
            log_keep_bytes: 1_000_000,
            level: FeatureLevel::LATEST,
            accept_lost_mark: false,
        };
        self.running.insert(id, Running::start(config).unwrap());
    }

    fn up(&mut self, id: u64) {
        let port = self.ports[&id];
        let listener = self.wait("the port is free again", || TcpListener::bind(port).ok());
        self.run(id, listener);
    }

    fn down(&mut self, id: u64) {
        // What it could not bring to the disk is in its log.
        self.running.remove(&id).unwrap().stop().ok();
    }

    fn node(&self, id: u64) -> Node {
        self.running[&id].node()
    }

    fn wait<T>(&self, what: &str, look: impl FnMut() -> Option<T>) -> T {
        self.wait_for(LONG, what, look)
    }

    fn wait_for<T>(&self, long: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                eprintln!("{what}: after {:?}", began.elapsed());
                return found;
            }
            let status = || self.running.values().map(|running| format!("{:?}", running.node().consensus().status()));
            assert!(began.elapsed() < long, "not within {long:?}: {what}\n{}", status().collect::<Vec<_>>().join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn leader(&self) -> u64 {
        self.wait("a leader", || {
            self.running.iter().find(|(_, running)| running.node().consensus().leads()).map(|(id, _)| *id)
        })
    }

    fn lead(&self, id: u64) {
        let other = *self.running.keys().next().unwrap();
        self.wait("leadership moves", || {
            if self.node(id).consensus().leads() {
                return Some(());
            }
            self.runtime.block_on(self.node(other).membership().transfer(Some(id))).ok();
            self.node(id).consensus().leads().then_some(())
        });
    }

    fn publish(&self, id: u64, dice: &mut u64) {
        let mut frame = Vec::new();
        begin_publish(&mut frame, "a").unwrap();
        let payload: Vec<u8> = std::iter::repeat_with(|| {
            *dice ^= *dice << 13;
            *dice ^= *dice >> 7;
            *dice ^= *dice << 17;
            b'0' + (*dice >> 32) as u8 % 64
        })
        .take(EVENT_BYTES)
        .collect();
        let payload = [b"\"".as_slice(), &payload, b"\""]
            .concat()
            .iter()
            .map(|byte| if *byte == b'\\' { b'x' } else { *byte })
            .collect::<Vec<_>>();
        Event { subject: "a.x", payload: Some(&payload), ..Event::default() }.encode(&mut frame).unwrap();
        finish_publish(&mut frame, 0, FLAG_CREATE, 1).unwrap();
        let stored =
            self.runtime.block_on(async { self.node(id).proposals().propose(frame.into()).unwrap().await.unwrap() });
        assert!(matches!(stored, Ok(Done::Published { .. })), "{stored:?}");
    }

    fn last(&self, id: u64) -> u64 {
        self.node(id).state().namespace("a").map_or(0, |head| head.last())
    }

    /// An account of Xbus with an emitter, which sends a whole envelope that no pipeline takes, and a part of another one.
    fn change_xbus(&self) {
        let id = |number: u8| vec![number; 16];
        let mut actor = ActorRequest { id: id(10), name: "emitter".to_owned(), ..ActorRequest::default() };
        actor.set_kind(ActorKind::Emitter);
        let (name, csr, public_key) = ("shop".to_owned(), "PEM".to_owned(), vec![1; 32]);
        let register =
            Registration { id: id(1), name, kind: 1, csr, public_key, actors: vec![actor], authenticated: false };
        let (certificate, fingerprint) = ("CERT".to_owned(), "sha256:01".to_owned());
        let accept = AccountAccept { id: id(1), public_key: vec![1; 32], certificate, fingerprint, expires: u64::MAX };
        let status = ActorStatusSet { id: id(10), status: ActorStatus::Enabled.into(), config: Vec::new() };
        let fragment = |envelope: u8, item_count: u64| {
            let (event, items) = (Some(Id::new([1; 16])), [b"item".as_slice()]);
            let view = EventView { id: event, event_type: "t", index: Some(1), item_count, checksum: 0, items };
            let fragment = Fragment { event_ids: Vec::new(), parts: vec![Part::measure(view)], last: item_count == 1 };
            let (envelope, event) = (id(envelope), format!("f-{envelope}"));
            let (actor, process_ids) = (id(10), vec![id(200)]);
            let received = FragmentReceived {
                envelope,
                actor,
                output: "o".to_owned(),
                fragment,
                event,
                process_ids,
                ..Default::default()
            };
            Change::Fragment(received)
        };
        let changes = [Change::Register(register), Change::AccountAccept(accept), Change::ActorStatus(status)];
        self.change(changes);
        for id in ["f-100", "f-101"] {
            let mut frame = Vec::new();
            begin_publish(&mut frame, "xbus").unwrap();
            Event { subject: "xbus.envelope", id, ..Event::default() }.encode(&mut frame).unwrap();
            finish_publish(&mut frame, 0, FLAG_INTERNAL | FLAG_KEYED, 1).unwrap();
            self.runtime
                .block_on(async { self.node(1).proposals().propose(frame.into()).unwrap().await.unwrap().unwrap() });
        }
        self.change([fragment(100, 1), fragment(101, 2)]);
    }

    fn change(&self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let done = self.runtime.block_on(self.node(1).proposals().command(Command::xbus(None, change)));
            assert!(matches!(done, Ok(Done::Xbus(_))), "{done:?}");
        }
    }

    /// A definition with a finished build, whose chunks are on the disk alone.
    fn change_docks(&self) {
        let (build, definition) = (vec![7; 16], "web".to_owned());
        let chunk = |ordinal: u32, bytes: &[u8]| {
            dock::Change::BuildChunk(BuildChunk { build: vec![7; 16], ordinal, bytes: bytes.to_vec() })
        };
        let (document, sha256) = (b"{}".to_vec(), vec![9; 32]);
        let changes = [
            dock::Change::DefinitionSet(DefinitionSet { id: definition.clone(), document: document.clone() }),
            dock::Change::BuildBegin(BuildBegin { build: build.clone(), definition }),
            chunk(0, b"first"),
            chunk(1, b"second"),
            dock::Change::BuildFinish(BuildFinish { build, chunks: 2, bytes: 11, sha256, document }),
        ];
        for change in changes {
            let done = self.runtime.block_on(self.node(1).proposals().command(Command::dock(None, change)));
            assert!(matches!(done, Ok(Done::Dock(_))), "{done:?}");
        }
    }

    /// What of docks came to a node: its state in memory, and the bytes of a build.
    fn check_docks(&self, id: u64) {
        let of = |id: u64| self.node(id).state().with_machine(|machine| machine.docks().clone());
        assert!(of(id) == of(1), "{:?}", of(id));
        assert_eq!(of(id).definition("web").and_then(|row| row.build_id()), Some(Id::new([7; 16])));
        let builds = self.node(id).build_reader();
        let chunk = |ordinal| builds.chunk(&Id::new([7; 16]), ordinal).unwrap();
        assert_eq!((chunk(0), chunk(1), chunk(2)), (Some(b"first".to_vec()), Some(b"second".to_vec()), None));
    }

    /// What of Xbus came to a node: its state in memory, and rows that are on the disk alone.
    fn check_xbus(&self, id: u64) {
        let of = |id: u64| self.node(id).state().with_machine(|machine| machine.xbus().clone());
        assert!(of(id) == of(1), "{:?}", of(id));
        assert!(of(id).open_envelope(Id::new([101; 16])).is_some());
        let rows = self.node(id).state().xbus();
        let process = rows.process(Id::new([200; 16])).unwrap().unwrap();
        assert_eq!((process.envelope.as_slice(), process.state.as_str()), (&[100; 16][..], "no matching pipeline"));
        assert!(rows.attention(Id::new([200; 16])).unwrap().is_some());
        assert_eq!(rows.events(Id::new([101; 16])).unwrap().len(), 1);
        assert_eq!(rows.fragments(Id::new([100; 16]), 0, 10).unwrap(), [(0, 1)]);
    }

    /// Node 3 goes away, and misses more than the logs of the others keep.
    fn leave_behind(&mut self, dice: &mut u64) {
        self.lead(1);
        self.publish(1, dice);
        self.wait("the newest level", || {
            let level = self.node(1).state().with_machine(Machine::level);
            (level == FeatureLevel::LATEST).then_some(())
        });
        let missed = self.node(3).consensus().status().last_index;
        self.down(3);
        self.change_xbus();
        self.change_docks();
        for _ in 1..EVENTS {
            self.publish(1, dice);
        }
        self.wait("the logs are purged", || {
            self.publish(1, dice);
            [1, 2].iter().all(|id| self.node(*id).consensus().status().first_index > missed + 20).then_some(())
        });
    }
}

fn directories(data: &Path, start: &str) -> Vec<String> {
    let names = fs::read_dir(data).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name.starts_with(start)).collect();
    names.sort();
    names
}

#[test]
fn leadership_that_moves_in_the_middle_of_a_snapshot_does_not_leave_the_receiver_behind() {
    let mut trial = Trial::start();
    let mut dice = 0x5eed;
    trial.leave_behind(&mut dice);
    trial.forwarders[&3].pace(SLOW);
    trial.up(3);
    let incoming = |from: u64| trial.data(3).join("incoming").join(from.to_string());
    trial.wait("the snapshot of node 1 arrives", || incoming(1).join("ledger").exists().then_some(()));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(trial.last(3), 1, "it is still arriving, or this test shows nothing");
    trial.lead(2);
    // Within seconds: not before a sender that is gone has timed out.
    trial.wait_for(Duration::from_secs(8), "that of node 2 arrives", || {
        incoming(2).join("ledger").exists().then_some(())
    });
    assert!(!incoming(1).exists(), "what the sender before had begun is gone");
    let last = trial.last(2);
    trial.wait("node 3 is level", || (trial.last(3) >= last).then_some(()));
    assert!(trial.data(3).join("INSTALLED").exists(), "it came as a snapshot, not by the log");
    trial.check_xbus(3);
    trial.check_docks(3);
    // Nothing of it stays: neither what came, nor the generation before, nor what was made for it.
    trial.wait("the generation before is gone", || {
        (directories(&trial.data(3), "state-") == ["state-1"] && directories(&trial.data(3), "ledger-") == ["ledger-1"])
            .then_some(())
    });
    let empty = |path: PathBuf| fs::read_dir(path).map_or(true, |mut entries| entries.next().is_none());
    trial.wait("all else is gone", || {
        let places = [(3, "incoming"), (3, "discarded"), (1, "snapshots"), (2, "snapshots")];
        places.iter().all(|(id, name)| empty(trial.data(*id).join(name))).then_some(())
    });
}

#[test]
fn sessions_of_leaders_that_were_end_at_their_followers() {
    let trial = Trial::start();
    let round = |trial: &Trial| (1..=3).for_each(|id| trial.lead(id));
    round(&trial);
    let settled = |trial: &Trial| {
        trial.lead(1);
        std::thread::sleep(Duration::from_secs(1));
        trial.running.values().map(Running::tasks).collect::<Vec<_>>()
    };
    let before = settled(&trial);
    for _ in 0..8 {
        round(&trial);
    }
    let after = settled(&trial);
    eprintln!("tasks of the nodes: {before:?}, after 24 changes of the leader {after:?}");
    for (before, after) in before.iter().zip(&after) {
        assert!(*after < before + 12, "tasks stay behind: {before} before, {after} after 24 changes of the leader");
    }
}

#[test]
fn a_leader_without_room_for_a_snapshot_goes_on_until_there_is_some() {
    let mut trial = Trial::start();
    let mut dice = 0xd15c;
    trial.leave_behind(&mut dice);
    // A file where the directory should be is what no retry and no space mends.
    for id in [1, 2] {
        let snapshots = trial.data(id).join("snapshots");
        fs::remove_dir_all(&snapshots).ok();
        fs::write(&snapshots, b"in the way").unwrap();
    }
    trial.up(3);
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        trial.publish(1, &mut dice);
        for running in trial.running.values() {
            assert_eq!(*running.fatal().borrow(), None, "a node ends because no snapshot can be made");
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    assert!(trial.last(3) <= 1, "nothing was in the way, or this test shows nothing");
    let leader = trial.leader();
    fs::remove_file(trial.data(leader).join("snapshots")).unwrap();
    let last = trial.last(leader);
    trial.wait("node 3 is level", || (trial.last(3) >= last).then_some(()));
}
