//! `bench start`: measures the time to the first event of a new subscriber, on an empty and on a long log.

use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use tokio::time::timeout;

use crate::app::bench::args::StartArgs;
use crate::app::bench::client::http::Connection;
use crate::app::bench::client::sse::Subscriber;
use crate::app::bench::context::{Context, progress_line};
use crate::app::bench::figures::{Case, Figures, Report};
use crate::app::bench::units::nanos;

const BUFFER_BYTES: usize = 16 * 1024;
/// Measurements of each kind.
const TIMES: u64 = 20;
const PATIENCE: Duration = Duration::from_secs(10);

/// Runs `start` on a namespace of its own with one event, and on the given log.
pub(in crate::app::bench) async fn run(context: &Context, args: &StartArgs) -> Result<Report> {
    let times = context.n.unwrap_or(TIMES);
    let nonce = nanos(SystemTime::UNIX_EPOCH.elapsed()?);
    let empty = context.with_subject(&format!("{}-empty{nonce:x}.load", context.namespace()));
    empty.create_namespace().await?;
    let mut cases = vec![measure("empty log", &empty, times).await?];

    let rare = format!("{}.rare{nonce:x}", context.namespace());
    let rare = (args.rare > 0).then_some((rare.as_str(), args.rare));
    context.create_namespace().await?;
    context.prefill(args.prefill, rare).await?;
    cases.push(measure(&log_name(context, args.prefill).await, context, times).await?);
    if let Some((subject, events)) = rare {
        let mut case = Case::new(format!("{events} rare events"));
        for _ in 0..times {
            case.runs.push(replay_rare(context, subject, events).await?);
        }
        cases.push(case);
    }
    Ok(Report { bench: "start", cases, first_error: None })
}

async fn log_name(context: &Context, prefilled: u64) -> String {
    let events = context.namespace_number("events").await.unwrap_or(prefilled);
    format!("log of {events} events")
}

async fn measure(name: &str, context: &Context, times: u64) -> Result<Case> {
    let mut case = Case::new(name);
    let line = progress_line(format!("start: {name}"));
    let mut connection = Connection::open(&context.target).await?;
    for _ in 0..times {
        case.runs.push(once(context, &mut connection).await?);
    }
    line.finish_and_clear();
    Ok(case)
}

/// Milliseconds from subscribing to the stream's head and from publishing to the event's arrival.
async fn once(context: &Context, connection: &mut Connection) -> Result<Figures> {
    let mut figures = Figures::default();
    let subject = context.subject();
    let id = context.publish_one(connection, subject).await?;
    for (start, open, first) in
        [("newest", "newest_open_ms", "newest_first_ms"), (&*id, "after_id_open_ms", "after_id_first_ms")]
    {
        let begun = Instant::now();
        let mut subscriber = subscribe(context, subject, start).await?;
        figures.set(open, millis(begun));
        if start == id {
            // The event that was published during the measurement of `newest`.
            wait_for(&mut subscriber, 1).await?;
            figures.set("after_id_replay_ms", millis(begun));
        }
        let published = Instant::now();
        context.publish_one(connection, subject).await?;
        wait_for(&mut subscriber, 1).await?;
        figures.set(first, millis(published));
    }
    Ok(figures)
}

async fn replay_rare(context: &Context, subject: &str, events: u64) -> Result<Figures> {
    let begun = Instant::now();
    let mut subscriber = subscribe(context, subject, "oldest").await?;
    wait_for(&mut subscriber, events).await?;
    let mut figures = Figures::default();
    figures.set("rare_replay_ms", millis(begun));
    Ok(figures)
}

async fn subscribe(context: &Context, subject: &str, start: &str) -> Result<Subscriber> {
    Subscriber::open(&context.target, subject, start, BUFFER_BYTES).await
}

async fn wait_for(subscriber: &mut Subscriber, events: u64) -> Result<()> {
    let mut seen = 0;
    while seen < events {
        let read = timeout(PATIENCE, subscriber.read(|_| {})).await;
        seen += read.with_context(|| format!("{seen} of {events} events arrived, then nothing for 10 s"))??;
    }
    Ok(())
}

fn millis(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
