//! What the commands of Xbus share.

use reqwest::Method;
use serde_json::{Value, json};

use crate::app::cli::shared::confirm;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};

/// A member of an answer as text: texts as they are, lists with commas, `yes` and `no`, and nothing for `null`.
pub(in crate::app::cli) fn text(of: &Value, member: &str) -> String {
    match of.get(member) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Bool(true)) => "yes".to_owned(),
        Some(Value::Bool(false)) => "no".to_owned(),
        Some(Value::Array(items)) => items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", "),
        Some(Value::Object(entries)) => {
            let entry = |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
            entries.iter().map(entry).collect::<Vec<_>>().join(" ")
        }
        Some(other) => other.to_string(),
    }
}

/// Prints a list: JSON as it came, or a table of these members.
pub(in crate::app::cli) fn list(global: &Global, items: Vec<Value>, columns: &[(&str, &str)]) -> anyhow::Result<()> {
    if global.output == Output::Json {
        return print(&Value::Array(items).to_string());
    }
    let header: Vec<&str> = columns.iter().map(|(title, _)| *title).collect();
    let row = |item: &Value| columns.iter().map(|(_, member)| text(item, member)).collect();
    print(&table(&header, items.iter().map(row).collect()))
}

/// Prints the answer to a change: JSON as it came, or a sentence.
pub(in crate::app::cli) fn told(global: &Global, answer: &Value, sentence: &str) -> anyhow::Result<()> {
    match global.output {
        Output::Json => print(&answer.to_string()),
        Output::Table => print(sentence),
    }
}

/// Has rows removed, after a question, and says how many there were. `nouns` are those for one row and for many.
pub(super) async fn purge(
    global: &Global,
    (nouns, what): ([&str; 2], &str),
    requests: &[(&str, Value)],
    yes: bool,
) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    if confirm::has_to_ask(yes, &format!("removing {what}"))? {
        confirm::ask(&format!("This removes {what} for good."), "purge")?;
    }
    let mut removed = 0_u64;
    for (list, body) in requests {
        let url = client.url(&["api", "xbus", list, "purge"], &[]);
        let answer: Value = client.json(Method::POST, url, Some(body)).await?;
        removed = removed.saturating_add(answer.get("removed").and_then(Value::as_u64).unwrap_or_default());
    }
    let [one, many] = nouns;
    let sentence = format!("removed {removed} {}", if removed == 1 { one } else { many });
    told(global, &json!({ "removed": removed }), &sentence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_told_as_people_write_them() {
        let of = json!({ "a": "x", "b": true, "c": ["x", "y"], "d": { "k": "v" }, "e": 7, "f": null });
        let told: Vec<String> = ["a", "b", "c", "d", "e", "f", "g"].iter().map(|name| text(&of, name)).collect();
        assert_eq!(told, ["x", "yes", "x, y", "k=v", "7", "", ""]);
    }
}
