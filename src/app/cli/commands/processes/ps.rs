//! What runs on docks, as rows.

use serde_json::Value;

use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::table;

/// What runs on docks; nothing when the caller may not ask, or when the node knows no docks.
pub(in crate::app::cli) async fn list(client: &Client, route: Option<&str>) -> anyhow::Result<Vec<Value>> {
    let query: Vec<_> = route.map(|route| ("route", route)).into_iter().collect();
    match client.list(&["api", "processes"], &query).await {
        Err(error) if error.downcast_ref::<CallError>().is_some_and(|error| error.status() == Some(404)) => {
            Ok(Vec::new())
        }
        other => other,
    }
}

/// A row for each process, and for each dock that does not answer.
pub(in crate::app::cli) fn lines(processes: &[Value]) -> String {
    let rows = processes.iter().map(|process| {
        let text = |name: &str| match process.get(name) {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let memory = process.get("rss").and_then(Value::as_u64).map(mebibytes).unwrap_or_default();
        let status = match text("error") {
            error if error.is_empty() => text("status"),
            error => error,
        };
        vec![
            text("dock"),
            text("definition"),
            status,
            text("pid"),
            text("restarts"),
            text("cpu"),
            memory,
            text("started"),
            text("revision"),
        ]
    });
    table(&["DOCK", "PROCESS", "STATUS", "PID", "RESTARTS", "CPU %", "MEMORY", "STARTED", "REVISION"], rows.collect())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_process_and_a_silent_dock_have_a_row_each() {
        let text = lines(&[
            json!({"dock": "d1", "definition": "web", "status": "running", "pid": 7, "rss": 1_048_577, "error": null}),
            json!({"dock": "d2", "definition": "", "error": "dock d2 did not answer within 5 s"}),
        ]);
        for part in ["web", "running", "2 MiB", "d2", "did not answer"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}
