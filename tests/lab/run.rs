//! One run of the lab: a cluster, a workload, faults, and the verdict on what was seen.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rollbook_cluster::lab_faults::Bug;

use crate::checker::{Bounds, Report, Violation, check, figures, gaps};
use crate::cluster::{Cluster, Design};
use crate::disk::Medium;
use crate::faults::{Fault, Nemesis};
use crate::harness::{Rng, ms};
use crate::history::{History, LAB, Op, Phase, Recorder, THE_END};
use crate::system;
use crate::workload::Workload;

/// Load before the first fault and between two.
const CALM: Duration = ms(1000);
/// Fewer acknowledged publishes than this prove nothing.
const LEAST: usize = 100;

/// What is to be run. The same plan with the same seed makes the same choices; the timing is the machine's.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) name: &'static str,
    pub(crate) seed: u64,
    /// One node alone, or three.
    pub(crate) nodes: u8,
    pub(crate) faults: Vec<Fault>,
    /// Faults last up to so many times as long: beyond the time after which a node is given up.
    pub(crate) stretch: u64,
    /// Another binary than the one that is tested.
    pub(crate) binary: Option<PathBuf>,
    /// What that binary is told to do wrong.
    pub(crate) bug: Option<Bug>,
    /// Faults of these kinds at random until so much time is over, instead of each once.
    pub(crate) lasts: Option<Duration>,
}

/// What came out: the violations, and where the evidence is.
pub(crate) struct Verdict {
    pub(crate) violations: Vec<Violation>,
    pub(crate) evidence: PathBuf,
    /// Faults that did not take effect.
    pub(crate) missed: usize,
}

impl Plan {
    pub(crate) fn new(name: &'static str, nodes: u8, faults: &[Fault]) -> Self {
        let faults = faults.to_vec();
        Self { name, seed: seed(), nodes, faults, stretch: 1, binary: None, bug: None, lasts: None }
    }

    /// Runs it; there must be no violation. Says so if it cannot be run here.
    pub(crate) fn must_hold(&self) {
        let Some(Verdict { violations, evidence, .. }) = self.run() else { return };
        if violations.is_empty() {
            // The figures of a long run are worth keeping.
            if self.lasts.is_none() {
                fs::remove_dir_all(evidence).expect("remove the evidence");
            }
            return;
        }
        let (report, seed) = (Report(&violations).to_string(), self.seed);
        fs::write(evidence.join("violations.txt"), &report).expect("write the violations");
        panic!("{}: ROLLBOOK_LAB_SEED={seed}: evidence in {}\n{report}", self.name, evidence.display());
    }

    /// The verdict; nothing if it cannot be run here.
    pub(crate) fn run(&self) -> Option<Verdict> {
        let binary = self.binary.clone().unwrap_or_else(binary);
        if let Some(why) = system::missing().or_else(|| unable(&binary, self.nodes)) {
            eprintln!("{}: skipped: {why}", self.name);
            return None;
        }
        // One lab at a time on a machine, whoever runs it: it needs the cores, and is judged by the clock.
        let lock = File::create(std::env::temp_dir().join("rollbook-lab.lock")).expect("create the lock of the lab");
        lock.lock().expect("lock the lab");
        let Self { name, seed, faults, .. } = self;
        let bug = self.bug.map(|bug| format!("-{bug:?}")).unwrap_or_default();
        eprintln!("{name}{bug}: ROLLBOOK_LAB_SEED={seed} {faults:?}");
        let only = if let [fault] = faults[..] { format!("-{fault:?}") } else { String::new() };
        let evidence = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lab-{name}{bug}{only}-{seed}"));
        drop(fs::remove_dir_all(&evidence));
        fs::create_dir_all(&evidence).expect("create the folder of the evidence");
        let (plan, folder) = (self.clone(), evidence.clone());
        // A thread of its own: it becomes a client of the cluster and cannot go back.
        let violations = std::thread::spawn(move || plan.drive(binary, &folder)).join();
        let (violations, missed) = violations.unwrap_or_else(|panic| {
            let words = panic.downcast_ref::<String>().map(String::as_str);
            let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
            (vec![Violation::panicked(words.unwrap_or("no words"))], 0)
        });
        Some(Verdict { violations, evidence, missed })
    }

    /// The violations, and how many faults did not take effect.
    fn drive(&self, binary: PathBuf, evidence: &Path) -> (Vec<Violation>, usize) {
        let recorder = Recorder::create(&evidence.join("history.ndjson")).expect("create the history");
        let disk = self.faults.iter().any(|fault| fault.medium() == Medium::Disk);
        let spares = u8::from(self.faults.iter().any(|fault| fault.needs_spare()));
        let clocks = self.faults.iter().any(|fault| fault.needs_clocks());
        let medium = if disk { Medium::Disk } else { Medium::Folder };
        let keeps_log = told(&binary, &["config", "dump"]).contains("log_keep_bytes");
        let design = Design { binary, founders: self.nodes, spares, medium, keeps_log, clocks, bug: self.bug };
        let mut cluster = Cluster::found(design, evidence, recorder.clone());
        let workload = Workload::start(&cluster, self.seed);
        let (rng, crowd) = (Rng::seeded(self.seed), workload.crowd());
        self.strike(&mut Nemesis { cluster: &mut cluster, rng, crowd, stretch: self.stretch });
        let end = Op::Fault { name: THE_END.to_owned(), majority: Vec::new(), graceful: false };
        [Phase::Invoke, Phase::Ok].into_iter().for_each(|phase| recorder.note(LAB, 0, phase, end.clone()));
        workload.finish(&cluster);
        let ended = cluster.casualties();
        assert!(ended.is_empty(), "nodes ended by themselves: hosts {ended:?}");
        let history = recorder.history();
        let violations = check(&history, &Bounds::default());
        self.tell(&history, violations.len());
        if self.lasts.is_some() {
            let table = figures(&history, violations.len());
            fs::write(evidence.join("figures.md"), &table).expect("write the figures");
            eprintln!("{table}");
        }
        // What a build does that is known to be wrong need not be looked at that closely.
        if !violations.is_empty() && self.bug.is_none() {
            cluster.preserve(evidence);
        }
        (violations, missed(&history))
    }

    /// All faults, each once or at random for as long as is wanted.
    fn strike(&self, nemesis: &mut Nemesis<'_>) {
        let Some(lasts) = self.lasts else {
            for fault in &self.faults {
                std::thread::sleep(CALM);
                nemesis.strike(*fault);
            }
            return;
        };
        // Of its own: how many numbers a fault draws may depend on time, which fault comes next does not.
        let mut rng = Rng::seeded(!self.seed);
        let began = Instant::now();
        while began.elapsed() < lasts {
            std::thread::sleep(CALM);
            let place = rng.pick(0, self.faults.len() as u64) as usize;
            eprint!("{:>7.1} s", began.elapsed().as_secs_f64());
            nemesis.strike(self.faults[place]);
        }
    }

    /// What was done and seen, in a line.
    fn tell(&self, history: &History, violations: usize) {
        let calls = history.calls();
        let publishes = |phase| {
            let publishes = calls.iter().filter(|call| matches!(call.op, Op::Publish(_)));
            publishes.filter(|call| call.phase == phase).count()
        };
        let (ok, fail, unknown) = (publishes(Phase::Ok), publishes(Phase::Fail), publishes(Phase::Unknown));
        let seen = history.seen().count();
        let took = Duration::from_nanos(history.end());
        eprintln!(
            "{}: {took:.1?}: {ok} publishes acknowledged, {fail} refused, {unknown} unknown; {seen} observations; {violations} violations; {} faults without effect{}",
            self.name,
            missed(history),
            gaps(history)
        );
        assert!(ok >= LEAST, "too little load to prove anything: {ok} publishes acknowledged");
    }
}

/// How many faults did not take effect.
fn missed(history: &History) -> usize {
    history.seen().filter(|record| matches!(record.op, Op::Missed { .. })).count()
}

/// From `ROLLBOOK_LAB_SEED`, else by chance.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("ROLLBOOK_LAB_SEED").ok();
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    given.and_then(|text| text.parse().ok()).unwrap_or_else(|| now.map_or(1, |age| u64::from(age.subsec_micros())))
}

/// The program under test.
fn binary() -> PathBuf {
    std::env::var_os("ROLLBOOK_LAB_BINARY").map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_rollbook")), PathBuf::from)
}

/// Why that binary cannot be run on so many nodes.
fn unable(binary: &Path, nodes: u8) -> Option<String> {
    let help = told(binary, &["serve", "--help"]);
    if help.is_empty() {
        return Some(format!("{} cannot be run", binary.display()));
    }
    (nodes > 1 && !help.contains("--cluster")).then(|| "this build has no --cluster: it is one node".to_owned())
}

/// What the program prints; nothing when it cannot be run.
fn told(binary: &Path, args: &[&str]) -> String {
    let output = Command::new(binary).args(args).stdin(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}
