//! `bench fanout`: publishers in a closed loop, with many SSE subscribers.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rollbook_cluster::lock::lock;
use rollbook_cluster::wait::wait_until;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::app::bench::args::FanoutArgs;
use crate::app::bench::client::http::Connection;
use crate::app::bench::client::payload::{Random, Request, Shape, StampReader};
use crate::app::bench::client::sse::Subscriber;
use crate::app::bench::context::{Context, progress_line};
use crate::app::bench::figures::{Case, Figures, Latency, Report, latency, plural, record};
use crate::app::bench::meter::own_cpu_seconds;
use crate::app::bench::units::{Clock, count, float, nanos, per_second};

/// Receive buffer of a subscriber.
const BUFFER_BYTES: usize = 16 * 1024;
/// Most subscribe requests in flight.
const OPENING_MAX: usize = 64;
/// Steps of progress that are counted separately. Publishers are never this many steps ahead.
const STEPS: usize = 16;
/// How long subscribers may take to receive the published events.
const DRAIN: Duration = Duration::from_secs(30);

/// Runs `fanout` for each number of subscribers.
pub(in crate::app::bench) async fn run(context: &Context, args: &FanoutArgs) -> Result<Report> {
    let mut report = Report { bench: "fanout", cases: Vec::new(), first_error: None };
    context.create_namespace().await?;
    for &subscribers in &args.subscribers {
        let mut case = Case::new(plural(subscribers, "subscriber"));
        for run in 1..=context.runs {
            let line = progress_line(format!("fanout: {}, run {run} of {}", case.name, context.runs));
            case.runs.push(once(context, args, subscribers).await?);
            line.finish_and_clear();
        }
        report.cases.push(case);
    }
    Ok(report)
}

/// The progress of all subscribers. Publishers read one value and not each subscriber.
#[derive(Debug)]
struct Gate {
    subscribers: u64,
    /// Events of one step.
    step: u64,
    /// The subscribers that have reached each step, in a ring.
    reached: [AtomicU64; STEPS],
    /// Events that every subscriber has received.
    floor: watch::Sender<u64>,
}

impl Gate {
    fn new(subscribers: u64, window: u64) -> Self {
        let step = (window / 4).max(1);
        Self { subscribers, step, reached: Default::default(), floor: watch::Sender::new(0) }
    }

    /// Records that one subscriber went from `before` to `after` events.
    fn advance(&self, before: u64, after: u64) {
        for step in before / self.step + 1..=after / self.step {
            let slot = usize::try_from(step).ok().and_then(|step| self.reached.get(step % STEPS));
            let Some(slot) = slot else { continue };
            if slot.fetch_add(1, Ordering::AcqRel) + 1 == self.subscribers {
                slot.store(0, Ordering::Release);
                let passed = step * self.step;
                self.floor.send_if_modified(|floor| {
                    let higher = passed > *floor;
                    *floor = passed.max(*floor);
                    higher
                });
            }
        }
    }
}

#[derive(Debug)]
struct Shared {
    clock: Clock,
    until: u64,
    window: u64,
    gate: Gate,
    /// Events that publishers have reserved, so that the window holds for all publishers together.
    reserved: AtomicU64,
    received: AtomicU64,
    last_received: AtomicU64,
    latency: Mutex<Latency>,
}

async fn once(context: &Context, args: &FanoutArgs, subscribers: usize) -> Result<Figures> {
    ensure!(subscribers > 0 && args.publishers > 0, "--subscribers and --publishers must be at least 1");
    ensure!(args.window >= 4 * count(args.batch), "--window must be at least four batches");
    let opened = open(context, context.subject(), subscribers).await?;
    let cpu = (context.meter.cpu_seconds().await, own_cpu_seconds());
    let clock = Clock::start();
    let shared = Arc::new(Shared {
        clock,
        until: clock.now().saturating_add(nanos(context.time())),
        window: args.window,
        gate: Gate::new(count(subscribers), args.window),
        reserved: AtomicU64::new(0),
        received: AtomicU64::new(0),
        last_received: AtomicU64::new(0),
        latency: Mutex::new(latency()?),
    });
    let mut readers = JoinSet::new();
    for subscriber in opened {
        readers.spawn(receive(Arc::clone(&shared), subscriber));
    }
    let mut publishers = JoinSet::new();
    for seed in 0..args.publishers {
        publishers.spawn(publish(Arc::clone(&shared), context.clone(), args.batch, count(seed)));
    }
    let limit = context.time() + DRAIN;
    timeout(limit, finish(&shared, &mut readers, publishers, count(subscribers))).await.with_context(|| {
        let (sent, got) = (shared.reserved.load(Ordering::Relaxed), shared.received.load(Ordering::Relaxed));
        format!("{subscribers} subscribers received {got} events of {sent} published, then nothing")
    })??;
    let after = (context.meter.cpu_seconds().await, own_cpu_seconds());
    Ok(figures(&shared, cpu, after))
}

type Cpu = (Option<f64>, Option<f64>);

fn figures(shared: &Shared, before: Cpu, after: Cpu) -> Figures {
    let deliveries = shared.received.load(Ordering::Relaxed);
    let elapsed = Duration::from_nanos(shared.last_received.load(Ordering::Relaxed));
    let each = |before: Option<f64>, after: Option<f64>| Some((after? - before?) * 1e6 / float(deliveries.max(1)));
    let mut figures = Figures::default();
    figures.set("deliveries_per_s", per_second(deliveries, elapsed));
    figures.set("events_per_s", per_second(shared.reserved.load(Ordering::Relaxed), elapsed));
    figures.set_latency(&lock(&shared.latency));
    figures.set_known("server_cpu_us", each(before.0, after.0));
    figures.set_known("client_cpu_us", each(before.1, after.1));
    figures
}

/// Opens `n` subscriptions to new events of `subject`, several at a time.
pub(in crate::app::bench) async fn open(context: &Context, subject: &str, n: usize) -> Result<Vec<Subscriber>> {
    let (mut opening, mut opened) = (JoinSet::new(), Vec::with_capacity(n));
    for i in 0..n {
        if i >= OPENING_MAX
            && let Some(subscriber) = opening.join_next().await
        {
            opened.push(subscriber??);
        }
        let (target, subject) = (context.target.clone(), subject.to_owned());
        opening.spawn(async move { Subscriber::open(&target, &subject, "newest", BUFFER_BYTES).await });
    }
    while let Some(subscriber) = opening.join_next().await {
        let subscriber: Result<Subscriber> = subscriber?;
        opened.push(subscriber?);
    }
    Ok(opened)
}

/// Waits until the publishers are done and every subscriber has all events. A lost stream ends the run.
async fn finish(
    shared: &Shared,
    readers: &mut JoinSet<Result<()>>,
    mut publishers: JoinSet<Result<()>>,
    subscribers: u64,
) -> Result<()> {
    loop {
        tokio::select! {
            Some(ended) = readers.join_next() => ended??,
            publisher = publishers.join_next() => match publisher {
                Some(ended) => ended??,
                None if shared.received.load(Ordering::Relaxed)
                    >= shared.reserved.load(Ordering::Relaxed) * subscribers => return Ok(()),
                None => sleep(Duration::from_millis(1)).await,
            },
        }
    }
}

async fn publish(shared: Arc<Shared>, context: Context, batch: usize, seed: u64) -> Result<()> {
    let single = Shape::single(context.subject(), context.size)?;
    let shape = if batch == 1 { single } else { Shape::batch(context.subject(), context.size, batch)? };
    let mut request = Request::new(&context.target, &shape, &mut Random::new(seed));
    let mut connection = Connection::open(&context.target).await?;
    let mut floor = shared.gate.floor.subscribe();
    while shared.clock.now() < shared.until {
        let last = shared.reserved.fetch_add(shape.events(), Ordering::Relaxed) + shape.events();
        wait_until(&mut floor, |floor| last <= floor + shared.window).await?;
        let reply = connection.exchange(request.stamped(shared.clock.now())).await?;
        ensure!(reply.status == 202, "publish: {}", reply.describe());
    }
    Ok(())
}

async fn receive(shared: Arc<Shared>, mut subscriber: Subscriber) -> Result<()> {
    let (stamps, mut seen, mut sent) = (StampReader::default(), 0, Vec::new());
    loop {
        sent.clear();
        let events = subscriber.read(|frame| sent.extend(stamps.read(frame))).await?;
        if events == 0 {
            continue;
        }
        let now = shared.clock.now();
        for at in &sent {
            record(&shared.latency, now.saturating_sub(*at));
        }
        shared.last_received.fetch_max(now, Ordering::Relaxed);
        shared.received.fetch_add(events, Ordering::Relaxed);
        shared.gate.advance(seen, seen + events);
        seen += events;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gate_opens_when_the_slowest_subscriber_has_passed() {
        let gate = Gate::new(2, 8);
        let mut floors = Vec::new();
        let mut tell = |before, after| {
            gate.advance(before, after);
            floors.push(*gate.floor.borrow());
        };
        tell(0, 5);
        tell(0, 1);
        tell(1, 3);
        tell(3, 8);
        tell(5, 6);
        tell(6, 40);
        tell(8, 41);
        assert_eq!(floors, [0, 0, 2, 4, 6, 8, 40]);
    }
}
