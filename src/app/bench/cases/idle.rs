//! `bench idle`: measures the memory of idle connections and the rate of handshakes.

use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use tokio::time::sleep;

use super::fanout::open;
use crate::app::bench::args::IdleArgs;
use crate::app::bench::context::{Context, progress_line};
use crate::app::bench::figures::{Case, Figures, Report};
use crate::app::bench::meter::open_files_max;
use crate::app::bench::units::{count, float, per_second};

/// Connections that are opened and closed before the first reading, so that one-time costs do not count.
const WARM_UP: usize = 50;
/// Files that the load generator needs besides its connections.
const OTHER_FILES: usize = 64;

/// Runs `idle`, always once: a second run would reuse memory that the server's allocator kept from the first.
pub(in crate::app::bench) async fn run(context: &Context, args: &IdleArgs) -> Result<Report> {
    ensure!(args.connections > 0, "--connections must be at least 1");
    if let Some(limit) = open_files_max() {
        ensure!(
            limit > args.connections + OTHER_FILES,
            "{} connections need more open files than the limit of {limit}: run `ulimit -n 65536` first, and for the server too",
            args.connections
        );
    }
    context.create_namespace().await?;
    drop(open(context, context.subject(), WARM_UP.min(args.connections)).await?);
    let line = progress_line(format!("idle: {} connections", args.connections));
    sleep(args.wait).await;
    let before = context.meter.resident_bytes().await.context("the server's memory is unknown: give --web or --pid")?;
    let started = Instant::now();
    let connections = open(context, context.subject(), args.connections).await?;
    let elapsed = started.elapsed();
    sleep(args.wait).await;
    let after = context.meter.resident_bytes().await.context("the server's memory is unknown")?;
    line.finish_and_clear();
    let n = count(connections.len());
    let mut figures = Figures::default();
    figures.set("kib_per_connection", (after - before) / 1024.0 / float(n));
    figures.set("handshakes_per_s", per_second(n, elapsed));
    figures.set("server_mib", after / 1024.0 / 1024.0);
    let case = Case { name: format!("{n} connections"), runs: vec![figures] };
    Ok(Report { bench: "idle", cases: vec![case], first_error: None })
}
