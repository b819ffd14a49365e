//! Load and observation: producers, consumers and registers on threads of their own, at a steady modest rate.

mod client;
mod crowd;
mod durable;
mod pipe;
mod producer;
mod reading;
mod register;
mod tail;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cluster::Cluster;
use crate::harness::{Rng, ms};
use crate::history::{Log, Recorder};
use crate::hosts::Hosts;
pub(crate) use crowd::{Crowd, Standing};
pub(crate) use pipe::{Pipe, UNANSWERED_MAX};
use producer::{Producer, Style};
use tail::Tail;

/// Producers of `lab`; every second one uses keys.
const PRODUCERS: u32 = 6;
/// Publishes a second of each.
const PRODUCER_RATE: u64 = 20;
/// The producer of `aged`, and its publishes a second.
const AGED: u32 = 8;
const AGED_RATE: u64 = 4;
/// The producer of `work`.
const WORK: u32 = 9;
/// Consumers that stay on a host have this and the number of the host.
const TAILS: u32 = 10;
const ROAMER: u32 = 20;
const DURABLE: u32 = 21;
/// Clients of the registers.
const REGISTERS: u32 = 30;
const REGISTER_CLIENTS: u32 = 3;
/// Who asks each host for a publish after healing has this and the number of the host.
const PROBES: u32 = 40;
/// Who reads a host at the end has this and the number of the host.
const READERS: u32 = 50;
/// Who watches a host has this and the number of the host.
const WATCHES: u32 = 60;
/// Who publishes over pipelined connections to a host has this and the number of the host.
const PIPES: u32 = 70;
/// The one with a pipelined connection all the time, to each host in turn.
const PIPELINER: u32 = 90;
/// Bound of the catching up of consumers at the end.
const CATCH_UP: Duration = Duration::from_secs(30);
/// The namespace whose events go after [`BRIEF_AGE`].
pub(crate) const BRIEF: &str = "brief";
pub(crate) const BRIEF_AGE: Duration = Duration::from_secs(5);
/// The namespace that is written when the log shall become long, and what it keeps.
pub(crate) const BULK: &str = "bulk";
const BULK_BYTES: u64 = 180 << 20;
/// How long events of `aged` are kept: longer than any run.
const DAY: &str = "24h";

/// What the threads share.
#[derive(Clone)]
struct Scene {
    hosts: Hosts,
    recorder: Recorder,
    /// Writers end.
    written: Arc<AtomicBool>,
    /// Readers end.
    read: Arc<AtomicBool>,
    /// Writers rest.
    quiet: Arc<AtomicBool>,
    /// Numbers of publishes that are not made by a producer, and of pipelined connections.
    serial: Arc<AtomicU64>,
}

/// A running workload.
pub(crate) struct Workload {
    scene: Scene,
    writers: Vec<JoinHandle<()>>,
    readers: Vec<Reader>,
    watches: Vec<JoinHandle<()>>,
}

/// A consumer and how far it is.
struct Reader {
    log: Log,
    stand: Arc<AtomicU64>,
    thread: JoinHandle<()>,
}

impl Workload {
    /// Creates what is needed and starts all clients.
    pub(crate) fn start(cluster: &Cluster, seed: u64) -> Self {
        let scene = Scene {
            hosts: cluster.hosts.clone(),
            recorder: cluster.recorder.clone(),
            written: Arc::default(),
            read: Arc::default(),
            quiet: Arc::clone(&cluster.quiet),
            serial: Arc::default(),
        };
        let mut workload = Self { scene, writers: Vec::new(), readers: Vec::new(), watches: Vec::new() };
        client::create_namespaces(cluster);
        register::begin(cluster);
        let seeded = move |process: u32| Rng::seeded(seed.wrapping_add(u64::from(process)));
        for host in workload.scene.hosts.inhabited() {
            let (process, watched) = (TAILS + u32::from(host), workload.scene.clone());
            workload.watches.push(std::thread::spawn(move || watch::run(&watched, WATCHES + u32::from(host), host)));
            workload.reader(Log::Lab, move |scene, stand| Tail::new(scene, process, stand).stay(host));
        }
        workload.reader(Log::Lab, move |scene, stand| Tail::new(scene, ROAMER, stand).roam(&mut seeded(ROAMER)));
        workload.reader(Log::Work, move |scene, stand| durable::run(scene, DURABLE, stand, &mut seeded(DURABLE)));
        for process in 1..=PRODUCERS {
            let keys = process % 2 == 0;
            let style = Style { log: Log::Lab, keys, batches: true, rate: PRODUCER_RATE };
            workload.writer(move |scene| Producer::new(scene, process, style, seeded(process)).run());
        }
        let others = [
            (WORK, Style { log: Log::Work, keys: true, batches: true, rate: PRODUCER_RATE }),
            (AGED, Style { log: Log::Aged, keys: false, batches: false, rate: AGED_RATE }),
        ];
        for (process, style) in others {
            workload.writer(move |scene| Producer::new(scene, process, style, seeded(process)).run());
        }
        workload.writer(move |scene| pipe::run(&scene, PIPELINER, &mut seeded(PIPELINER)));
        let values = Arc::new(AtomicU64::new(register::FIRST));
        for process in REGISTERS..REGISTERS + REGISTER_CLIENTS {
            let values = Arc::clone(&values);
            workload.writer(move |scene| register::run(&scene, process, &values, &mut seeded(process)));
        }
        workload
    }

    /// Publishes by the hand of the nemesis.
    pub(crate) fn crowd(&self) -> Crowd {
        Crowd::new(self.scene.clone())
    }

    fn writer(&mut self, run: impl FnOnce(Scene) + Send + 'static) {
        let scene = self.scene.clone();
        self.writers.push(std::thread::spawn(move || run(scene)));
    }

    fn reader(&mut self, log: Log, run: impl FnOnce(Scene, Arc<AtomicU64>) + Send + 'static) {
        let (scene, stand) = (self.scene.clone(), Arc::new(AtomicU64::new(0)));
        let own = Arc::clone(&stand);
        let thread = std::thread::spawn(move || run(scene, own));
        self.readers.push(Reader { log, stand, thread });
    }

    /// After the last healing: every running node takes a publish, the load ends, the consumers see
    /// everything, and every running node is read from the oldest event to the newest.
    pub(crate) fn finish(mut self, cluster: &Cluster) {
        self.crowd().probe(&cluster.running(), reading::PROBED);
        self.stop_writers();
        let ends = reading::marks(&self.crowd(), &cluster.running());
        let behind = |reader: &Reader| reader.stand.load(Ordering::Relaxed) < ends[&reader.log];
        // Consumers that cannot get there are told by the check of liveness.
        let deadline = Instant::now() + CATCH_UP;
        while self.readers.iter().any(behind) && Instant::now() < deadline {
            std::thread::sleep(ms(20));
        }
        self.stop_readers();
        reading::read(&self.scene, &cluster.running(), &ends);
    }

    fn stop_writers(&mut self) {
        self.scene.written.store(true, Ordering::Relaxed);
        self.writers.drain(..).for_each(|thread| thread.join().expect("a writer"));
    }

    fn stop_readers(&mut self) {
        self.scene.read.store(true, Ordering::Relaxed);
        self.readers.drain(..).for_each(|reader| reader.thread.join().expect("a reader"));
        self.watches.drain(..).for_each(|thread| thread.join().expect("a watch"));
    }
}

impl Drop for Workload {
    /// After a panic of the lab: its threads must not outlive the namespaces.
    fn drop(&mut self) {
        self.scene.written.store(true, Ordering::Relaxed);
        self.scene.read.store(true, Ordering::Relaxed);
        let readers = self.readers.drain(..).map(|reader| reader.thread);
        for thread in self.writers.drain(..).chain(readers).chain(self.watches.drain(..)) {
            if thread.join().is_err() {
                eprintln!("a client of the lab panicked");
            }
        }
    }
}

impl Scene {
    /// Writers go on, after a rest if they are told to rest.
    fn writing(&self) -> bool {
        while self.quiet.load(Ordering::Relaxed) && !self.written.load(Ordering::Relaxed) {
            std::thread::sleep(ms(10));
        }
        !self.written.load(Ordering::Relaxed)
    }

    /// A number that was never given before.
    fn number(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Readers go on.
    fn reading(&self) -> bool {
        !self.read.load(Ordering::Relaxed)
    }
}

/// Keeps a rate: what was missed is not made up for.
struct Pace {
    step: Duration,
    next: Instant,
}

impl Pace {
    fn new(per_second: u64) -> Self {
        Self { step: Duration::from_secs(1) / u32::try_from(per_second).unwrap_or(1), next: Instant::now() }
    }

    fn wait(&mut self) {
        let now = Instant::now();
        self.next = (self.next + self.step).max(now);
        std::thread::sleep(self.next - now);
    }
}

/// The namespace of a log.
const fn namespace(log: Log) -> &'static str {
    match log {
        Log::Lab => "lab",
        Log::Work => "work",
        Log::Roll => "roll",
        Log::Aged => "aged",
        Log::Burst => "burst",
    }
}
