//! `bench replay`: one subscriber reads the log from its oldest event.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use tokio::time::timeout;

use crate::app::bench::args::ReplayArgs;
use crate::app::bench::client::sse::Subscriber;
use crate::app::bench::context::{Context, progress_line};
use crate::app::bench::figures::{Case, Figures, Report};
use crate::app::bench::meter::own_cpu_seconds;
use crate::app::bench::units::{float, per_second};

const BUFFER_BYTES: usize = 256 * 1024;
/// A stream without data for this long has sent everything.
const SILENCE: Duration = Duration::from_secs(5);

/// Runs `replay`.
pub(in crate::app::bench) async fn run(context: &Context, args: &ReplayArgs) -> Result<Report> {
    let namespace = context.namespace().to_owned();
    if args.prefill > 0 {
        let wild = context.subject().contains(['*', '>']);
        let subject = if wild { format!("{namespace}.load") } else { context.subject().to_owned() };
        context.with_subject(&subject).prefill(args.prefill, None).await?;
    }
    let pattern = context.subject.clone().unwrap_or_else(|| format!("{namespace}.>"));
    let events = match context.n {
        Some(n) => n,
        None => context.namespace_number("events").await.context("give --n, or --web to learn it")?,
    };
    ensure!(events > 0, "the namespace {namespace} is empty: give --prefill");
    let mut case = Case::new(format!("{events} events"));
    for run in 1..=context.runs {
        let line = progress_line(format!("replay: run {run} of {}", context.runs));
        case.runs.push(once(context, &pattern, events).await?);
        line.finish_and_clear();
    }
    Ok(Report { bench: "replay", cases: vec![case], first_error: None })
}

/// Reads `events` events of `pattern` from the oldest on.
pub(in crate::app::bench) async fn once(context: &Context, pattern: &str, events: u64) -> Result<Figures> {
    let cpu = (context.meter.cpu_seconds().await, own_cpu_seconds());
    let started = Instant::now();
    let mut subscriber = Subscriber::open(&context.target, pattern, "oldest", BUFFER_BYTES).await?;
    let (mut seen, mut first) = (0, None);
    while seen < events {
        let read = timeout(SILENCE, subscriber.read(|_| {})).await;
        seen += read.with_context(|| {
            format!("{pattern}: {seen} of {events} events, then nothing for 5 s; is --n right for this subject?")
        })??;
        if seen > 0 {
            first.get_or_insert_with(|| started.elapsed());
        }
    }
    let elapsed = started.elapsed();
    let after = (context.meter.cpu_seconds().await, own_cpu_seconds());
    let each = |before: Option<f64>, after: Option<f64>| Some((after? - before?) * 1e6 / float(seen));
    let mut figures = Figures::default();
    figures.set("events_per_s", per_second(seen, elapsed));
    figures.set("mb_per_s", per_second(subscriber.bytes, elapsed) / 1e6);
    figures.set_known("first_event_ms", first.map(|first| first.as_secs_f64() * 1e3));
    figures.set_known("server_cpu_us", each(cpu.0, after.0));
    figures.set_known("client_cpu_us", each(cpu.1, after.1));
    Ok(figures)
}
