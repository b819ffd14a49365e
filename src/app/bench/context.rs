//! The parts that every workload needs: addresses of the server, size and length of runs, progress on a terminal.

use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::args::Common;
use super::cases::load::Stop;
use super::client::http::{Connection, Target};
use super::client::payload::{Random, Request, Shape};
use super::meter::Meter;
use super::units::{Clock, nanos};

/// The default subject of a workload.
const SUBJECT: &str = "bench.load";
const DURATION: Duration = Duration::from_secs(5);
/// Events of one prefill request.
const PREFILL_BATCH: u64 = 1000;

/// The server under test, and the parameters of the runs.
#[derive(Debug, Clone)]
pub(super) struct Context {
    /// Event log listener.
    pub(super) target: Target,
    /// Web listener, if the address can be resolved.
    pub(super) web: Option<Target>,
    /// The source of the server's CPU time.
    pub(super) meter: Meter,
    /// Subject given on the command line.
    pub(super) subject: Option<String>,
    /// Bytes of a payload.
    pub(super) size: usize,
    /// Time of a run given on the command line.
    pub(super) duration: Option<Duration>,
    /// Number of operations given on the command line.
    pub(super) n: Option<u64>,
    /// Runs of each case.
    pub(super) runs: u32,
}

impl Context {
    /// Resolves the addresses on the command line.
    pub(super) async fn new(common: &Common) -> Result<Self> {
        let web = Target::resolve(&common.access.web_url()?, &common.access).await.ok();
        Ok(Self {
            target: Target::resolve(&common.access.log_url()?, &common.access).await?,
            meter: Meter::find(common.pid, web.as_ref()).await,
            web,
            subject: common.subject.clone(),
            size: common.size,
            duration: common.duration,
            n: common.n,
            runs: common.runs,
        })
    }

    /// The end of a timed run.
    pub(super) fn stop(&self) -> Stop {
        self.n.map_or_else(|| Stop::After(self.time()), Stop::Count)
    }

    /// The length of a run that has no number of operations.
    pub(super) fn time(&self) -> Duration {
        self.duration.unwrap_or(DURATION)
    }

    /// The subject to publish to.
    pub(super) fn subject(&self) -> &str {
        self.subject.as_deref().unwrap_or(SUBJECT)
    }

    /// The same context with another subject.
    pub(super) fn with_subject(&self, subject: &str) -> Self {
        Self { subject: Some(subject.to_owned()), ..self.clone() }
    }

    /// First segment of the subject.
    pub(super) fn namespace(&self) -> &str {
        self.subject().split('.').next().unwrap_or_default()
    }

    /// Publishes one event over `connection` and returns its id.
    pub(super) async fn publish_one(&self, connection: &mut Connection, subject: &str) -> Result<String> {
        let shape = Shape::single(subject, self.size)?;
        let mut random = Random::new(nanos(SystemTime::UNIX_EPOCH.elapsed()?));
        let mut request = Request::new(&self.target, &shape, &mut random);
        let reply = connection.ask(request.stamped(0)).await?;
        ensure!(reply.status == 202, "publish to {subject}: {}", reply.describe());
        reply.header("X-BUS-EVENT-ID").context("the answer to a publish has no X-BUS-EVENT-ID")
    }

    /// Publishes one event, which creates the namespace, so that clients can subscribe.
    pub(super) async fn create_namespace(&self) -> Result<()> {
        let mut connection = Connection::open(&self.target).await?;
        self.publish_one(&mut connection, self.subject()).await.map(drop)
    }

    /// Publishes `events` varied events in batches. `rare` names another subject and the number of its events, which
    /// are spread among the others.
    pub(super) async fn prefill(&self, events: u64, rare: Option<(&str, u64)>) -> Result<()> {
        let mut connection = Connection::open(&self.target).await?;
        let bar = progress_bar(events, "prefill");
        let (mut random, clock) = (Random::new(events), Clock::start());
        let (rare_subject, rare_count) = rare.unwrap_or_default();
        let (mut done, mut rare_done) = (0, 0);
        while done < events {
            let batch = PREFILL_BATCH.min(events - done);
            let shape = Shape::batch(self.subject(), self.size, usize::try_from(batch)?)?;
            let mut request = Request::new(&self.target, &shape, &mut random);
            let reply = connection.ask(request.stamped(clock.now())).await?;
            ensure!(reply.status == 202, "prefill of {}: {}", self.subject(), reply.describe());
            done += batch;
            bar.inc(batch);
            // Each rare event stands in the middle of its share of the log, so that none is first or last.
            while rare_done < rare_count && done * 2 * rare_count >= (2 * rare_done + 1) * events {
                self.publish_one(&mut connection, rare_subject).await?;
                rare_done += 1;
            }
        }
        for _ in rare_done..rare_count {
            self.publish_one(&mut connection, rare_subject).await?;
        }
        bar.finish_and_clear();
        Ok(())
    }

    /// The JSON of the namespace from the web listener.
    pub(super) async fn namespace_state(&self) -> Result<Value> {
        let web = self.web.as_ref().context("the address given with --web cannot be resolved")?;
        let mut connection = Connection::open(web).await?;
        let path = format!("/api/namespaces/{}", self.namespace());
        let reply = connection.ask(&web.get(&path, "application/json")).await?;
        ensure!(reply.status == 200, "GET {path}: {}", reply.describe());
        Ok(serde_json::from_slice(&reply.body)?)
    }

    /// A number in the JSON of the namespace.
    pub(super) async fn namespace_number(&self, field: &str) -> Result<u64> {
        let state = self.namespace_state().await?;
        state.get(field).and_then(Value::as_u64).with_context(|| format!("the namespace has no number `{field}`"))
    }
}

/// A progress bar on standard error, shown only on a terminal.
pub(super) fn progress_bar(length: u64, message: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
    let bar = ProgressBar::new(length).with_message(message);
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// A line on standard error that names the present run, shown only on a terminal.
pub(super) fn progress_line(message: String) -> ProgressBar {
    let line = ProgressBar::new_spinner().with_message(message);
    line.enable_steady_tick(Duration::from_millis(250));
    line
}
