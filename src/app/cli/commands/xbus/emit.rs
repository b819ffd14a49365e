//! `rollbook emit`: sends an envelope in the name of an actor.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::common::text;
use super::gateway::Gateway;
use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::print;
use crate::app::cli::shared::payload;
use crate::base::duration;

/// Pause between two looks for the end of the processes.
const LOOK: Duration = Duration::from_millis(300);
/// Largest file that becomes one item, in bytes.
const FILE_BYTES_MAX: u64 = 6 << 20;

const EXAMPLES: &str = "\
Examples:
  rollbook emit shop.orders < envelope.json
  rollbook emit shop.orders --type order --item 'two apples' --item 'a pear'
  rollbook emit shop.orders --type scan --file scan.pdf --api-key-file shop.key --wait

The envelope is JSON as the specification page of Xbus has it: {\"events\":[{\"type\":\"order\",\"items\":[\"two apples\"]}]}. \
Ids, counts and checksums may be left out. With --api-key-file the envelope goes to the gateway as the actor's program \
sends it; else it goes over REST, and the token needs `admin:write xbus/actors/ACTOR/output`. --wait ends with exit code 1 \
when a process of the envelope ends in error.";

/// Arguments of `emit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EmitArgs {
    /// The actor that sends: name or id
    actor: String,
    /// The output of the actor [default: default]
    #[arg(long, value_name = "NAME")]
    output_name: Option<String>,
    /// One event of this type instead of an envelope in JSON
    #[arg(long, value_name = "TYPE")]
    r#type: Option<String>,
    /// An item of that event; can be repeated
    #[arg(long, value_name = "TEXT", requires = "type")]
    item: Vec<String>,
    /// Read the envelope from this file; with --type the file is one item
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The API key of the actor's account is in this file: send over the gateway
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
    /// Wait until all processes of the envelope have ended, at most so long
    #[arg(long, value_name = "TIME", num_args = 0..=1, default_missing_value = "5m", value_parser = duration::parse)]
    wait: Option<Duration>,
}

/// Where the envelope goes.
enum Way {
    Gateway(Gateway),
    Rest(Client),
}

/// What became of an envelope.
struct Fate {
    has_ended: bool,
    /// Why the envelope itself is in error.
    reason: String,
    /// Id, status and state of each process.
    processes: Vec<[String; 3]>,
}

pub(in crate::app::cli) async fn run(global: &Global, args: EmitArgs) -> anyhow::Result<()> {
    let envelope = envelope(&args)?;
    let way = match &args.api_key_file {
        Some(file) => Way::Gateway(Gateway::new(global, file, &args.actor)?),
        None => Way::Rest(Client::web(global)?),
    };
    let told = way.send(&args, &envelope).await?;
    let (id, status) = (text(&told, "id"), text(&told, "reception_status"));
    if global.output == Output::Table {
        print(&format!("envelope {id} {status}"))?;
    }
    let Some(wait) = args.wait else {
        return if global.output == Output::Json { print(&told.to_string()) } else { Ok(()) };
    };
    let fate = await_end(&way, &args.actor, &id, wait).await?;
    match global.output {
        Output::Json => {
            let process = |[id, status, state]: &[String; 3]| json!({ "id": id, "status": status, "state": state });
            let processes: Value = fate.processes.iter().map(process).collect();
            print(&json!({ "id": id, "reception_status": status, "processes": processes }).to_string())?;
        }
        Output::Table => {
            for [process, status, state] in &fate.processes {
                print(format!("process {process} {status} {state}").trim_end())?;
            }
        }
    }
    if !fate.reason.is_empty() {
        bail!("envelope {id} is in error: {}", fate.reason);
    }
    let failed = fate.processes.iter().filter(|[_, status, _]| status == "error").count();
    if failed > 0 {
        bail!("{failed} of {} processes ended in error; see `rollbook ps show`", fate.processes.len());
    }
    Ok(())
}

/// The envelope that the arguments name.
fn envelope(args: &EmitArgs) -> anyhow::Result<Value> {
    let Some(event_type) = &args.r#type else {
        let read = payload::read(None, Some(args.file.as_deref().unwrap_or(Path::new("-"))), true)?;
        let read = read.ok_or_else(|| Usage("give an envelope on standard input, --file or --type".to_owned()))?;
        return serde_json::from_str(read.get()).context("the envelope is no JSON");
    };
    let (mut items, mut binary) = (args.item.clone(), false);
    if let Some(file) = &args.file {
        let length = std::fs::metadata(file).with_context(|| format!("cannot read {}", file.display()))?.len();
        if length > FILE_BYTES_MAX {
            return Err(Usage(format!("{} has more than {FILE_BYTES_MAX} bytes", file.display())).into());
        }
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        match String::from_utf8(bytes) {
            Ok(text) => items.push(text),
            Err(bytes) => {
                binary = true;
                items = items.iter().map(|item| STANDARD.encode(item)).collect();
                items.push(STANDARD.encode(bytes.as_bytes()));
            }
        }
    }
    let mut event = json!({ "type": event_type, "items": items });
    if let Some(event) = event.as_object_mut().filter(|_| binary) {
        event.insert("encoding".to_owned(), "binary".into());
    }
    Ok(json!({ "events": [event] }))
}

impl Way {
    async fn send(&self, args: &EmitArgs, envelope: &Value) -> anyhow::Result<Value> {
        let output = args.output_name.as_deref();
        match self {
            Self::Gateway(gateway) => {
                let mut body = envelope.clone();
                if let (Some(name), Some(body)) = (output, body.as_object_mut()) {
                    body.insert("output".to_owned(), name.into());
                }
                Ok(gateway.output(&body).await?)
            }
            Self::Rest(client) => {
                let query: Vec<(&str, &str)> = output.map(|name| ("output", name)).into_iter().collect();
                let url = client.url(&["api", "xbus", "actors", &args.actor, "output"], &query);
                client.json(Method::POST, url, Some(envelope)).await
            }
        }
    }

    async fn fate(&self, id: &str) -> anyhow::Result<Fate> {
        let (envelope, processes) = match self {
            Self::Gateway(gateway) => {
                let told = gateway.envelope(id).await?;
                let processes = told.get("processes").and_then(Value::as_array).cloned();
                (told, processes.unwrap_or_default())
            }
            Self::Rest(client) => {
                let url = client.url(&["api", "xbus", "envelopes", id], &[]);
                let envelope: Value = client.json(Method::GET, url, None).await?;
                (envelope, client.list(&["api", "xbus", "processes"], &[("envelope", id)]).await?)
            }
        };
        let reason = if text(&envelope, "status") == "error" { text(&envelope, "reason") } else { String::new() };
        let process = |process: &Value| ["id", "status", "state"].map(|member| text(process, member));
        let processes: Vec<[String; 3]> = processes.iter().map(process).collect();
        let final_ones = |[_, status, _]: &[String; 3]| status == "done" || status == "error";
        let has_ended = !reason.is_empty() || !processes.is_empty() && processes.iter().all(final_ones);
        Ok(Fate { has_ended, reason, processes })
    }
}

/// Waits for the end of all processes of an envelope.
async fn await_end(way: &Way, actor: &str, id: &str, wait: Duration) -> anyhow::Result<Fate> {
    let looks = async {
        loop {
            let fate = way.fate(id).await?;
            if fate.has_ended {
                return Ok(fate);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let late = || anyhow::anyhow!("the envelope {id} of {actor} is still on its way; see `rollbook ps list`");
    tokio::time::timeout(wait, looks).await.map_err(|_| late())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    fn args() -> EmitArgs {
        EmitArgs {
            actor: "shop.orders".into(),
            output_name: None,
            r#type: Some("order".into()),
            item: vec!["a".into(), "b".into()],
            file: None,
            api_key_file: None,
            wait: None,
        }
    }

    #[tokio::test]
    async fn an_event_goes_over_rest_and_its_processes_are_waited_for() {
        let page =
            |status: &str| format!(r#"{{"items":[{{"id":"p","status":"{status}","state":""}}],"next_cursor":null}}"#);
        let sent = r#"{"id":"e","reception_status":"accepted"}"#;
        let envelope = r#"{"id":"e","status":"complete"}"#;
        let answers = [sent, envelope, &page("running"), envelope, &page("done")];
        let fake = Fake::start(answers.iter().map(|body| answer("200 OK", "", body)).collect()).await;
        let args = EmitArgs { output_name: Some("other".into()), wait: Some(Duration::from_secs(60)), ..args() };
        run(&fake.global(), args).await.unwrap();
        assert_eq!(fake.calls()[0], "POST /api/xbus/actors/shop.orders/output?output=other");
        assert_eq!(fake.bodies()[0], r#"{"events":[{"type":"order","items":["a","b"]}]}"#);
        assert_eq!(fake.calls()[2], "GET /api/xbus/processes?envelope=e");
        assert_eq!(fake.calls().len(), 5);
    }

    #[tokio::test]
    async fn the_gateway_gets_the_api_key_and_no_token() {
        let fake = Fake::start(vec![answer("200 OK", "", r#"{"id":"e","reception_status":"accepted"}"#)]).await;
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::write(&key, "rbx_abcdefghijklmnop\n").unwrap();
        run(&fake.global(), EmitArgs { api_key_file: Some(key), ..args() }).await.unwrap();
        let request = fake.requests()[0].to_lowercase();
        assert!(request.starts_with("post /xbus/shop.orders/output "), "{request}");
        assert!(request.contains("\r\nxbus-api-key: rbx_abcdefghijklmnop\r\n"), "{request}");
        assert!(!request.contains("authorization"), "{request}");
    }

    #[test]
    fn a_file_that_is_no_text_makes_all_items_base64() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("scan");
        std::fs::write(&file, [0xff, 0]).unwrap();
        let made = envelope(&EmitArgs { file: Some(file), ..args() }).unwrap();
        assert_eq!(
            made,
            json!({"events": [{"type": "order", "items": ["YQ==", "Yg==", "/wA="], "encoding": "binary"}]})
        );
    }
}
