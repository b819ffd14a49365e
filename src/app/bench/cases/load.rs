//! The publish load of `publish`, `batch` and `floor`: keep-alive connections in a closed or an open loop.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rollbook_cluster::lock::lock;
use tokio::task::JoinSet;
use tokio::time::{sleep_until, timeout};

use crate::app::bench::client::http::{Connection, Target};
use crate::app::bench::client::pace::{Pacer, Schedule};
use crate::app::bench::client::payload::{Random, Request, Shape};
use crate::app::bench::figures::{Figures, Latency, latency, record};
use crate::app::bench::meter::{Meter, own_cpu_seconds};
use crate::app::bench::units::{Clock, count, float, nanos, per_second};

/// Requests that are prepared for each connection, so that neighbours in the log differ.
const REQUESTS_READY: usize = 16;
/// Most events that are prepared for each connection.
const EVENTS_READY: usize = 8000;
/// Longest load before each timed run, which is not measured.
const WARM_UP_MAX: Duration = Duration::from_millis(500);
/// How long an open loop continues to send requests that were due before its end. The others are counted as given up.
const OVERTIME: Duration = Duration::from_secs(5);
/// How long the server may take to answer the requests in flight at the end of a run.
const DRAIN: Duration = Duration::from_secs(30);

/// When a run ends.
#[derive(Debug, Clone, Copy)]
pub(in crate::app::bench) enum Stop {
    /// After this time.
    After(Duration),
    /// After this many operations.
    Count(u64),
}

/// One run of publish load.
#[derive(Debug)]
pub(in crate::app::bench) struct Plan<'a> {
    /// The server to publish to.
    pub(in crate::app::bench) target: &'a Target,
    /// The source of the server's CPU time.
    pub(in crate::app::bench) meter: &'a Meter,
    /// The content of each request.
    pub(in crate::app::bench) shape: &'a Shape,
    /// Keep-alive connections, one request in flight on each.
    pub(in crate::app::bench) connections: usize,
    /// Events per second; `None` is a closed loop.
    pub(in crate::app::bench) rate: Option<u64>,
    /// End of the run; counted in requests.
    pub(in crate::app::bench) stop: Stop,
}

/// The result of a run.
#[derive(Debug)]
pub(in crate::app::bench) struct Outcome {
    /// Requests answered with 202 in the measured time.
    pub(in crate::app::bench) accepted: u64,
    /// Requests answered otherwise or not at all, in the whole run.
    pub(in crate::app::bench) errors: u64,
    /// The first error.
    pub(in crate::app::bench) first_error: Option<String>,
    events: u64,
    latency: Latency,
    /// The delay of the sends of an open loop, and the requests that were given up.
    lag: Option<(Latency, u64)>,
    elapsed: Duration,
    server_cpu: Option<f64>,
    own_cpu: Option<f64>,
}

impl Outcome {
    /// The figures of the run.
    pub(in crate::app::bench) fn figures(&self) -> Figures {
        let (mut figures, events) = (Figures::default(), self.accepted * self.events);
        let per_event = |seconds: f64| seconds * 1e6 / float(events.max(1));
        figures.set("events_per_s", per_second(events, self.elapsed));
        figures.set_latency(&self.latency);
        figures.set_known("server_cpu_us", self.server_cpu.map(per_event));
        figures.set_known("client_cpu_us", self.own_cpu.map(per_event));
        if let Some((lag, given_up)) = &self.lag {
            figures.set("send_lag_p50_us", float(lag.value_at_quantile(0.5)) / 1e3);
            figures.set("given_up", float(*given_up));
        }
        figures.set("errors", float(self.errors));
        figures
    }
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    measure_from: u64,
    until: u64,
    /// Requests to send in all, so that the connections stop together.
    budget: u64,
    tickets: AtomicU64,
    pace: Option<(Schedule, Pacer)>,
    accepted: AtomicU64,
    errors: AtomicU64,
    given_up: AtomicU64,
    last_done: AtomicU64,
    latency: Mutex<Latency>,
    lag: Mutex<Latency>,
    first_error: Mutex<Option<String>>,
}

/// Runs the plan to its end.
pub(in crate::app::bench) async fn drive(plan: &Plan<'_>) -> Result<Outcome> {
    ensure!(plan.connections > 0, "--connections must be at least 1");
    let mut ready = Vec::with_capacity(plan.connections);
    for seed in 0..plan.connections {
        let connection = Connection::open(plan.target).await?;
        ready.push((connection, requests(plan, count(seed))));
    }
    let shared = Arc::new(shared(plan)?);
    let mut cpu = (plan.meter.cpu_seconds().await, own_cpu_seconds());
    let mut workers = JoinSet::new();
    for (connection, requests) in ready {
        workers.spawn(work(Arc::clone(&shared), plan.target.clone(), connection, requests));
    }
    let mut used = (None, None);
    if let Stop::After(_) = plan.stop {
        sleep_until(shared.clock.instant(shared.measure_from).into()).await;
        cpu = (plan.meter.cpu_seconds().await, own_cpu_seconds());
        sleep_until(shared.clock.instant(shared.until).into()).await;
        used = (plan.meter.cpu_seconds().await, own_cpu_seconds());
        timeout(DRAIN, join(workers)).await.context("requests still unanswered 30 s after the end of the run")??;
    } else {
        join(workers).await?;
    }
    if plan.rate.is_some() || matches!(plan.stop, Stop::Count(_)) {
        used = (plan.meter.cpu_seconds().await, own_cpu_seconds());
    }
    let shared = Arc::into_inner(shared).context("a connection outlived its run")?;
    Ok(outcome(plan, shared, cpu, used))
}

type Cpu = (Option<f64>, Option<f64>);

fn outcome(plan: &Plan<'_>, shared: Shared, before: Cpu, after: Cpu) -> Outcome {
    let last = shared.last_done.into_inner();
    let end = match plan.stop {
        Stop::Count(_) => last,
        Stop::After(_) if plan.rate.is_some() => last.max(shared.until),
        Stop::After(_) => shared.until,
    };
    let used = |before: Option<f64>, after: Option<f64>| Some(after? - before?);
    Outcome {
        accepted: shared.accepted.into_inner(),
        errors: shared.errors.into_inner(),
        first_error: taken(shared.first_error),
        events: plan.shape.events(),
        latency: taken(shared.latency),
        lag: plan.rate.is_some().then(|| (taken(shared.lag), shared.given_up.into_inner())),
        elapsed: Duration::from_nanos(end.saturating_sub(shared.measure_from)),
        server_cpu: used(before.0, after.0),
        own_cpu: used(before.1, after.1),
    }
}

fn taken<T>(value: Mutex<T>) -> T {
    value.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn shared(plan: &Plan<'_>) -> Result<Shared> {
    let clock = Clock::start();
    let (warm_up, mut until, mut budget) = match plan.stop {
        Stop::After(time) => {
            let warm_up = nanos((time / 5).min(WARM_UP_MAX));
            (warm_up, warm_up.saturating_add(nanos(time)), u64::MAX)
        }
        Stop::Count(n) => (0, u64::MAX, n),
    };
    let mut pace = None;
    if let Some(rate) = plan.rate {
        ensure!(rate > 0, "--rate must be at least 1");
        let interval = (plan.shape.events().saturating_mul(1_000_000_000) / rate).max(1);
        let schedule = Schedule { start: clock.now(), interval, total: budget.min(until / interval) };
        budget = schedule.total;
        until = until.saturating_add(schedule.start);
        pace = Some((schedule, Pacer::start(clock, schedule, plan.connections)?));
    }
    Ok(Shared {
        clock,
        measure_from: warm_up,
        until,
        budget,
        tickets: AtomicU64::new(0),
        pace,
        accepted: AtomicU64::new(0),
        errors: AtomicU64::new(0),
        given_up: AtomicU64::new(0),
        last_done: AtomicU64::new(0),
        latency: Mutex::new(latency()?),
        lag: Mutex::new(latency()?),
        first_error: Mutex::new(None),
    })
}

fn requests(plan: &Plan<'_>, seed: u64) -> Vec<Request> {
    let mut random = Random::new(seed + 1);
    let each = usize::try_from(plan.shape.events()).unwrap_or(usize::MAX);
    let ready = (EVENTS_READY / each.max(1)).clamp(1, REQUESTS_READY);
    (0..ready).map(|_| Request::new(plan.target, plan.shape, &mut random)).collect()
}

async fn join(mut workers: JoinSet<Result<()>>) -> Result<()> {
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

/// Sends one request after the other over one connection, and waits for each answer.
async fn work(
    shared: Arc<Shared>,
    target: Target,
    mut connection: Connection,
    mut requests: Vec<Request>,
) -> Result<()> {
    let mut turn = 0;
    loop {
        if let Some((_, pacer)) = &shared.pace {
            pacer.next().await;
        }
        let ticket = shared.tickets.fetch_add(1, Ordering::Relaxed);
        let now = shared.clock.now();
        let intended = shared.pace.as_ref().map_or(now, |(schedule, _)| schedule.due(ticket));
        if ticket >= shared.budget || intended >= shared.until {
            return Ok(());
        }
        if shared.pace.is_some() && !shared.in_time(intended, now) {
            continue;
        }
        turn = (turn + 1) % requests.len().max(1);
        let Some(request) = requests.get_mut(turn) else {
            return Ok(());
        };
        match connection.exchange(request.stamped(now)).await {
            Ok(reply) if reply.status == 202 => shared.accept(intended),
            Ok(reply) => shared.refuse(|| reply.describe()),
            Err(error) => {
                shared.refuse(|| format!("{error:#}"));
                connection = Connection::open(&target).await?;
            }
        }
    }
}

impl Shared {
    fn accept(&self, intended: u64) {
        let now = self.clock.now();
        // An open loop counts the requests that were due in the measured time, even if their answers come later.
        let measured = if self.pace.is_some() { intended } else { now };
        if (self.measure_from..self.until).contains(&measured) {
            self.accepted.fetch_add(1, Ordering::Relaxed);
            self.last_done.fetch_max(now, Ordering::Relaxed);
            record(&self.latency, now.saturating_sub(intended));
        }
    }

    /// Whether a request of an open loop may still be sent. A request that may not counts as late.
    fn in_time(&self, intended: u64, now: u64) -> bool {
        if intended < self.measure_from {
            // Requests left over from the warm-up would count in the measured time.
            return now < self.measure_from;
        }
        let late = now.saturating_sub(intended);
        record(&self.lag, late);
        let in_time = now < self.until.saturating_add(nanos(OVERTIME));
        if !in_time {
            self.given_up.fetch_add(1, Ordering::Relaxed);
            record(&self.latency, late);
        }
        in_time
    }

    fn refuse(&self, describe: impl FnOnce() -> String) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        let mut first = lock(&self.first_error);
        first.get_or_insert_with(describe);
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::app::bench::client::http::header;

    /// Answers every tenth request with 503, the others with 202, each answer in two writes.
    async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
        let (mut input, mut requests) = (Vec::new(), 0);
        while stream.read_buf(&mut input).await? > 0 {
            let Some(head) = memchr::memmem::find(&input, b"\r\n\r\n") else {
                continue;
            };
            let length = String::from_utf8_lossy(header(&input, b"content-length").unwrap()).parse::<usize>().unwrap();
            if input.len() < head + 4 + length {
                continue;
            }
            assert_eq!(input.len(), head + 4 + length, "more than one request in flight");
            input.clear();
            requests += 1;
            let (status, rest) = if requests % 10 == 0 {
                ("503 No", "content-length: 5\r\n\r\nbusy\n")
            } else {
                ("202 Ok", "content-length: 0\r\n\r\n")
            };
            stream.write_all(format!("HTTP/1.1 {status}\r\n").as_bytes()).await?;
            stream.write_all(rest.as_bytes()).await?;
        }
        Ok(())
    }

    async fn load(rate: Option<u64>, stop: Stop) -> Outcome {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        let target = Target::plain(addr);
        let shape = Shape::single("a.b", 200).unwrap();
        let (meter, connections) = (Meter::Unknown, 2);
        drive(&Plan { target: &target, meter: &meter, shape: &shape, connections, rate, stop }).await.unwrap()
    }

    #[tokio::test]
    async fn every_request_is_counted_once() {
        let outcome = load(None, Stop::Count(100)).await;
        assert_eq!(outcome.accepted + outcome.errors, 100);
        assert!((8..=10).contains(&outcome.errors), "{}", outcome.errors);
        assert_eq!(outcome.first_error.as_deref(), Some("HTTP 503: busy"));
        assert_eq!(outcome.latency.len(), outcome.accepted);
    }

    #[tokio::test]
    async fn an_open_loop_sends_what_is_due_and_no_more() {
        let outcome = load(Some(1000), Stop::After(Duration::from_millis(200))).await;
        let sent = outcome.accepted + outcome.errors;
        assert!((180..=240).contains(&sent), "{sent} of 200 and up to 40 of the warm-up");
        assert_eq!(outcome.lag.map(|(_, given_up)| given_up), Some(0));
    }
}
