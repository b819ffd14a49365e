//! `rollbook ps replay`: processes that have ended go along again.

use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::common::{text, told};
use crate::app::cli::shared::confirm;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::note;

/// The pause between two looks at the progress.
const PAUSE: Duration = Duration::from_millis(500);

pub(super) const EXAMPLES: &str = "\
Examples:
  rollbook ps replay --status error --pipeline orders --dry-run
  rollbook ps replay --status error --pipeline orders --yes
  rollbook ps replay --process 0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f --from-node archive --version active --yes

Each process that has ended and fits goes along its pipeline again, as a new process with the old envelope. The replay is \
a job of the node that is asked: the command shows how far it is, and when the command is interrupted, the job goes on; \
DELETE /api/xbus/replays/ID cancels it. It asks before. Without a terminal it replays nothing, unless --yes is given: \
exit code 2.";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Ended {
    Done,
    Error,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Version {
    /// That of the old process
    Same,
    /// The active version of the same pipeline
    Active,
}

/// Arguments of `ps replay`.
#[derive(Debug, Args)]
pub(super) struct ReplayArgs {
    /// Only this process; can be repeated
    #[arg(long, value_name = "ID")]
    process: Vec<String>,
    /// Only those with this status; can be repeated
    #[arg(long)]
    status: Vec<Ended>,
    /// Only those of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only those of this version of the pipeline
    #[arg(long, value_name = "VERSION", requires = "pipeline")]
    of_version: Option<String>,
    /// Only those that began with an envelope of this emitter
    #[arg(long, value_name = "ACTOR")]
    emitter: Option<String>,
    /// Only those along which this envelope went
    #[arg(long, value_name = "ID")]
    envelope: Option<String>,
    /// Only those whose status changed at this time or later
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only those whose status changed before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Begin with this node, which gets what it got before; all in front of it is not done again
    #[arg(long, value_name = "NODE")]
    from_node: Option<String>,
    /// Along which version of the pipeline
    #[arg(long, default_value = "same")]
    version: Version,
    /// Only count the processes that fit
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl ReplayArgs {
    fn body(&self) -> Value {
        let mut filter = Map::new();
        let texts = [
            ("pipeline", &self.pipeline),
            ("version", &self.of_version),
            ("emitter", &self.emitter),
            ("envelope", &self.envelope),
            ("from", &self.from),
            ("to", &self.to),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                filter.insert(name.to_owned(), json!(value));
            }
        }
        let word = |status: &Ended| match status {
            Ended::Done => "done",
            Ended::Error => "error",
        };
        if !self.status.is_empty() {
            filter.insert("status".to_owned(), self.status.iter().map(word).collect());
        }
        if !self.process.is_empty() {
            filter.insert("ids".to_owned(), json!(self.process));
        }
        let version = match self.version {
            Version::Same => "same",
            Version::Active => "active",
        };
        json!({ "filter": filter, "from_node": self.from_node, "version": version, "dry_run": self.dry_run })
    }
}

pub(super) async fn run(global: &Global, args: ReplayArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    if !args.dry_run && confirm::has_to_ask(args.yes, "replaying processes")? {
        confirm::ask("This has all processes that fit go along again; their actors do the work once more.", "replay")?;
    }
    let url = client.url(&["api", "xbus", "replays"], &[]);
    let mut answer: Value = client.json(Method::POST, url, Some(&args.body())).await?;
    let id = text(&answer, "id");
    let mut said = String::new();
    while text(&answer, "state") == "running" {
        let line = progress(&answer);
        if global.output == Output::Table && line != said {
            note(&line);
            said = line;
        }
        tokio::time::sleep(PAUSE).await;
        answer = client.json(Method::GET, client.url(&["api", "xbus", "replays", &id], &[]), None).await?;
    }
    told(global, &answer, &ended(&answer))?;
    match text(&answer, "state").as_str() {
        "done" => Ok(()),
        state => anyhow::bail!("the replay {id} is {state}: {}", text(&answer, "reason")),
    }
}

fn progress(answer: &Value) -> String {
    let count = |member| text(answer, member);
    format!(
        "replay {}: {} fit, {} replayed, {} refused",
        count("id"),
        count("matched"),
        count("replayed"),
        count("refused")
    )
}

/// The end of a replay, with the first reasons of refusals.
fn ended(answer: &Value) -> String {
    let mut told = progress(answer);
    let refusals = answer.get("refusals").and_then(Value::as_array).into_iter().flatten();
    for refusal in refusals {
        told.push_str(&format!("\n  {}: {}", text(refusal, "process"), text(refusal, "reason")));
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::error::Usage;
    use crate::app::cli::shared::testing::{Fake, answer};

    fn args(yes: bool) -> ReplayArgs {
        ReplayArgs {
            process: Vec::new(),
            status: vec![Ended::Error],
            pipeline: Some("orders".into()),
            of_version: None,
            emitter: None,
            envelope: None,
            from: None,
            to: None,
            from_node: Some("archive".into()),
            version: Version::Active,
            dry_run: false,
            yes,
        }
    }

    #[tokio::test]
    async fn a_replay_is_followed_to_its_end() {
        let job = |state: &str| format!(r#"{{"id":"r1","state":"{state}","matched":2,"replayed":1,"refused":1}}"#);
        let fake =
            Fake::start(vec![answer("202 Accepted", "", &job("running")), answer("200 OK", "", &job("done"))]).await;
        run(&fake.global(), args(true)).await.unwrap();
        assert_eq!(fake.calls(), ["POST /api/xbus/replays", "GET /api/xbus/replays/r1"]);
        let filter = r#"{"pipeline":"orders","status":["error"]}"#;
        let body = format!(r#"{{"filter":{filter},"from_node":"archive","version":"active","dry_run":false}}"#);
        assert_eq!(fake.bodies().first(), Some(&body));
    }

    #[tokio::test]
    async fn nothing_is_replayed_without_an_answer_to_the_question() {
        let fake = Fake::start(Vec::new()).await;
        assert!(run(&fake.global(), args(false)).await.unwrap_err().is::<Usage>());
    }

    #[test]
    fn reasons_of_refusals_are_told() {
        let answer = json!({
            "id": "r1", "matched": 2, "replayed": 1, "refused": 1,
            "refusals": [{ "process": "p1", "reason": "envelope e1 is gone" }],
        });
        assert_eq!(ended(&answer), "replay r1: 2 fit, 1 replayed, 1 refused\n  p1: envelope e1 is gone");
    }
}
