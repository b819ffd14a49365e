//! `rollbook ps`: processes, which are envelopes on their way through pipelines.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::common::{list, purge, text, told};
use super::replay;
use crate::app::cli::commands::processes::ps as on_docks;
use crate::app::cli::commands::security::rows::lines;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::{print, table};
use crate::base::duration;

/// Processes that are shown when nothing else is said.
const LIMIT: u32 = 100;
/// Columns of a list of processes of Xbus.
const COLUMNS: [(&str, &str); 7] = [
    ("PROCESS", "id"),
    ("STATUS", "status"),
    ("PIPELINE", "pipeline"),
    ("VERSION", "version"),
    ("EMITTER", "emitter"),
    ("CHANGED", "status_changed_at"),
    ("STATE", "state"),
];

const EXAMPLES: &str = "\
Examples:
  rollbook ps
  rollbook ps --status error --pipeline orders
  rollbook ps --from 2026-11-21T10:00:00Z --output json
  rollbook ps show 0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f

Shows what runs on docks, as the docks tell now, and the processes of Xbus whose status changed last, at most --limit \
of them. A process of Xbus is one envelope on its way through one pipeline. With an option only those of Xbus are shown.";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook ps show 0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f";

const PAUSE_EXAMPLES: &str = "\
Examples:
  rollbook ps pause 0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f

No job of it is started; those that run may end.";

const RESUME_EXAMPLES: &str = "\
Examples:
  rollbook ps resume 0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f";

const CANCEL_EXAMPLES: &str = "\
Examples:
  rollbook ps cancel 0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f

The process is in error then. Jobs that run may end; no other one is started.";

const NOTE_EXAMPLES: &str = "\
Examples:
  rollbook ps note 0d4e3d0a-5d6c-4a4e-9f37-6a1c2b3d4e5f closed --comment 'the disk has room again'

Notes what somebody makes of a process that failed. The process itself stays as it is.";

const PURGE_EXAMPLES: &str = "\
Examples:
  rollbook ps purge --status-done --status-unchanged-since 168h
  rollbook ps purge --status-done --status-error --status-unchanged-since 168h --yes

Removes processes that have ended, with their logs. It asks before. Without a terminal it removes nothing, unless --yes \
is given: exit code 2.";

/// Arguments of `ps`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct PsArgs {
    #[command(flatten)]
    filter: FilterArgs,
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Args)]
struct FilterArgs {
    /// Only those with this status; can be repeated
    #[arg(long)]
    status: Vec<Status>,
    /// Only those of this pipeline
    #[arg(long, value_name = "NAME")]
    pipeline: Option<String>,
    /// Only those of this version
    #[arg(long, requires = "pipeline")]
    version: Option<String>,
    /// Only those that began with an envelope of this emitter
    #[arg(long, value_name = "ACTOR")]
    emitter: Option<String>,
    /// Only those along which this envelope goes or went
    #[arg(long, value_name = "ID")]
    envelope: Option<String>,
    /// Only those whose status changed at this time or later
    #[arg(long, value_name = "TIME")]
    from: Option<String>,
    /// Only those whose status changed before this time
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Most processes
    #[arg(long, default_value_t = LIMIT, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
}

impl FilterArgs {
    /// Whether nothing is said that only processes of Xbus have.
    fn asks_for_all(&self) -> bool {
        let Self { status, pipeline, version, emitter, envelope, from, to, limit: _ } = self;
        let texts = [pipeline, version, emitter, envelope, from, to];
        status.is_empty() && texts.iter().all(|text| text.is_none())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    Running,
    Paused,
    Done,
    Error,
}

impl Status {
    const fn word(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Done => "done",
            Self::Error => "error",
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Attention {
    New,
    Opened,
    Closed,
}

impl Attention {
    const fn word(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Opened => "opened",
            Self::Closed => "closed",
        }
    }
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show one process with its nodes and jobs
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Id of the process
        process: String,
    },
    /// Start no more jobs of a process
    #[command(after_help = PAUSE_EXAMPLES)]
    Pause {
        /// Id of the process
        process: String,
    },
    /// Let a process go on that was paused
    #[command(after_help = RESUME_EXAMPLES)]
    Resume {
        /// Id of the process
        process: String,
    },
    /// End a process
    #[command(after_help = CANCEL_EXAMPLES)]
    Cancel {
        /// Id of the process
        process: String,
    },
    /// Note what somebody makes of a process that failed
    #[command(after_help = NOTE_EXAMPLES)]
    Note {
        /// Id of the process
        process: String,
        /// How far somebody is with it
        status: Attention,
        /// A text for others
        #[arg(long, value_name = "TEXT", default_value = "")]
        comment: String,
    },
    /// Remove processes that have ended
    #[command(after_help = PURGE_EXAMPLES)]
    Purge(PurgeArgs),
    /// Have processes that have ended go along again
    #[command(after_help = replay::EXAMPLES)]
    Replay(replay::ReplayArgs),
}

#[derive(Debug, Args)]
struct PurgeArgs {
    /// Those that ended well
    #[arg(long, required_unless_present = "status_error")]
    status_done: bool,
    /// Those that ended in error
    #[arg(long)]
    status_error: bool,
    /// Only those that ended so long ago
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    status_unchanged_since: Duration,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

pub(in crate::app::cli) async fn run(global: &Global, args: PsArgs) -> anyhow::Result<()> {
    match args.action {
        None if args.filter.asks_for_all() => all(global, args.filter).await,
        None => ps(global, args.filter).await,
        Some(Action::Show { process }) => show(global, &process).await,
        Some(Action::Pause { process }) => control(global, &process, "pause").await,
        Some(Action::Resume { process }) => control(global, &process, "resume").await,
        Some(Action::Cancel { process }) => control(global, &process, "cancel").await,
        Some(Action::Note { process, status, comment }) => {
            let client = Client::web(global)?;
            let url = client.url(&["api", "xbus", "processes", &process, "attention"], &[]);
            let body = json!({ "status": status.word(), "comment": comment });
            let answer: Value = client.json(Method::PUT, url, Some(&body)).await?;
            told(global, &answer, &format!("process {process} is noted as {}", status.word()))
        }
        Some(Action::Purge(args)) => purge_ended(global, args).await,
        Some(Action::Replay(args)) => replay::run(global, args).await,
    }
}

/// Processes on docks, and then those of Xbus: in JSON one list, in which those on docks have a member `dock`.
async fn all(global: &Global, filter: FilterArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let on_docks = on_docks::list(&client, None).await?;
    if on_docks.is_empty() {
        return ps(global, filter).await;
    }
    let limit = filter.limit.to_string();
    let of_xbus = pages(&client, &[("limit", &limit)], filter.limit).await;
    // Whoever may see processes on docks alone sees those.
    let of_xbus = match of_xbus {
        Err(error) if error.downcast_ref::<CallError>().is_some_and(|error| error.status() == Some(403)) => Vec::new(),
        other => other?,
    };
    match global.output {
        Output::Json => print(&Value::Array(on_docks.into_iter().chain(of_xbus).collect()).to_string()),
        Output::Table => {
            print(&on_docks::lines(&on_docks))?;
            if of_xbus.is_empty() {
                return Ok(());
            }
            print("")?;
            list(global, of_xbus, &COLUMNS)
        }
    }
}

async fn ps(global: &Global, filter: FilterArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let statuses: Vec<&str> = filter.status.iter().map(|status| status.word()).collect();
    let (statuses, limit) = (statuses.join(","), filter.limit.to_string());
    let named = [
        ("pipeline", filter.pipeline.as_deref()),
        ("version", filter.version.as_deref()),
        ("emitter", filter.emitter.as_deref()),
        ("envelope", filter.envelope.as_deref()),
        ("from", filter.from.as_deref()),
        ("to", filter.to.as_deref()),
        ("status", Some(statuses.as_str()).filter(|statuses| !statuses.is_empty())),
        ("limit", Some(limit.as_str())),
    ];
    let query: Vec<(&str, &str)> = named.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect();
    let items = pages(&client, &query, filter.limit).await?;
    list(global, items, &COLUMNS)
}

/// The first processes of a list, whose pages may be short before the last one.
async fn pages(client: &Client, query: &[(&str, &str)], limit: u32) -> anyhow::Result<Vec<Value>> {
    let (mut items, limit) = (Vec::new(), usize::try_from(limit).unwrap_or(usize::MAX));
    let mut cursor: Option<String> = None;
    loop {
        let behind = cursor.iter().map(|cursor| ("cursor", cursor.as_str()));
        let query: Vec<(&str, &str)> = query.iter().copied().chain(behind).collect();
        let url = client.url(&["api", "xbus", "processes"], &query);
        let page: Value = client.json(Method::GET, url, None).await?;
        items.extend(page.get("items").and_then(Value::as_array).into_iter().flatten().cloned());
        cursor = page.get("next_cursor").and_then(Value::as_str).map(str::to_owned);
        if cursor.is_none() || items.len() >= limit {
            items.truncate(limit);
            return Ok(items);
        }
    }
}

async fn show(global: &Global, process: &str) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let url = client.url(&["api", "xbus", "processes", process], &[]);
    let answer: Value = client.json(Method::GET, url, None).await?;
    print(&match global.output {
        Output::Json => answer.to_string(),
        Output::Table => shown(&answer),
    })
}

async fn control(global: &Global, process: &str, what: &str) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let url = client.url(&["api", "xbus", "processes", process, what], &[]);
    let answer: Value = client.json(Method::POST, url, None).await?;
    let status = answer.get("process").map(|process| text(process, "status")).unwrap_or_default();
    told(global, &answer, &format!("process {process}: {status}"))
}

/// A process and its jobs.
fn shown(answer: &Value) -> String {
    let none = Value::Null;
    let process = answer.get("process").unwrap_or(&none);
    let members =
        ["id", "status", "state", "pipeline", "version", "emitter", "envelope", "created_at", "status_changed_at"];
    let head = lines(&members.map(|member| (member, text(process, member))));
    let mut rows = Vec::new();
    for node in items(answer, "nodes") {
        let before = rows.len();
        for job in items(node, "jobs") {
            let said: Vec<String> = items(job, "messages").map(|message| text(message, "text")).collect();
            let row = [text(node, "id"), text(node, "state"), text(job, "actor"), text(job, "state"), said.join("; ")];
            rows.push(row.to_vec());
        }
        if rows.len() == before {
            rows.push(vec![text(node, "id"), text(node, "state"), String::new(), String::new(), String::new()]);
        }
    }
    format!("{head}\n\n{}", table(&["NODE", "STATE", "ACTOR", "JOB", "MESSAGES"], rows))
}

fn items<'v>(of: &'v Value, member: &str) -> impl Iterator<Item = &'v Value> + use<'v> {
    of.get(member).and_then(Value::as_array).into_iter().flatten()
}

async fn purge_ended(global: &Global, args: PurgeArgs) -> anyhow::Result<()> {
    let age = duration::format(args.status_unchanged_since);
    let statuses = [(args.status_done, "done"), (args.status_error, "error")];
    let wanted: Vec<&str> = statuses.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
    let what = format!("processes with the status {} that ended {age} ago or earlier", wanted.join(" or "));
    let body = |word: &&str| ("processes", json!({ "status": word, "unchanged_for": age }));
    let requests: Vec<(&str, Value)> = wanted.iter().map(body).collect();
    purge(global, (["process", "processes"], &what), &requests, args.yes).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::error::Usage;
    use crate::app::cli::shared::testing::{Fake, answer};

    fn filter(limit: u32) -> FilterArgs {
        FilterArgs {
            status: vec![Status::Done, Status::Error],
            pipeline: Some("orders".into()),
            version: None,
            emitter: None,
            envelope: None,
            from: None,
            to: None,
            limit,
        }
    }

    #[tokio::test]
    async fn short_pages_are_read_on_until_there_is_enough() {
        let page =
            |ids: &str, next: &str| answer("200 OK", "", &format!(r#"{{"items":[{ids}],"next_cursor":{next}}}"#));
        let fake = Fake::start(vec![page("", r#""a""#), page(r#"{"id":"1"},{"id":"2"}"#, r#""b""#)]).await;
        run(&fake.global(), PsArgs { filter: filter(2), action: None }).await.unwrap();
        let query = "GET /api/xbus/processes?pipeline=orders&status=done%2Cerror&limit=2";
        assert_eq!(fake.calls(), [query.to_owned(), format!("{query}&cursor=a")]);
    }

    #[tokio::test]
    async fn processes_that_ended_are_removed_after_a_question() {
        let removed = || answer("200 OK", "", r#"{"removed":7}"#);
        let fake = Fake::start(vec![removed(), removed()]).await;
        let purge = |yes| PsArgs {
            filter: filter(1),
            action: Some(Action::Purge(PurgeArgs {
                status_done: true,
                status_error: true,
                status_unchanged_since: Duration::from_secs(7200),
                yes,
            })),
        };
        // The tests have no terminal.
        assert!(run(&fake.global(), purge(false)).await.unwrap_err().is::<Usage>());
        run(&fake.global(), purge(true)).await.unwrap();
        let body = |status: &str| format!(r#"{{"status":"{status}","unchanged_for":"2h"}}"#);
        assert_eq!(fake.bodies(), [body("done"), body("error")]);
    }

    #[test]
    fn a_process_is_shown_with_a_line_for_each_job() {
        let text = shown(&json!({
            "process": { "id": "p1", "status": "error", "state": "disk full" },
            "nodes": [
                { "id": "in", "state": "success", "jobs": [] },
                { "id": "out", "state": "error", "jobs": [
                    { "actor": "files", "state": "error", "messages": [{ "text": "disk full" }] },
                ] },
            ],
        }));
        assert!(text.starts_with("id      p1\nstatus  error\nstate   disk full\n\n NODE"), "{text}");
        assert!(text.contains("files") && text.contains("success"), "{text}");
    }
}
