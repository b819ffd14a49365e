//! An hour of everything: three nodes before and after clients of all kinds and many kills.

use std::thread::{self, ScopedJoinHandle};
use std::time::{Duration, Instant};

use super::churn::{self, Client, Load};
use super::figures::{self, Figures, Sizes};
use super::{Ends, Known, branch, kill, seconds, start_again};
use crate::harness::cluster::Cluster;
use crate::harness::{Rng, SOON, ms, report, wait_for};

/// The node that is never killed, whose figures are judged.
const STAYS: usize = 3;
/// Clients that do one operation after the other.
const CLIENTS: usize = 6;
/// How long nodes are left alone before they are measured, and for how long they are measured then.
const REST: Duration = Duration::from_secs(10);
/// Shortest time from one kill to the next.
const KILL_EVERY_MIN: Duration = Duration::from_secs(10);
/// How long a killed node stays away.
const AWAY: Duration = Duration::from_secs(2);
/// Longest time in which what clients have left behind must be gone: a Socket.IO session waits 45 s for a sign of life.
const SETTLED: Duration = Duration::from_secs(90);
/// Descriptors of a node beyond those that it had, while it settles and at the end: links between nodes are made when
/// they are first used.
const DESCRIPTORS_SETTLED_MAX: usize = 10;
const DESCRIPTORS_MORE_MAX: usize = 16;
/// Files that a store may have open, and how many stores there are. A store opens a file when it is read for the first
/// time, so that their number grows until the store has as many files as it needs: from two thirds of the time on it
/// may grow by a quarter and this.
const FILES_MAX: usize = 3 * 512;
const FILES_MORE_MAX: usize = 64;
const THREADS_MORE_MAX: u64 = 2;
/// Anonymous memory may grow by a quarter and this from the first quarter of the time to its end.
const GROWTH_KIB_MAX: u64 = 16 << 10;
/// Percentage points of a processor that an idle node may use more.
const CPU_MORE_MAX: f64 = 1.0;

#[test]
#[ignore = "takes long: make soak"]
fn an_hour_of_everything_leaves_nothing_behind() {
    let Some(seconds) = seconds() else { return };
    let mut rng = Rng::from_env("an hour of everything");
    let mut cluster = Cluster::start();
    churn::prepare(&cluster);
    let before = at_rest(&cluster);
    let (known, load) = (Known::of(&cluster), Load::default());
    let growth = thread::scope(|scope| {
        let _ends = Ends(&load.stop);
        let publisher = Client::new(CLIENTS, branch(&mut rng), &known, &load);
        let mut threads = vec![scope.spawn(move || publisher.publish())];
        for number in 0..CLIENTS {
            let client = Client::new(number, branch(&mut rng), &known, &load);
            threads.push(scope.spawn(move || client.run()));
        }
        under_load(&mut cluster, &known, Duration::from_secs(seconds), &threads)
    });
    eprintln!("\n{}\n", load.table());
    let mut failures = settle(&cluster, &before);
    let after = at_rest(&cluster);
    eprintln!("\n{HEAD}");
    for (node, (before, after)) in (1..).zip(before.iter().zip(&after)) {
        eprintln!("{}\n{}", row(node, "before", before), row(node, "after", after));
    }
    eprintln!("\n{growth}");
    failures.extend(judged(&before[STAYS - 1], &after[STAYS - 1]));
    failures.extend(growth.judged());
    failures.extend(load.never_done());
    report("after the soak", &failures);
}

/// Figures of all nodes when they have had nothing to do for a while. The node that stays leads, so that its work is
/// the same each time.
fn at_rest(cluster: &Cluster) -> Vec<Figures> {
    wait_for("the node that stays to lead", SOON * 3, || {
        (cluster.view(STAYS)["leader"] == STAYS as u64 || lead(cluster, STAYS)).then_some(())
    });
    thread::sleep(REST);
    figures::of_all(cluster, REST)
}

/// Makes a node the leader, if the cluster can do that now.
fn lead(cluster: &Cluster, id: usize) -> bool {
    let wanted = format!("{{\"to\":{id}}}");
    cluster.node(STAYS).web("POST", "/api/cluster/transfer", &wanted).status == 200
}

/// What grows with the stores of the node that stays, all under load: anonymous memory when a quarter of the time was
/// over and at its end, open files of the stores when two thirds were over and at its end.
struct Growth {
    quarter_kib: u64,
    end_kib: u64,
    late_files: usize,
    end_files: usize,
}

impl Growth {
    const fn max_kib(&self) -> u64 {
        self.quarter_kib + self.quarter_kib / 4 + GROWTH_KIB_MAX
    }

    fn files_max(&self) -> usize {
        (self.late_files + self.late_files / 4 + FILES_MORE_MAX).min(FILES_MAX)
    }

    fn judged(&self) -> Option<String> {
        let grew = self.end_kib > self.max_kib() || self.end_files > self.files_max();
        grew.then(|| format!("it grew: {self}"))
    }
}

impl std::fmt::Display for Growth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { quarter_kib, end_kib, late_files, end_files } = self;
        let (most, files_most) = (self.max_kib(), self.files_max());
        write!(f, "anonymous memory of node {STAYS} under load: {quarter_kib} KiB after a quarter of the time, ")?;
        write!(f, "{end_kib} KiB at its end, at most {most} KiB; ")?;
        write!(f, "open files of its stores: {late_files} after two thirds of the time, ")?;
        write!(f, "{end_files} at its end, at most {files_most}")
    }
}

/// Kills nodes and looks at the one that stays, while clients do what they do.
fn under_load(cluster: &mut Cluster, known: &Known, long: Duration, threads: &[ScopedJoinHandle<'_, ()>]) -> Growth {
    let (kill_every, line_every) = ((long / 60).max(KILL_EVERY_MIN), long / 12);
    let (mut next_kill, mut next_line) = (kill_every, line_every);
    let (mut kills, mut leaders, mut quarter_kib, mut late_files) = (0, 0, None, None);
    eprintln!("| seconds | RSS MiB | anonymous MiB | threads | descriptors | files of stores | actors | CPU s |");
    eprintln!("|---|---|---|---|---|---|---|---|");
    let began = Instant::now();
    while began.elapsed() < long {
        assert!(!threads.iter().any(ScopedJoinHandle::is_finished), "a client of the soak has panicked");
        if began.elapsed() >= next_kill {
            next_kill += kill_every;
            let victim = 1 + kills % 2;
            kills += 1;
            leaders += usize::from(lead(cluster, victim));
            kill(cluster, known, victim);
            thread::sleep(AWAY);
            start_again(cluster, known, victim);
        }
        if quarter_kib.is_none() && began.elapsed() >= long / 4 {
            quarter_kib = Some(Sizes::of(cluster.node(STAYS)).anonymous_kib);
        }
        if late_files.is_none() && began.elapsed() >= long * 2 / 3 {
            late_files = Some(Sizes::of(cluster.node(STAYS)).files);
        }
        if began.elapsed() >= next_line {
            next_line += line_every;
            eprintln!("{}", line(began.elapsed(), &Sizes::of(cluster.node(STAYS))));
        }
        thread::sleep(ms(100));
    }
    let sizes = Sizes::of(cluster.node(STAYS));
    eprintln!("{}", line(began.elapsed(), &sizes));
    eprintln!("{kills} kills, {leaders} of them of a node that had just been made the leader");
    Growth {
        quarter_kib: quarter_kib.unwrap_or(sizes.anonymous_kib),
        end_kib: sizes.anonymous_kib,
        late_files: late_files.unwrap_or(sizes.files),
        end_files: sizes.files,
    }
}

/// Sizes of the node that stays, as a row of Markdown.
fn line(at: Duration, sizes: &Sizes) -> String {
    format!(
        "| {:.0} | {:.1} | {:.1} | {} | {} | {} | {}: {} | {:.1} |",
        at.as_secs_f64(),
        sizes.resident_mib(),
        sizes.anonymous_mib(),
        sizes.threads,
        sizes.descriptors,
        sizes.files,
        sizes.actors_sum(),
        sizes.kinds(),
        sizes.cpu_seconds,
    )
}

/// Waits until every node has the actors that it had, and hardly more descriptors: what is not as it was.
fn settle(cluster: &Cluster, before: &[Figures]) -> Vec<String> {
    let left = || -> Vec<String> {
        let rows = (1..).zip(before).filter_map(|(node, before)| {
            let (before, now) = (&before.sizes, Sizes::of(cluster.node(node)));
            let settled = now.descriptors <= before.descriptors + DESCRIPTORS_SETTLED_MAX;
            (now.actors != before.actors || !settled).then(|| {
                let descriptors = format!("{} descriptors, {} before", now.descriptors, before.descriptors);
                format!("node {node} has the actors {} and {descriptors}", now.kinds())
            })
        });
        rows.collect()
    };
    let began = Instant::now();
    loop {
        let left = left();
        if left.is_empty() {
            eprintln!("{:.1?} after the last client the nodes have what they had before", began.elapsed());
            return left;
        }
        if began.elapsed() > SETTLED {
            return left;
        }
        thread::sleep(ms(500));
    }
}

const HEAD: &str = "| node | when | CPU % | wake-ups/s | interruptions/s | RSS MiB | anonymous MiB | threads | \
                    descriptors | files of stores | actors | streams |\n\
                    |---|---|---|---|---|---|---|---|---|---|---|---|";

fn row(node: usize, when: &str, figures: &Figures) -> String {
    let Figures { cpu_percent, woken, interrupted, sizes } = figures;
    let work = format!("{cpu_percent:.2} | {woken:.0} | {interrupted:.0}");
    format!(
        "| {node} | {when} | {work} | {:.1} | {:.1} | {} | {} | {} | {} | {} |",
        sizes.resident_mib(),
        sizes.anonymous_mib(),
        sizes.threads,
        sizes.descriptors,
        sizes.files,
        sizes.kinds(),
        sizes.subscriptions,
    )
}

/// What the node that stays has or does more than it may.
fn judged(before: &Figures, after: &Figures) -> Vec<String> {
    let (had, has) = (&before.sizes, &after.sizes);
    let woken_max = before.woken * 1.5 + 50.0;
    let rules = [
        (has.actors == had.actors, format!("actors: {}, before {}", has.kinds(), had.kinds())),
        (
            has.subscriptions == had.subscriptions,
            format!("streams: {}, before {}", has.subscriptions, had.subscriptions),
        ),
        (has.threads <= had.threads + THREADS_MORE_MAX, format!("threads: {}, before {}", has.threads, had.threads)),
        (
            has.descriptors <= had.descriptors + DESCRIPTORS_MORE_MAX,
            format!("descriptors: {}, before {}", has.descriptors, had.descriptors),
        ),
        (
            after.cpu_percent <= before.cpu_percent + CPU_MORE_MAX,
            format!("idle CPU: {:.2} %, before {:.2} %", after.cpu_percent, before.cpu_percent),
        ),
        (after.woken <= woken_max, format!("wake-ups: {:.0}/s, at most {woken_max:.0}/s", after.woken)),
    ];
    rules.into_iter().filter(|(kept, _)| !kept).map(|(_, what)| format!("node {STAYS}: {what}")).collect()
}
