//! `rollbook pipeline`: the graphs along which envelopes go.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use reqwest::Method;
use rollbook_core::xbus::limits::PIPELINE_BYTES_MAX;
use serde_json::{Value, json};

use super::common::{list, text, told};
use crate::app::cli::commands::security::rows::{Deletion, delete};
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::lines;
use crate::app::cli::shared::output::print;

const EXAMPLES: &str = "\
Examples:
  rollbook pipeline save orders 1 orders.yml
  rollbook pipeline status orders 1 --active
  rollbook pipeline list

A version is a draft until it is active; of all versions of a pipeline at most one is. Processes that began with a \
version go on with it when another one becomes active.";

const SAVE_EXAMPLES: &str = "\
Examples:
  rollbook pipeline save orders 1 orders.yml
  cat orders.yml | rollbook pipeline save orders 2 -

Saves a new draft, or a draft anew. A graph with faults is saved too, and the answer says what is wrong; a text that is \
no pipeline is refused with its line.";

const STATUS_EXAMPLES: &str = "\
Examples:
  rollbook pipeline status orders 2 --active
  rollbook pipeline status orders 2 --inactive

The version that was active before becomes inactive by the same change.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook pipeline list
  rollbook pipeline list orders --output json
  rollbook pipeline list --active";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook pipeline show orders 1
  rollbook pipeline show orders 1 --output json | jq .graph

Prints the text as it was saved, with what is wrong with it in comments.";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook pipeline delete orders 1
  rollbook pipeline delete orders 1 --yes

For a version that is not active and that no process goes along. It asks for the name of the pipeline. Without a \
terminal it deletes nothing, unless --yes is given: exit code 2.";

/// Arguments of `pipeline`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PipelineArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Save a version
    #[command(after_help = SAVE_EXAMPLES)]
    Save {
        #[command(flatten)]
        of: Version,
        /// The pipeline as YAML, or - for standard input
        file: PathBuf,
    },
    /// Make a version active or inactive
    #[command(after_help = STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        of: Version,
        /// Envelopes go along it
        #[arg(long, required_unless_present = "inactive")]
        active: bool,
        /// No new envelope goes along it
        #[arg(long, conflicts_with = "active")]
        inactive: bool,
    },
    /// Show the versions of all pipelines, or of one
    #[command(after_help = LIST_EXAMPLES)]
    List {
        /// Only this pipeline
        name: Option<String>,
        /// Only active versions
        #[arg(long)]
        active: bool,
    },
    /// Show the text of a version
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        #[command(flatten)]
        of: Version,
    },
    /// Delete a version
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        #[command(flatten)]
        of: Version,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
struct Version {
    /// Name of the pipeline
    name: String,
    /// The version
    version: String,
}

impl Version {
    fn path(&self) -> [&str; 5] {
        ["api", "xbus", "pipelines", &self.name, &self.version]
    }
}

pub(in crate::app::cli) async fn run(global: &Global, args: PipelineArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    match args.action {
        Action::Save { of, file } => {
            let body = source(&file)?;
            let response = client.send(Method::PUT, client.url(&of.path(), &[]), Some(body)).await?;
            let answer: Value = client.read(response).await?;
            told(global, &answer, &saved(&of, &answer))
        }
        Action::Status { of, active, .. } => {
            let word = if active { "active" } else { "inactive" };
            let [api, xbus, pipelines, name, version] = of.path();
            let url = client.url(&[api, xbus, pipelines, name, version, "status"], &[]);
            let answer: Value = client.json(Method::POST, url, Some(&json!({ "status": word }))).await?;
            told(global, &answer, &format!("version {version} of pipeline {name} is {word}"))
        }
        Action::List { name, active } => {
            let path: Vec<&str> = ["api", "xbus", "pipelines"].into_iter().chain(name.as_deref()).collect();
            let query: &[(&str, &str)] = if active { &[("active", "true")] } else { &[] };
            let columns = [
                ("NAME", "name"),
                ("VERSION", "version"),
                ("STATUS", "status"),
                ("VALID", "is_valid"),
                ("CHANGED", "changed_at"),
            ];
            list(global, client.list(&path, query).await?, &columns)
        }
        Action::Show { of } => {
            let answer: Value = client.json(Method::GET, client.url(&of.path(), &[]), None).await?;
            print(&match global.output {
                Output::Json => answer.to_string(),
                Output::Table => shown(&answer),
            })
        }
        Action::Delete { of, yes } => {
            let url = client.url(&of.path(), &[]);
            let effect = format!("version {} of it is gone", of.version);
            delete(global, url, Deletion { kind: "version of pipeline", name: &of.name, effect: &effect }, yes).await
        }
    }
}

/// Reads the text of a pipeline.
fn source(file: &std::path::Path) -> anyhow::Result<Vec<u8>> {
    let (reader, _) = lines::open(Some(file))?;
    let (mut body, most) = (Vec::new(), u64::try_from(PIPELINE_BYTES_MAX).unwrap_or(u64::MAX));
    let read = reader.take(most.saturating_add(1)).read_to_end(&mut body);
    read.with_context(|| format!("cannot read {}", file.display()))?;
    if body.len() > PIPELINE_BYTES_MAX {
        return Err(Usage(format!("{}: a pipeline has at most {PIPELINE_BYTES_MAX} bytes", file.display())).into());
    }
    Ok(body)
}

fn faults(answer: &Value) -> Vec<String> {
    let faults = answer.get("faults").and_then(Value::as_array).into_iter().flatten();
    faults.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn saved(of: &Version, answer: &Value) -> String {
    let mut told = format!("version {} of pipeline {} is saved: a draft", of.version, of.name);
    let faults = faults(answer);
    if !faults.is_empty() {
        told.push_str(" with faults, which cannot be active");
        faults.iter().for_each(|fault| told.push_str(&format!("\n  {fault}")));
    }
    told
}

/// The text, behind what is to be said of it as comments.
fn shown(answer: &Value) -> String {
    let mut told = format!("# {} {}: {}\n", text(answer, "name"), text(answer, "version"), text(answer, "status"));
    faults(answer).iter().for_each(|fault| told.push_str(&format!("# fault: {fault}\n")));
    told.push_str(text(answer, "source").trim_end());
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    fn of() -> Version {
        Version { name: "orders".into(), version: "1".into() }
    }

    #[tokio::test]
    async fn a_file_is_saved_as_it_is_and_a_version_activated() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("orders.yml");
        std::fs::write(&file, "nodes: []\n").unwrap();
        let draft = r#"{"status":"draft","faults":["no emitter node"]}"#;
        let fake = Fake::start(vec![answer("200 OK", "", draft), answer("200 OK", "", "{}")]).await;
        run(&fake.global(), PipelineArgs { action: Action::Save { of: of(), file } }).await.unwrap();
        let action = Action::Status { of: of(), active: true, inactive: false };
        run(&fake.global(), PipelineArgs { action }).await.unwrap();
        let calls = ["PUT /api/xbus/pipelines/orders/1", "POST /api/xbus/pipelines/orders/1/status"];
        assert_eq!(fake.calls(), calls);
        assert_eq!(fake.bodies(), ["nodes: []\n", r#"{"status":"active"}"#]);
    }

    #[test]
    fn faults_are_told_when_a_version_is_saved_and_shown() {
        let answer = json!({
            "name": "orders", "version": "1", "status": "draft", "source": "nodes: []\n", "faults": ["no emitter node"],
        });
        assert!(saved(&of(), &answer).ends_with("cannot be active\n  no emitter node"));
        assert_eq!(shown(&answer), "# orders 1: draft\n# fault: no emitter node\nnodes: []");
    }
}
