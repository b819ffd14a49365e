//! `bench publish` and `bench batch`: publish events by POST, one or many in a request.

use anyhow::Result;

use super::load::{Outcome, Plan, Stop, drive};
use crate::app::bench::args::{BatchArgs, PublishArgs};
use crate::app::bench::client::payload::Shape;
use crate::app::bench::context::{Context, progress_line};
use crate::app::bench::figures::{Case, Report, plural};

/// Runs `publish` for each number of connections.
pub(in crate::app::bench) async fn publish(context: &Context, args: &PublishArgs) -> Result<Report> {
    let shape = Shape::single(context.subject(), context.size)?;
    cases(context, "publish", &shape, &args.connections, args.rate).await
}

/// Runs `batch` for each number of connections.
pub(in crate::app::bench) async fn batch(context: &Context, args: &BatchArgs) -> Result<Report> {
    let shape = Shape::batch(context.subject(), context.size, args.batch)?;
    cases(context, "batch", &shape, &args.connections, args.rate).await
}

/// Runs one shape of load for each number of connections.
pub(in crate::app::bench) async fn cases(
    context: &Context,
    bench: &'static str,
    shape: &Shape,
    connections: &[usize],
    rate: Option<u64>,
) -> Result<Report> {
    let mut report = Report { bench, cases: Vec::new(), first_error: None };
    for &connections in connections {
        let mut case = Case::new(plural(connections, "connection"));
        for run in 1..=context.runs {
            let line = progress_line(format!("{bench}: {}, run {run} of {}", case.name, context.runs));
            let outcome = once(context, shape, connections, rate).await?;
            line.finish_and_clear();
            case.runs.push(outcome.figures());
            report.first_error = report.first_error.or(outcome.first_error);
        }
        report.cases.push(case);
    }
    Ok(report)
}

/// Runs the load once. With `--n` the number counts events, which this function turns into requests.
pub(in crate::app::bench) async fn once(
    context: &Context,
    shape: &Shape,
    connections: usize,
    rate: Option<u64>,
) -> Result<Outcome> {
    let stop = match context.stop() {
        Stop::Count(n) => Stop::Count(n.div_ceil(shape.events().max(1))),
        after @ Stop::After(_) => after,
    };
    let (target, meter) = (&context.target, &context.meter);
    drive(&Plan { target, meter, shape, connections, rate, stop }).await
}
