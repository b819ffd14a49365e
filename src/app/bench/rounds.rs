//! The part of `bench all` that alternates: publish, batches, the baseline server and the disk run once in each
//! round. The speed of the machine drifts, so only figures of the same minutes can be compared.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::cases::load::Stop;
use super::cases::{fsync, publish};
use super::client::payload::Shape;
use super::context::{Context, progress_line};
use super::figures::{Case, Figures, Report, plural};
use super::limits::{Limits, Side};
use super::units::{count, float, nanos};

/// Events of a batch.
pub(super) const BATCH: usize = 1000;

/// Cases that are measured one after the other in every round.
#[derive(Debug)]
pub(super) struct Rounds {
    fsync: Case,
    moderate: Case,
    /// The baseline, by number of connections.
    floor: Vec<(usize, Case)>,
    publish: Vec<(usize, Case)>,
    batch: Vec<(usize, Case)>,
    single: Shape,
    array: Shape,
}

impl Rounds {
    /// Creates the cases, without runs.
    pub(super) fn new(context: &Context) -> Result<Self> {
        let cases = |what: &str, connections: &[usize]| {
            connections.iter().map(|n| (*n, Case::new(format!("{what}, {}", plural(*n, "connection"))))).collect()
        };
        Ok(Self {
            fsync: Case::new("fdatasync of 4 KiB appends"),
            moderate: Case::new("publish at a moderate rate, 16 connections"),
            floor: cases("floor", &[64, 256]),
            publish: cases("publish", &[1, 16, 64, 256]),
            batch: cases("batches of 1000", &[1, 4]),
            single: Shape::single(context.subject(), context.size)?,
            array: Shape::batch(context.subject(), context.size, BATCH)?,
        })
    }

    /// Runs every case once, and returns the first error of each case.
    pub(super) async fn round(
        &mut self,
        node: &Context,
        floor: &Context,
        dir: &Path,
        calm: Duration,
    ) -> Result<Vec<String>> {
        let mut problems = Vec::new();
        quiet(node, calm).await;
        let flushes = fsync::once(dir, Stop::After(node.time() / 2)).await?;
        // Half of the flushes that the disk could do one by one.
        let rate = flushes.get("p50_us").map(|us| Duration::from_secs_f64(us / 1e6 * 2.0));
        self.fsync.runs.push(flushes);
        let loads = [(&mut self.floor, floor, &self.single), (&mut self.publish, node, &self.single)];
        for (cases, context, shape) in loads.into_iter().chain([(&mut self.batch, node, &self.array)]) {
            for (connections, case) in cases {
                let line = progress_line(case.name.clone());
                quiet(node, calm).await;
                let outcome = publish::once(context, shape, *connections, None).await?;
                line.finish_and_clear();
                case.runs.push(outcome.figures());
                problems.extend(outcome.first_error.map(|error| format!("{}: {error}", case.name)));
            }
        }
        if let Some(interval) = rate {
            quiet(node, calm).await;
            let rate = 1_000_000_000 / nanos(interval).max(1);
            let outcome = publish::once(node, &self.single, 16, Some(rate.max(1))).await?;
            self.moderate.runs.push(outcome.figures());
            problems.extend(outcome.first_error.map(|error| format!("{}: {error}", self.moderate.name)));
        }
        Ok(problems)
    }

    /// Adds a row for each case.
    pub(super) fn limits(&self, limits: &mut Limits) {
        let rate = |figures: &Figures| figures.get("events_per_s");
        let flush_us = self.fsync.median().get("p50_us");
        limits.baseline(&*self.fsync.name, "us p50", flush_us, "");
        for (_, case) in &self.floor {
            limits.baseline(&*case.name, "/s", rate(&case.median()), "reads the body, answers 202");
        }
        for (connections, case) in &self.publish {
            let median = case.median();
            let note = median.get("p50_us").map_or_else(String::new, |us| format!("p50 {us:.0} us"));
            let floor = self.floor.iter().find(|(n, _)| n == connections).and_then(|(_, case)| rate(&case.median()));
            match (floor, flush_us) {
                (Some(floor), Some(us)) => {
                    let by_disk = float(count(*connections)) / (2.0 * us / 1e6);
                    let limit = (Side::AtLeast, (0.6 * floor).min(by_disk));
                    limits.limit(&*case.name, "/s", limit, rate(&median), note);
                }
                _ => limits.baseline(&*case.name, "/s", rate(&median), note),
            }
            if *connections == 64 {
                let limit = (Side::AtMost, 15.0);
                limits.limit("server CPU of a publish, 64 connections", "us", limit, median.get("server_cpu_us"), "");
            }
        }
        let moderate = self.moderate.median();
        let lag = moderate.get("send_lag_p50_us").unwrap_or_default();
        let note = format!("open loop, {:.0}/s; sent {lag:.0} us late", rate(&moderate).unwrap_or_default());
        let limit = (Side::AtMost, flush_us.unwrap_or_default() * 2.0);
        limits.limit("p50 at moderate load, 16 connections", "us", limit, moderate.get("p50_us"), note);
        for (_, case) in &self.batch {
            let limit = (Side::AtLeast, 300_000.0);
            limits.limit(&*case.name, "events/s", limit, rate(&case.median()), "");
        }
    }

    /// The reports of all cases.
    pub(super) fn reports(self) -> [Report; 2] {
        let varied = self.floor.into_iter().chain(self.publish).chain(self.batch);
        let cases = varied.map(|(_, case)| case).chain([self.moderate]).collect();
        [
            Report { bench: "fsync", cases: vec![self.fsync], first_error: None },
            Report { bench: "publish", cases, first_error: None },
        ]
    }
}

/// Waits until the server is idle, so that its settling does not slow the next case.
pub(super) async fn quiet(context: &Context, longest: Duration) {
    const SAMPLE: Duration = Duration::from_millis(250);
    let (deadline, mut calm) = (Instant::now() + longest, 0);
    while calm < 2 && Instant::now() < deadline {
        let before = context.meter.cpu_seconds().await;
        sleep(SAMPLE).await;
        let after = context.meter.cpu_seconds().await;
        let used = after.zip(before).map_or(0.0, |(after, before)| after - before);
        calm = if used < SAMPLE.as_secs_f64() * 0.05 { calm + 1 } else { 0 };
    }
}
