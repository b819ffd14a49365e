//! `rollbook bench`: a load generator that spends little CPU of its own, since it usually shares the machine
//! with the server. HTTP is written by hand on raw sockets, one request in flight per connection.
//!
//! | file | what |
//! |---|---|
//! | `args` | options of every workload |
//! | `http`, `stream`, `chunk`, `sse` | the HTTP client, its connections, chunked decoding and SSE frames, a subscriber |
//! | `nats`, `client/xbus` | a connection of NATS, and the messages of Xbus |
//! | `payload`, `pace`, `load` | publish requests, open-loop schedule, the publish load itself |
//! | `figures`, `limits`, `meter` | results and medians, the table of limits, CPU and memory |
//! | `context`, `child` | the server under test, servers started here |
//! | `all`, `rounds` | the whole table, and its part that is measured alternately |
//! | the others | one workload each |

mod all;
mod args;
mod cases;
mod child;
mod client;
mod context;
mod figures;
mod limits;
mod meter;
mod rounds;
mod units;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use tokio::runtime::Builder;
use tokio::signal::ctrl_c;
use tokio::signal::unix::{SignalKind, signal};

use args::{Common, Workload};
use context::Context;

use super::cli::shared::global::Global;
use super::cli::shared::output::print;

const EXAMPLES: &str = "\
Examples:
  rollbook bench publish --connections 1,16,64
  rollbook bench publish --connections 64 --rate 5000 --duration 10s
  rollbook bench batch --batch 1000 --connections 4 --json
  rollbook bench fanout --subscribers 1,10,100,1000
  rollbook bench replay --prefill 1000000
  rollbook bench consume --prefill 200000 --members 1,4
  rollbook bench start --prefill 1000000 --rare 7
  rollbook bench idle --connections 5000
  rollbook bench handshake --url https://127.0.0.1:2021 --ca ca.pem
  rollbook bench xbus --window 256
  rollbook bench floor --connections 64,256
  rollbook bench fsync --dir ./data
  rollbook bench all --dir /var/tmp

`all` and `xbus` start a server of their own; `idle` needs open files, as `ulimit -n 65536` gives them.

The load generator shares the machine with the server: compare figures of one run, not of two days.
CPU columns are microseconds per event or delivery.";

/// Measure a running server, or start one and measure everything
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    #[command(flatten)]
    common: Common,
    #[command(subcommand)]
    workload: Workload,
}

/// Runs one workload and prints its result.
///
/// # Errors
///
/// When the server cannot be reached, refuses the load or loses an event, or when the benchmark is interrupted.
pub fn run(global: &Global, mut args: BenchArgs) -> Result<()> {
    args.common.complete(global)?;
    if let Workload::FloorServer(server) = &args.workload {
        return cases::floor::serve(server);
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(usize::from(args.common.threads))
        .enable_all()
        .build()
        .context("cannot start the load generator's threads")?;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        // Returning, not exiting, so that servers started here are stopped and their data is removed.
        tokio::select! {
            result = measure(&args) => result,
            _ = ctrl_c() => bail!("interrupted"),
            _ = terminate.recv() => bail!("terminated"),
        }
    })
}

async fn measure(args: &BenchArgs) -> Result<()> {
    let context = Context::new(&args.common).await?;
    let report = match &args.workload {
        Workload::Publish(publish) => cases::publish::publish(&context, publish).await?,
        Workload::Batch(batch) => cases::publish::batch(&context, batch).await?,
        Workload::Fanout(fanout) => cases::fanout::run(&context, fanout).await?,
        Workload::Replay(replay) => cases::replay::run(&context, replay).await?,
        Workload::Consume(consume) => cases::consume::run(&context, consume).await?,
        Workload::Start(start) => cases::start::run(&context, start).await?,
        Workload::Idle(idle) => cases::idle::run(&context, idle).await?,
        Workload::Handshake(handshake) => cases::handshake::run(&context, handshake).await?,
        Workload::Floor(floor) => cases::floor::run(&context, floor).await?,
        Workload::Xbus(xbus) => cases::xbus::run(&context, xbus).await?,
        Workload::Fsync(fsync) => cases::fsync::run(context.runs, context.stop(), fsync).await?,
        Workload::All(all) => return all::run(&context, all, args.common.json).await,
        Workload::FloorServer(server) => return cases::floor::serve(server),
    };
    let text = if args.common.json { format!("{:#}", report.json()) } else { report.table() };
    print(&text)?;
    match report.first_error {
        Some(error) => bail!("not every request was accepted; the first error: {error}"),
        None => Ok(()),
    }
}
