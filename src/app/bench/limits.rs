//! The table of limits: the required figure, the measured figure, and whether the limit is met.

use comfy_table::presets;
use serde_json::{Value, json};

use super::figures::{grid, number};

/// The good side of a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The figure must reach the limit.
    AtLeast,
    /// The figure must not pass the limit.
    AtMost,
}

#[derive(Debug, Clone)]
struct Row {
    what: String,
    unit: &'static str,
    limit: Option<(Side, f64)>,
    measured: Option<f64>,
    note: String,
}

/// Rows in the order they were added.
#[derive(Debug, Clone, Default)]
pub(super) struct Limits(Vec<Row>);

impl Limits {
    /// Adds a figure with a limit.
    pub(super) fn limit(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        limit: (Side, f64),
        measured: Option<f64>,
        note: impl Into<String>,
    ) {
        self.0.push(Row { what: what.into(), unit, limit: Some(limit), measured, note: note.into() });
    }

    /// Adds a figure without a limit, for comparison.
    pub(super) fn baseline(
        &mut self,
        what: impl Into<String>,
        unit: &'static str,
        measured: Option<f64>,
        note: impl Into<String>,
    ) {
        self.0.push(Row { what: what.into(), unit, limit: None, measured, note: note.into() });
    }

    /// The rows as Markdown.
    pub(super) fn markdown(&self) -> String {
        let header = ["", "limit", "measured", "unit", "met", "note"].map(str::to_owned).to_vec();
        let cells = |row: &Row| {
            let limit = row.limit.map_or_else(String::new, |(side, limit)| {
                let sign = if side == Side::AtLeast { "≥" } else { "≤" };
                format!("{sign} {}", number(limit))
            });
            let measured = row.measured.map_or_else(|| "-".to_owned(), number);
            let met = row.limit.map_or("", |_| if row.met() { "yes" } else { "no" });
            vec![row.what.clone(), limit, measured, row.unit.to_owned(), met.to_owned(), row.note.clone()]
        };
        grid(header, self.0.iter().map(cells).collect(), presets::ASCII_MARKDOWN)
    }

    /// The rows as JSON.
    pub(super) fn json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "what": row.what, "unit": row.unit, "limit": row.limit.map(|(_, limit)| limit),
                "measured": row.measured, "met": row.limit.map(|_| row.met()), "note": row.note,
            })
        };
        Value::Array(self.0.iter().map(row).collect())
    }
}

impl Row {
    fn met(&self) -> bool {
        match (self.limit, self.measured) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some((Side::AtLeast, limit)), Some(measured)) => measured >= limit,
            (Some((Side::AtMost, limit)), Some(measured)) => measured <= limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_say_whether_the_limit_is_met() {
        let mut limits = Limits::default();
        limits.limit("rate", "/s", (Side::AtLeast, 300_000.0), Some(300_000.0), "");
        limits.limit("p99", "ms", (Side::AtMost, 20.0), Some(20.1), "busy");
        limits.limit("lost", "ms", (Side::AtMost, 20.0), None, "");
        limits.baseline("floor", "/s", Some(1.0), "");
        let met: Vec<_> = limits.json().as_array().unwrap().iter().map(|r| r.get("met").unwrap().clone()).collect();
        assert_eq!(met, [json!(true), json!(false), json!(false), Value::Null]);
        let text = limits.markdown();
        assert!(text.contains("≥ 300,000"), "{text}");
        assert!(text.lines().all(|line| line.starts_with('|')), "{text}");
    }
}
