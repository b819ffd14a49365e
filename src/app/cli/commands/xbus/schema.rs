//! `rollbook schema`: what items of a type of events have to look like.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use rollbook_core::xbus::limits::SCHEMA_BYTES_MAX;
use serde_json::{Value, json};

use super::common::{list, text, told};
use crate::app::cli::commands::security::rows::{Deletion, delete};
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::lines;
use crate::app::cli::shared::output::print;

/// Most bytes of a file: the schema with blanks.
const FILE_BYTES_MAX: usize = 3 * SCHEMA_BYTES_MAX;

const EXAMPLES: &str = "\
Examples:
  rollbook schema set order order.schema.json --mode warn
  rollbook schema set order order.schema.json
  rollbook schema list

Each item of an event of the type is one JSON document, and is held against the schema when an envelope with it comes.";

const SET_EXAMPLES: &str = "\
Examples:
  rollbook schema set order order.schema.json --mode warn
  cat order.schema.json | rollbook schema set order -

With `enforce`, a fragment with an item that breaks the schema is not taken, and its sender is told which item and \
where. With `warn` the envelope is taken, and `rollbook logs` of it says what is wrong. Nothing is fetched: each `$ref` \
leads to a place of the schema itself.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook schema list
  rollbook schema list --output json";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook schema show order
  rollbook schema show order --output json | jq .mode";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook schema delete order
  rollbook schema delete order --yes

It asks for the type. Without a terminal it deletes nothing, unless --yes is given: exit code 2.";

/// Arguments of `schema`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SchemaArgs {
    #[command(subcommand)]
    action: Action,
}

/// What becomes of an item that breaks the schema.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// Nobody looks
    Off,
    /// The envelope is taken, and a log entry says what is wrong
    Warn,
    /// The fragment is not taken
    Enforce,
}

impl Mode {
    const fn word(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Enforce => "enforce",
        }
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Set the schema of a type of events
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// Type of the events
        event_type: String,
        /// The JSON Schema, or - for standard input
        file: PathBuf,
        /// What becomes of an item that breaks the schema
        #[arg(long, default_value = "enforce")]
        mode: Mode,
    },
    /// Show the schemas
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Show one schema
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Type of the events
        event_type: String,
    },
    /// Delete a schema
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        /// Type of the events
        event_type: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

pub(in crate::app::cli) async fn run(global: &Global, args: SchemaArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let one = |event_type: &str| client.url(&["api", "xbus", "schemas", event_type], &[]);
    match args.action {
        Action::Set { event_type, file, mode } => {
            let body = json!({ "mode": mode.word(), "schema": schema(&file)? });
            let answer: Value = client.json(Method::PUT, one(&event_type), Some(&body)).await?;
            told(global, &answer, &format!("events of the type {event_type} have a schema: {}", mode.word()))
        }
        Action::List => {
            let columns =
                [("TYPE", "event_type"), ("MODE", "mode"), ("CHANGED", "changed_at"), ("REVISION", "revision")];
            list(global, client.list(&["api", "xbus", "schemas"], &[]).await?, &columns)
        }
        Action::Show { event_type } => {
            let answer: Value = client.json(Method::GET, one(&event_type), None).await?;
            print(&match global.output {
                Output::Json => answer.to_string(),
                Output::Table => shown(&answer),
            })
        }
        Action::Delete { event_type, yes } => {
            let what = Deletion { kind: "schema of type", name: &event_type, effect: "its items are not checked" };
            delete(global, one(&event_type), what, yes).await
        }
    }
}

/// Reads a schema.
fn schema(file: &Path) -> anyhow::Result<Value> {
    let (reader, _) = lines::open(Some(file))?;
    let (mut body, most) = (Vec::new(), u64::try_from(FILE_BYTES_MAX).unwrap_or(u64::MAX));
    let read = reader.take(most.saturating_add(1)).read_to_end(&mut body);
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if body.len() > FILE_BYTES_MAX {
        return Err(Usage(format!("{}: a schema has at most {SCHEMA_BYTES_MAX} bytes", file.display())).into());
    }
    serde_json::from_slice(&body).map_err(|error| Usage(format!("{}: not JSON: {error}", file.display())).into())
}

/// The schema with its mode in front.
fn shown(answer: &Value) -> String {
    let schema = answer.get("schema").cloned().unwrap_or_default();
    let pretty = serde_json::to_string_pretty(&schema).unwrap_or_default();
    format!("# {}: {}\n{pretty}", text(answer, "event_type"), text(answer, "mode"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[tokio::test]
    async fn a_schema_is_sent_with_its_mode() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("order.json");
        std::fs::write(&file, r#"{ "type": "object" }"#).unwrap();
        let fake = Fake::start(vec![answer("200 OK", "", "{}")]).await;
        let action = Action::Set { event_type: "shop.order".into(), file: file.clone(), mode: Mode::Warn };
        run(&fake.global(), SchemaArgs { action }).await.unwrap();
        assert_eq!(fake.calls(), ["PUT /api/xbus/schemas/shop.order"]);
        assert_eq!(fake.bodies(), [r#"{"mode":"warn","schema":{"type":"object"}}"#]);
        std::fs::write(&file, "{").unwrap();
        let action = Action::Set { event_type: "order".into(), file, mode: Mode::Enforce };
        assert!(run(&fake.global(), SchemaArgs { action }).await.unwrap_err().is::<Usage>());
    }

    #[test]
    fn a_schema_is_shown_as_json_behind_its_mode() {
        let text = shown(&json!({ "event_type": "order", "mode": "warn", "schema": true }));
        assert_eq!(text, "# order: warn\ntrue");
    }
}
