//! `bench all`: runs every workload on fresh servers and prints one table of limits. Figures that are compared are
//! measured in the same rounds, because the speed of the machine drifts.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::json;
use tokio::time::sleep;

use super::args::{AllArgs, FanoutArgs, IdleArgs, ReplayArgs, StartArgs};
use super::cases::{fanout, floor, idle, publish, replay, start};
use super::child::{ScratchDir, Server, disk_bytes};
use super::client::http::Target;
use super::client::payload::Shape;
use super::context::{Context, progress_line};
use super::figures::{Case, Report, plural};
use super::limits::{Limits, Side};
use super::meter::Meter;
use super::rounds::{BATCH, Rounds, quiet};
use super::units::{count, float};
use crate::app::cli::access::resolve::{Access, Credential};
use crate::app::cli::access::secret::Token;
use crate::app::cli::access::tls::TlsFiles;
use crate::app::cli::shared::output::print;

/// The environment of a server on which every client needs a token.
const SECURED: &[(&str, &str)] = &[("ROLLBOOK_SECURITY__ENABLED", "true")];
/// Events per second of the open loop that runs while older events are settled.
const SETTLING_RATE: u64 = 50_000;

/// The sizes of all workloads.
#[derive(Debug, Clone)]
struct Scale {
    runs: u32,
    time: Duration,
    log_events: u64,
    disk_events: u64,
    idle: usize,
    subscribers: Vec<usize>,
    /// The longest wait for an idle server before each case.
    quiet: Duration,
    /// The longest wait for the log to be settled.
    settle: Duration,
}

impl Scale {
    fn new(context: &Context, quick: bool) -> Self {
        if quick {
            return Self {
                runs: 1,
                time: Duration::from_millis(300),
                log_events: 20_000,
                disk_events: 50_000,
                idle: 200,
                subscribers: vec![1, 10],
                quiet: Duration::ZERO,
                settle: Duration::from_secs(1),
            };
        }
        Self {
            runs: context.runs,
            time: context.time(),
            log_events: 1_000_000,
            disk_events: 2_000_000,
            idle: 5000,
            subscribers: vec![1, 10, 100, 1000],
            quiet: Duration::from_secs(30),
            settle: Duration::from_secs(120),
        }
    }
}

#[derive(Debug)]
struct Bench<'a> {
    base: &'a Context,
    args: &'a AllArgs,
    scale: Scale,
    limits: Limits,
    reports: Vec<Report>,
    problems: Vec<String>,
}

/// A server of this program on free ports, with a data directory of its own. The fields drop in this order: the
/// server ends before its directory is removed.
#[derive(Debug)]
struct Node {
    _server: Server,
    context: Context,
    data: ScratchDir,
}

/// Runs everything and prints the table.
pub(super) async fn run(context: &Context, args: &AllArgs, json: bool) -> Result<()> {
    let scale = Scale::new(context, args.quick);
    let (limits, reports, problems) = (Limits::default(), Vec::new(), Vec::new());
    let mut bench = Bench { base: context, args, scale, limits, reports, problems };
    let result = Box::pin(bench.publish()).await;
    bench.note("publish", result);
    let result = Box::pin(bench.log()).await;
    bench.note("log", result);
    let result = Box::pin(bench.fanout()).await;
    bench.note("fan-out", result);
    let result = Box::pin(bench.idle()).await;
    bench.note("idle", result);
    let result = Box::pin(bench.disk()).await;
    bench.note("disk", result);
    print(&bench.text(json))?;
    match bench.problems.first() {
        Some(problem) => bail!("{} problem(s), the first: {problem}", bench.problems.len()),
        None => Ok(()),
    }
}

impl Bench<'_> {
    fn note(&mut self, step: &str, result: Result<()>) {
        if let Err(error) = result {
            self.problems.push(format!("{step}: {error:#}"));
        }
    }

    /// The results as text.
    fn text(&self, json: bool) -> String {
        if json {
            let reports: Vec<_> = self.reports.iter().map(Report::json).collect();
            let all = json!({"limits": self.limits.json(), "reports": reports, "problems": self.problems});
            return format!("{all:#}");
        }
        let reports = self.reports.iter().map(|report| report.table());
        let problems = self.problems.iter().map(|problem| format!("problem: {problem}"));
        let parts: Vec<String> = std::iter::once(self.limits.markdown()).chain(reports).chain(problems).collect();
        parts.join("\n\n")
    }

    /// Starts a fresh server. The first publish creates its namespaces.
    async fn node(&self, subject: &str) -> Result<Node> {
        let data = ScratchDir::new(&self.args.dir)?;
        let kept = data.path().join("data");
        let (tls, flags) = if self.args.tls { certificate(data.path())? } else { Default::default() };
        let path = kept.to_string_lossy().into_owned();
        let addresses = ["--log", "127.0.0.1:0", "--web", "127.0.0.1:0", "--peer", "127.0.0.1:0"];
        let arguments = ["serve", "--data", &path].into_iter().chain(addresses).map(str::to_owned).chain(flags);
        let environment = if self.args.auth { SECURED } else { &[] };
        let server = Server::start(arguments.collect(), environment, data.path().join("serve.log")).await?;
        let credential = if self.args.auth { Some(Credential::Token(root_token(&kept)?)) } else { None };
        let (log, web) = (server.url("sse")?, server.url("web")?);
        ensure!(!self.args.tls || log.scheme() == "https", "the server does not speak TLS at {log}");
        let access = Access::given(web.as_str(), tls, credential);
        let context = Context {
            target: Target::resolve(&log, &access).await?,
            web: Some(Target::resolve(&web, &access).await?),
            meter: Meter::Process(server.pid()),
            subject: Some(subject.to_owned()),
            size: self.base.size,
            duration: Some(self.scale.time),
            n: None,
            runs: self.scale.runs,
        };
        Ok(Node { _server: server, context, data })
    }

    /// Measures publish, batches and their baselines in turn.
    async fn publish(&mut self) -> Result<()> {
        let node = self.node("bench.load").await?;
        let (_server, floor) = floor::start(&node.context, self.args.workers, node.data.path()).await?;
        let mut rounds = Rounds::new(&node.context)?;
        for _ in 0..self.scale.runs {
            let problems = rounds.round(&node.context, &floor, &self.args.dir, self.scale.quiet).await?;
            self.problems.extend(problems);
        }
        rounds.limits(&mut self.limits);
        self.reports.extend(rounds.reports());
        Ok(())
    }

    /// Measures start and replay on a long log.
    async fn log(&mut self) -> Result<()> {
        let node = self.node("log.load").await?;
        let started = start::run(&node.context, &StartArgs { prefill: self.scale.log_events, rare: 7 }).await?;
        let figure = |case: usize, name| started.cases.get(case).and_then(|case| case.median().get(name));
        for (what, name) in [
            ("first event, start=newest", "newest_first_ms"),
            ("first event, start=<id>", "after_id_first_ms"),
            ("replay from <id> of the last event but one", "after_id_replay_ms"),
        ] {
            let note = figure(0, name).map_or_else(String::new, |ms| format!("empty log: {ms:.2} ms"));
            self.limits.limit(what, "ms", (Side::AtMost, 5.0), figure(1, name), note);
        }
        let rare = figure(2, "rare_replay_ms");
        self.limits.limit("replay of 7 rare events", "ms", (Side::AtMost, 50.0), rare, "");
        self.reports.push(started);

        let everything = node.context.with_subject("log.>");
        quiet(&everything, self.scale.quiet).await;
        let replayed = replay::run(&everything, &ReplayArgs { prefill: 0 }).await?;
        let rate = replayed.cases.first().and_then(|case| case.median().get("events_per_s"));
        self.limits.limit("replay from oldest, 1 subscriber", "events/s", (Side::AtLeast, 400_000.0), rate, "");
        self.reports.push(replayed);
        Ok(())
    }

    async fn fanout(&mut self) -> Result<()> {
        let node = self.node("bench.fan").await?;
        let args = FanoutArgs { subscribers: self.scale.subscribers.clone(), publishers: 64, batch: 1, window: 256 };
        let report = fanout::run(&node.context, &args).await?;
        for (case, subscribers) in report.cases.iter().zip(&self.scale.subscribers) {
            let (median, what) = (case.median(), format!("fan-out to {}", plural(*subscribers, "subscriber")));
            let rate = median.get("deliveries_per_s");
            let note = median.get("p99_us").map_or_else(String::new, |us| format!("p99 {:.1} ms", us / 1e3));
            match subscribers {
                100 => self.limits.limit(what, "deliveries/s", (Side::AtLeast, 300_000.0), rate, note),
                _ => self.limits.baseline(what, "deliveries/s", rate, note),
            }
        }
        self.reports.push(report);
        Ok(())
    }

    async fn idle(&mut self) -> Result<()> {
        let node = self.node("bench.idle").await?;
        let args = IdleArgs { connections: self.scale.idle, wait: self.scale.time };
        let report = idle::run(&node.context, &args).await?;
        let figure = |name| report.cases.first().and_then(|case| case.median().get(name));
        let what = format!("memory of one of {} idle connections", args.connections);
        self.limits.limit(what, "KiB", (Side::AtMost, 10.0), figure("kib_per_connection"), "");
        self.limits.baseline("handshakes", "/s", figure("handshakes_per_s"), "");
        self.reports.push(report);
        Ok(())
    }

    /// Measures the disk use after settling, and then the latency of a steady load during settling.
    async fn disk(&mut self) -> Result<()> {
        let node = self.node("disk.load").await?;
        let events = self.scale.disk_events;
        node.context.prefill(events, None).await?;
        let settled = settle(&node, self.scale.settle).await;
        let raw = float(events) * float(count(node.context.size));
        let percent = float(disk_bytes(&node.data.path().join("data"))) / raw * 100.0;
        let note = format!("{events} events; settled up to {settled}");
        self.limits.limit("data directory / raw payload bytes", "%", (Side::AtMost, 60.0), Some(percent), note);

        node.context.prefill(events / 4, None).await?;
        let before = node.context.namespace_number("settled_index").await.unwrap_or_default();
        let shape = Shape::batch(node.context.subject(), node.context.size, BATCH)?;
        let mut case = Case::new(format!("{SETTLING_RATE}/s in batches of {BATCH}"));
        for _ in 0..self.scale.runs {
            let line = progress_line("open loop while settling".to_owned());
            let outcome = publish::once(&node.context, &shape, 4, Some(SETTLING_RATE)).await?;
            line.finish_and_clear();
            case.runs.push(outcome.figures());
            self.problems.extend(outcome.first_error);
        }
        let after = node.context.namespace_number("settled_index").await.unwrap_or_default();
        let p99 = case.median().get("p99_us").map(|us| us / 1e3);
        let note = format!("{} events settled meanwhile", after.saturating_sub(before));
        let what = format!("p99 at {SETTLING_RATE} events/s while settling");
        self.limits.limit(what, "ms", (Side::AtMost, 20.0), p99, note);
        self.reports.push(Report { bench: "settling", cases: vec![case], first_error: None });
        Ok(())
    }
}

/// Makes a certificate for a server at 127.0.0.1 that nobody else trusts: the files of its clients, and the flags of the
/// server.
fn certificate(folder: &Path) -> Result<(TlsFiles, Vec<String>)> {
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::IpAddress([127, 0, 0, 1].into())];
    let pair = KeyPair::generate()?;
    let (certificate, key) = (folder.join("server.pem"), folder.join("server.key"));
    fs::write(&certificate, params.self_signed(&pair)?.pem())?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&key)?;
    file.write_all(pair.serialize_pem().as_bytes())?;
    let flag = |name: &str, path: &Path| [name.to_owned(), path.to_string_lossy().into_owned()];
    let flags = [flag("--tls-certificate", &certificate), flag("--tls-key", &key)].concat();
    Ok((TlsFiles { ca: Some(certificate), ..TlsFiles::default() }, flags))
}

/// The token that a node writes at its first start.
fn root_token(data: &Path) -> Result<Token> {
    let path = data.join("root.token");
    ensure!(path.exists(), "the server wrote no {}: this program knows no tokens, so leave --auth out", path.display());
    Token::from_file(&path)
}

/// Waits until the settled index and the size of the data directory have stopped changing.
async fn settle(node: &Node, longest: Duration) -> u64 {
    const SAMPLE: Duration = Duration::from_millis(500);
    let line = progress_line("waiting until the log is settled".to_owned());
    let (deadline, mut same, mut last) = (Instant::now() + longest, 0, (0, 0));
    while same < 12 && Instant::now() < deadline {
        sleep(SAMPLE).await;
        let settled = node.context.namespace_number("settled_index").await.unwrap_or_default();
        let now = (settled, disk_bytes(&node.data.path().join("data")));
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    line.finish_and_clear();
    last.0
}
