//! `bench consume`: members of a group read the log from its oldest event and acknowledge each event.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use futures_util::future::select_ok;
use tokio::time::timeout;
use uuid::Uuid;

use crate::app::bench::args::ConsumeArgs;
use crate::app::bench::client::http::{Connection, Target, encode};
use crate::app::bench::client::sse::Subscriber;
use crate::app::bench::context::{Context, progress_line};
use crate::app::bench::figures::{Case, Figures, Report};
use crate::app::bench::meter::own_cpu_seconds;
use crate::app::bench::units::{count, float, per_second};

const BUFFER_BYTES: usize = 256 * 1024;
/// A group that gets nothing for this long has everything.
const SILENCE: Duration = Duration::from_secs(5);

/// Runs `consume`.
pub(in crate::app::bench) async fn run(context: &Context, args: &ConsumeArgs) -> Result<Report> {
    if args.prefill > 0 {
        context.prefill(args.prefill, None).await?;
    }
    let events = match context.n {
        Some(n) => n,
        None => context.namespace_number("events").await.context("give --n, or --web to learn it")?,
    };
    ensure!(events > 0, "the namespace is empty: give --prefill");
    let mut cases = Vec::new();
    for members in &args.members {
        let mut case = Case::new(format!("{members} members, window {}", args.window));
        for run in 1..=context.runs {
            let line = progress_line(format!("consume: {members} members, run {run} of {}", context.runs));
            case.runs.push(once(context, args, *members, events).await?);
            line.finish_and_clear();
        }
        cases.push(case);
    }
    Ok(Report { bench: "consume", cases, first_error: None })
}

/// A new group reads and acknowledges `events` events.
async fn once(context: &Context, args: &ConsumeArgs, members: usize, events: u64) -> Result<Figures> {
    let group = format!("bench-{}", Uuid::new_v4().simple());
    let cpu = (context.meter.cpu_seconds().await, own_cpu_seconds());
    let (started, done) = (Instant::now(), Arc::new(AtomicU64::new(0)));
    let each = (0..members).map(|number| {
        let consumer_id = format!("c_{group}-{number}");
        let path = format!(
            "/?subject={}&start=oldest&group={group}&consumer_id={consumer_id}&ack=manual&max_in_flight={}",
            encode(context.subject()),
            args.window
        );
        Member { consumer_id, batch: args.batch, done: Arc::clone(&done), events }.run(&context.target, path)
    });
    // Whoever acknowledges the last event ends the wait of the others.
    let ended = select_ok(each.map(Box::pin)).await?.0;
    let elapsed = ended.duration_since(started);
    let after = (context.meter.cpu_seconds().await, own_cpu_seconds());
    let seen = done.load(Ordering::Relaxed);
    let each = |before: Option<f64>, after: Option<f64>| Some((after? - before?) * 1e6 / float(seen));
    let mut figures = Figures::default();
    figures.set("events_per_s", per_second(seen, elapsed));
    figures.set_known("server_cpu_us", each(cpu.0, after.0));
    figures.set_known("client_cpu_us", each(cpu.1, after.1));
    Ok(figures)
}

struct Member {
    consumer_id: String,
    /// Most events of one acknowledgement.
    batch: usize,
    /// Events that all members together have acknowledged.
    done: Arc<AtomicU64>,
    /// Events that there are.
    events: u64,
}

impl Member {
    /// Reads and acknowledges until all is done, and tells when that was.
    async fn run(self, target: &Target, path: String) -> Result<Instant> {
        let mut stream = Subscriber::open_path(target, &path, BUFFER_BYTES).await?;
        let mut connection = Connection::open(target).await?;
        let mut ids: Vec<String> = Vec::new();
        while self.done.load(Ordering::Relaxed) < self.events {
            let read = timeout(SILENCE, stream.read(|frame| ids.extend(id(frame)))).await;
            let done = self.done.load(Ordering::Relaxed);
            read.with_context(|| format!("{done} of {} events, then nothing for 5 s", self.events))??;
            for acked in ids.chunks(self.batch) {
                self.acknowledge(target, &mut connection, acked).await?;
            }
            ids.clear();
        }
        Ok(Instant::now())
    }

    async fn acknowledge(&self, target: &Target, connection: &mut Connection, ids: &[String]) -> Result<()> {
        let consumer = &self.consumer_id;
        let request = match ids {
            [only] => target.head("PUT", &format!("/?consumer_id={consumer}&event_id={only}"), 0),
            many => {
                let body = serde_json::to_string(many)?;
                target.head("PUT", &format!("/?consumer_id={consumer}"), body.len()) + &body
            }
        };
        let reply = connection.ask(request.as_bytes()).await?;
        ensure!(reply.status == 202, "an acknowledgement: {}", reply.describe());
        self.done.fetch_add(count(ids.len()), Ordering::Relaxed);
        Ok(())
    }
}

/// The id of an event, which is on the first line of its frame.
fn id(frame: &[u8]) -> Option<String> {
    let line = frame.strip_prefix(b"id: ")?.split(|byte| *byte == b'\n').next()?;
    Some(String::from_utf8_lossy(line).into_owned())
}
