//! `rollbook logs DEFINITION`: what processes say, as it comes.

use std::collections::VecDeque;

use serde_json::Value;

use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::print;
use crate::app::cli::shared::sse::{SseEvent, SseItem, SseParser};

/// Follows a process, or all, until the stream ends or so many lines were shown.
pub(in crate::app::cli) async fn follow(global: &Global, id: Option<&str>, lines: Option<u64>) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let path = match id {
        Some(id) => vec!["api", "definitions", id, "logs"],
        None => vec!["api", "processes", "logs"],
    };
    let mut stream = client.stream(client.url(&path, &[]), None).await?;
    let (mut parser, mut items, mut shown) = (SseParser::default(), VecDeque::new(), 0_u64);
    while let Some(bytes) = stream.chunk().await? {
        parser.push(&bytes, &mut items)?;
        for item in items.drain(..) {
            let SseItem::Event(event) = item else { continue };
            for line in rows(&event, global.output) {
                print(&line)?;
                shown = shown.saturating_add(1);
                if lines.is_some_and(|lines| shown >= lines) {
                    return Ok(());
                }
            }
        }
    }
    anyhow::bail!("the node has ended the stream")
}

/// The lines that an event is shown as.
fn rows(event: &SseEvent, output: Output) -> Vec<String> {
    let Ok(Value::Object(mut data)) = serde_json::from_str::<Value>(&event.data) else { return Vec::new() };
    if matches!(output, Output::Json) {
        data.insert("event".to_owned(), event.kind.as_str().into());
        return vec![Value::Object(data).to_string()];
    }
    let text = |name: &str| data.get(name).and_then(Value::as_str).unwrap_or_default();
    let from = format!("{} {}", text("definition"), text("dock"));
    let value = |name: &str| data.get(name).cloned().unwrap_or_default();
    match event.kind.as_str() {
        "stdout" | "stderr" => text("text").lines().map(|line| format!("{from} {line}")).collect(),
        "spawn" => vec![format!("{from} Process spawned with pid {}", value("pid"))],
        "exit" => vec![match value("code") {
            Value::Null => format!("{from} Process was ended by a signal"),
            Value::String(why) => format!("{from} Process {why}"),
            code => format!("{from} Process exited with code {code}"),
        }],
        "dropped" => {
            vec![format!("{} messages were dropped, because they were not read fast enough", value("messages"))]
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, data: &str) -> SseEvent {
        SseEvent { id: None, kind: kind.to_owned(), data: data.to_owned() }
    }

    #[test]
    fn events_are_shown_as_lines_of_their_process() {
        for (kind, data, expected) in [
            ("stdout", r#"{"definition":"a","dock":"d","text":"one\ntwo\n"}"#, &["a d one", "a d two"][..]),
            ("spawn", r#"{"definition":"a","dock":"d","pid":7}"#, &["a d Process spawned with pid 7"]),
            ("exit", r#"{"definition":"a","dock":"d","code":3}"#, &["a d Process exited with code 3"]),
            ("exit", r#"{"definition":"a","dock":"d","code":null}"#, &["a d Process was ended by a signal"]),
            ("unknown", "{}", &[]),
            ("stdout", "no json", &[]),
        ] {
            assert_eq!(rows(&event(kind, data), Output::Table), expected, "{kind} {data}");
        }
        let json = rows(&event("spawn", r#"{"pid":7}"#), Output::Json);
        assert_eq!(json, [r#"{"pid":7,"event":"spawn"}"#]);
    }
}
