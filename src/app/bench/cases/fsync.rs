//! `bench fsync`: measures one flush of the disk.

use std::fs::{OpenOptions, remove_file};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use tokio::task::spawn_blocking;

use super::load::Stop;
use crate::app::bench::args::FsyncArgs;
use crate::app::bench::context::progress_line;
use crate::app::bench::figures::{Case, Figures, Report, latency, record};
use crate::app::bench::units::{nanos, per_second};

const APPEND_BYTES: usize = 4096;

/// Runs `fsync`.
pub(in crate::app::bench) async fn run(runs: u32, stop: Stop, args: &FsyncArgs) -> Result<Report> {
    let mut case = Case::new("4 KiB appends");
    for run in 1..=runs {
        let line = progress_line(format!("fsync: run {run} of {runs}"));
        case.runs.push(once(&args.dir, stop).await?);
        line.finish_and_clear();
    }
    Ok(Report { bench: "fsync", cases: vec![case], first_error: None })
}

/// One run on the disk of `dir`.
pub(in crate::app::bench) async fn once(dir: &Path, stop: Stop) -> Result<Figures> {
    let path = dir.join(format!("rollbook-bench-fsync-{}", process::id()));
    spawn_blocking(move || {
        let measured = appends(&path, stop).with_context(|| format!("cannot write {}", path.display()));
        remove_file(&path).ok();
        measured
    })
    .await?
}

fn appends(path: &PathBuf, stop: Stop) -> Result<Figures> {
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let block = [b'x'; APPEND_BYTES];
    let (time, most) = match stop {
        Stop::After(time) => (time, u64::MAX),
        Stop::Count(n) => (Duration::MAX, n),
    };
    let (started, times, mut done) = (Instant::now(), Mutex::new(latency()?), 0);
    while done < most && started.elapsed() < time {
        let begun = Instant::now();
        file.write_all(&block)?;
        file.sync_data()?;
        record(&times, nanos(begun.elapsed()));
        done += 1;
    }
    let mut figures = Figures::default();
    figures.set("flushes_per_s", per_second(done, started.elapsed()));
    figures.set_latency(&times.into_inner().unwrap_or_else(PoisonError::into_inner));
    Ok(figures)
}
