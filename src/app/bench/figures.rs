//! The results: named figures of each run and their medians, as a table or as JSON.

use std::sync::Mutex;

use anyhow::Result;
use comfy_table::{CellAlignment, Table, TableStyle, presets};
use hdrhistogram::Histogram;
use serde_json::{Map, Value, json};

use rollbook_cluster::lock::lock;

use super::units::float;

/// A minute in nanoseconds, the longest latency of a histogram.
const LATENCY_MAX: u64 = 60_000_000_000;

/// A histogram of latencies in nanoseconds, with three significant digits.
pub(super) type Latency = Histogram<u64>;

/// An empty histogram of latencies up to a minute; longer ones count as a minute.
pub(super) fn latency() -> Result<Latency> {
    Ok(Histogram::new_with_bounds(1, LATENCY_MAX, 3)?)
}

/// Counts one latency.
pub(super) fn record(latency: &Mutex<Latency>, nanos: u64) {
    let mut latency = lock(latency);
    latency.saturating_record(nanos.clamp(1, LATENCY_MAX));
}

/// Figures of one run, in the order they are shown.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures(Vec<(&'static str, f64)>);

impl Figures {
    /// Adds a figure.
    pub(super) fn set(&mut self, name: &'static str, value: f64) {
        self.0.push((name, value));
    }

    /// Adds a figure, if there is one.
    pub(super) fn set_known(&mut self, name: &'static str, value: Option<f64>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Adds percentiles in microseconds.
    pub(super) fn set_latency(&mut self, latency: &Latency) {
        if latency.is_empty() {
            return;
        }
        for (name, quantile) in [("p50_us", 0.5), ("p90_us", 0.9), ("p99_us", 0.99), ("p999_us", 0.999)] {
            self.set(name, float(latency.value_at_quantile(quantile)) / 1e3);
        }
        self.set("max_us", float(latency.max()) / 1e3);
    }

    /// The figure of that name.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.0.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    fn json(&self) -> Value {
        let fields = self.0.iter().map(|(n, v)| ((*n).to_owned(), json!(v)));
        Value::Object(fields.collect::<Map<_, _>>())
    }
}

/// The runs of one case.
#[derive(Debug, Clone)]
pub(super) struct Case {
    /// The varied parameter, such as `64 connections`.
    pub(super) name: String,
    /// The figures of each run.
    pub(super) runs: Vec<Figures>,
}

impl Case {
    /// Creates a case without runs.
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), runs: Vec::new() }
    }

    /// The median of each figure over the runs.
    pub(super) fn median(&self) -> Figures {
        let mut names: Vec<&'static str> = Vec::new();
        for (name, _) in self.runs.iter().flat_map(|run| &run.0) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let middle = |name: &'static str| {
            let values = self.runs.iter().filter_map(|run| run.get(name)).collect();
            median(values).map(|value| (name, value))
        };
        Figures(names.into_iter().filter_map(middle).collect())
    }
}

/// The middle value, or the mean of the two middle ones.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let upper = values.get(values.len() / 2)?;
    let lower = values.get(values.len().checked_sub(1)? / 2)?;
    Some(f64::midpoint(*lower, *upper))
}

/// The result of one workload.
#[derive(Debug, Clone)]
pub(super) struct Report {
    /// Name of the workload.
    pub(super) bench: &'static str,
    /// Cases of the workload.
    pub(super) cases: Vec<Case>,
    /// The first error of any run.
    pub(super) first_error: Option<String>,
}

impl Report {
    /// The report as one JSON document.
    pub(super) fn json(&self) -> Value {
        let case = |case: &Case| {
            let runs: Vec<Value> = case.runs.iter().map(Figures::json).collect();
            json!({"case": case.name, "median": case.median().json(), "runs": runs})
        };
        let cases: Vec<Value> = self.cases.iter().map(case).collect();
        json!({"bench": self.bench, "cases": cases, "first_error": self.first_error})
    }

    /// The medians as a table.
    pub(super) fn table(&self) -> String {
        let medians: Vec<Figures> = self.cases.iter().map(Case::median).collect();
        let mut names: Vec<&str> = Vec::new();
        for (name, _) in medians.iter().flat_map(|figures| &figures.0) {
            if !names.contains(name) {
                names.push(name);
            }
        }
        let header = [self.bench].into_iter().chain(names.iter().copied()).map(str::to_owned);
        let rows = self.cases.iter().zip(&medians).map(|(case, figures)| {
            let values = names.iter().map(|name| figures.get(name).map_or_else(|| "-".to_owned(), number));
            [case.name.clone()].into_iter().chain(values).collect()
        });
        let mut text = grid(header.collect(), rows.collect(), presets::NOTHING);
        if let Some(error) = &self.first_error {
            text.push_str(&format!("\nfirst error: {error}"));
        }
        text
    }
}

/// A table whose first column is left-aligned and the others right-aligned.
pub(super) fn grid(header: Vec<String>, rows: Vec<Vec<String>>, style: TableStyle) -> String {
    let mut table = Table::new();
    table.load_style(style).set_header(header).add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// A number of things: `1 connection`, `64 connections`.
pub(super) fn plural(n: usize, thing: &str) -> String {
    format!("{n} {thing}{}", if n == 1 { "" } else { "s" })
}

/// A number with its significant digits: `312,400`, `47.5`, `0.183`.
pub(super) fn number(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 1000.0 || v == 0.0 => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, fraction) = text.split_at(text.find('.').unwrap_or(text.len()));
    let mut out = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) && !out.ends_with('-') {
            out.push(',');
        }
        out.push(c);
    }
    out + fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let run = |rate, extra: Option<f64>| {
            let mut figures = Figures::default();
            figures.set("rate", rate);
            figures.set_known("extra", extra);
            figures
        };
        let case = Case { name: "c".to_owned(), runs: vec![run(3.0, None), run(1.0, Some(5.0)), run(2.0, Some(7.0))] };
        assert_eq!(case.median().get("rate"), Some(2.0));
        assert_eq!(case.median().get("extra"), Some(6.0));
        assert_eq!(median(Vec::new()), None);
    }

    #[test]
    fn numbers_show_what_they_are_worth() {
        let shown = [312_400.4, -1234.0, 47.54, 1.234, 0.1834, 0.0].map(number);
        assert_eq!(shown, ["312,400", "-1,234", "47.5", "1.23", "0.183", "0"]);
    }
}
