//! `rollbook schedules`: events that the bus publishes at their times.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::app::cli::commands::publish::header;
use crate::app::cli::commands::security::rows::{Deletion, delete, lines};
use crate::app::cli::commands::xbus::common::{list, text, told};
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::print;
use crate::app::cli::shared::payload;
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook schedules set nightly app.reports.due '{\"kind\":\"daily\"}' --cron '0 3 * * *' --time-zone Europe/Berlin
  rollbook schedules set beat app.beat --every 30s
  rollbook schedules list
  rollbook schedules pause nightly
  rollbook schedules delete nightly --yes

Each tick is published once, whichever node leads the cluster. The events have the headers rollbook-schedule and \
rollbook-tick.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook schedules list
  rollbook schedules list --output json | jq -r '.[].name'

MISSED  ticks that have no event of their own, because their time had passed
FAILED  ticks whose event was refused; `show` says why";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook schedules show nightly
  rollbook schedules show nightly --output json | jq .next_ticks";

const SET_EXAMPLES: &str = "\
Examples:
  rollbook schedules set nightly app.reports.due '{\"kind\":\"daily\"}' --cron '0 3 * * *' --time-zone Europe/Berlin
  rollbook schedules set beat app.beat --every 30s --missed skip
  rollbook schedules set sweep app.sweep --cron @hourly --jitter 5m -H 'team: billing'

A cron expression has 5 fields (minute hour day month weekday), 6 with the second in front, or is one of @hourly @daily \
@weekly @monthly @yearly. What is not given has its default, also when the schedule is there already.";

const DELETE_EXAMPLES: &str = "\
Examples:
  rollbook schedules delete nightly
  rollbook schedules delete nightly --yes

It asks for the name. Without a terminal it deletes nothing, unless --yes is given: exit code 2.";

const PAUSE_EXAMPLES: &str = "\
Examples:
  rollbook schedules pause nightly

Ticks that pass meanwhile count as missed when the schedule is resumed.";

const RESUME_EXAMPLES: &str = "\
Examples:
  rollbook schedules resume nightly";

const RUN_EXAMPLES: &str = "\
Examples:
  rollbook schedules run nightly

The event is no tick: it has the header rollbook-schedule alone, and the ticks come as they would without it.";

/// Arguments of `schedules`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SchedulesArgs {
    #[command(subcommand)]
    action: Action,
}

/// What becomes of ticks whose time passed while nobody could publish them.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Missed {
    /// One event stands for all of them
    Once,
    /// They are left out
    Skip,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show all schedules
    #[command(after_help = LIST_EXAMPLES)]
    List,
    /// Show one schedule and its next ticks
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// The schedule
        name: String,
    },
    /// Create or replace a schedule
    #[command(after_help = SET_EXAMPLES)]
    Set(Box<SetArgs>),
    /// Delete a schedule; what it has published stays
    #[command(alias = "remove", after_help = DELETE_EXAMPLES)]
    Delete {
        /// The schedule
        name: String,
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
    /// Publish nothing until it is resumed
    #[command(after_help = PAUSE_EXAMPLES)]
    Pause {
        /// The schedule
        name: String,
    },
    /// Publish again
    #[command(after_help = RESUME_EXAMPLES)]
    Resume {
        /// The schedule
        name: String,
    },
    /// Publish one event now
    #[command(after_help = RUN_EXAMPLES)]
    Run {
        /// The schedule
        name: String,
    },
}

#[derive(Debug, Args)]
struct SetArgs {
    /// 1 to 64 letters, digits, _ - or .
    name: String,
    /// Subject of the events
    subject: String,
    /// Payload of the events: JSON, or - for standard input
    payload: Option<String>,
    /// Read the payload from a file
    #[arg(long, value_name = "FILE", conflicts_with = "payload")]
    file: Option<PathBuf>,
    /// When: a cron expression
    #[arg(long, value_name = "EXPRESSION", required_unless_present = "every", conflicts_with = "every")]
    cron: Option<String>,
    /// When: an interval from 1s on, for example 30s
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    every: Option<String>,
    /// Time zone of the expression, for example Europe/Berlin
    #[arg(long, value_name = "ZONE", conflicts_with = "every")]
    time_zone: Option<String>,
    /// Let each event leave up to so much later
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    jitter: Option<String>,
    /// What becomes of ticks that were missed
    #[arg(long, default_value = "once")]
    missed: Missed,
    /// A header of the events; may be given more than once
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Publish nothing until it is resumed
    #[arg(long)]
    paused: bool,
}

fn interval(text: &str) -> Result<String, String> {
    duration::parse(text).map(duration::format).map_err(|error| error.to_string())
}

/// The body of a schedule. The payload keeps its bytes.
#[derive(Serialize)]
struct Body<'a> {
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cron: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    every: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_zone: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jitter: Option<&'a str>,
    missed: &'a str,
    paused: bool,
}

pub(in crate::app::cli) async fn run(global: &Global, args: SchedulesArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let one = |name: &str| client.url(&["api", "schedules", name], &[]);
    match args.action {
        Action::List => {
            let columns = [
                ("NAME", "name"),
                ("SUBJECT", "subject"),
                ("CRON", "cron"),
                ("EVERY", "every"),
                ("NEXT", "next_tick"),
                ("LAST", "last_tick"),
                ("FIRED", "fired"),
                ("MISSED", "missed_ticks"),
                ("FAILED", "failed"),
                ("PAUSED", "paused"),
            ];
            list(global, client.list(&["api", "schedules"], &[]).await?, &columns)
        }
        Action::Show { name } => {
            let answer: Box<RawValue> = client.json(Method::GET, one(&name), None).await?;
            print(&match global.output {
                Output::Json => answer.get().to_owned(),
                Output::Table => shown(answer.get())?,
            })
        }
        Action::Set(args) => {
            let payload = payload::read(args.payload.as_deref(), args.file.as_deref(), false)?;
            let body = serde_json::to_vec(&args.body(payload.as_deref()))?;
            let answer: Value = client.read(client.send(Method::PUT, one(&args.name), Some(body)).await?).await?;
            let next = text(&answer, "next_tick");
            let when = if next.is_empty() { "it is paused".to_owned() } else { format!("its next tick is {next}") };
            told(global, &answer, &format!("schedule {} is set: {when}", args.name))
        }
        Action::Delete { name, yes } => {
            let what = Deletion { kind: "schedule", name: &name, effect: "what it has published stays" };
            delete(global, one(&name), what, yes).await
        }
        Action::Pause { name } => {
            let answer: Value = client.json(Method::PATCH, one(&name), Some(&json!({ "paused": true }))).await?;
            told(global, &answer, &format!("schedule {name} is paused"))
        }
        Action::Resume { name } => {
            let answer: Value = client.json(Method::PATCH, one(&name), Some(&json!({ "paused": false }))).await?;
            let next = text(&answer, "next_tick");
            told(global, &answer, &format!("schedule {name} goes on: its next tick is {next}"))
        }
        Action::Run { name } => {
            let url = client.url(&["api", "schedules", &name, "run"], &[]);
            let answer: Value = client.json(Method::POST, url, None).await?;
            told(global, &answer, &format!("{} {}", text(&answer, "id"), text(&answer, "index")))
        }
    }
}

impl SetArgs {
    fn body<'a>(&'a self, payload: Option<&'a RawValue>) -> Body<'a> {
        let mut headers = BTreeMap::<&str, Vec<&str>>::new();
        for (name, value) in &self.headers {
            headers.entry(name).or_default().push(value);
        }
        Body {
            subject: &self.subject,
            payload,
            headers,
            cron: self.cron.as_deref(),
            every: self.every.as_deref(),
            time_zone: self.time_zone.as_deref(),
            jitter: self.jitter.as_deref(),
            missed: match self.missed {
                Missed::Once => "once",
                Missed::Skip => "skip",
            },
            paused: self.paused,
        }
    }
}

/// The payload as it came.
#[derive(Deserialize)]
struct Payload<'a> {
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// A line for each member that says something.
fn shown(json: &str) -> anyhow::Result<String> {
    let answer: &Value = &serde_json::from_str(json)?;
    let Payload { payload } = serde_json::from_str(json)?;
    let many = |member: &str| text(answer, member).replace(", ", "\n");
    let headers = answer.get("headers").and_then(Value::as_object).into_iter().flatten();
    let headers = headers.flat_map(|(name, values)| {
        let values = values.as_array().into_iter().flatten().filter_map(Value::as_str);
        values.map(move |value| format!("{name}: {value}"))
    });
    let plain = |member: &'static str| (member, text(answer, member));
    let members = [
        plain("name"),
        plain("subject"),
        ("payload", payload.map(|payload| payload.get().to_owned()).unwrap_or_default()),
        ("headers", headers.collect::<Vec<_>>().join("\n")),
        plain("cron"),
        plain("every"),
        plain("time_zone"),
        plain("jitter"),
        plain("missed"),
        plain("paused"),
        ("next_ticks", many("next_ticks")),
        plain("last_tick"),
        plain("fired"),
        plain("missed_ticks"),
        plain("failed"),
        plain("last_failure"),
        plain("changed_at"),
    ];
    Ok(lines(&members))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::error::Usage;
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    const ONE: &str = r#"{"name":"beat","subject":"app.beat","payload":{"n":1.50},"headers":{"a":["1","2"]},"cron":null,"every":"30s","time_zone":"UTC","jitter":"0s","missed":"once","paused":false,"next_tick":"2026-12-01T00:00:30Z","next_ticks":["2026-12-01T00:00:30Z","2026-12-01T00:01:00Z"],"last_tick":null,"fired":0,"missed_ticks":0,"failed":0,"last_failure":null,"created_at":"2026-12-01T00:00:01Z","changed_at":"2026-12-01T00:00:01Z","revision":1}"#;

    fn parse(words: &[&str]) -> Result<SchedulesArgs, clap::Error> {
        match Cli::try_parse_from(["rollbook", "schedules"].iter().chain(words))?.command {
            Command::Client(ClientCommand::Schedules(args)) => Ok(args),
            other => panic!("{other:?}"),
        }
    }

    async fn call(fake: &Fake, words: &[&str]) -> anyhow::Result<()> {
        run(&fake.global(), parse(words)?).await
    }

    #[tokio::test]
    async fn each_action_is_its_request() {
        let list = format!("{{\"items\":[{ONE}],\"next_cursor\":null}}");
        let published = r#"{"id":"e_1","index":7,"created_at":"2026-12-01T00:00:01Z"}"#;
        let answers = [
            ("200 OK", &*list),
            ("200 OK", ONE),
            ("200 OK", ONE),
            ("200 OK", ONE),
            ("200 OK", ONE),
            ("200 OK", published),
            ("204 No Content", ""),
        ];
        let fake = Fake::start(answers.map(|(status, body)| answer(status, "", body)).to_vec()).await;
        call(&fake, &["list"]).await.unwrap();
        call(&fake, &["show", "beat"]).await.unwrap();
        let set = [
            "set",
            "beat",
            "app.beat",
            "{\"n\": 1.50}",
            "--every",
            "90s",
            "--jitter",
            "2s",
            "-H",
            "a: 1",
            "-H",
            "a: 2",
        ];
        call(&fake, &set).await.unwrap();
        call(&fake, &["pause", "beat"]).await.unwrap();
        call(&fake, &["resume", "beat"]).await.unwrap();
        call(&fake, &["run", "beat"]).await.unwrap();
        call(&fake, &["delete", "beat", "--yes"]).await.unwrap();
        let calls = [
            "GET /api/schedules",
            "GET /api/schedules/beat",
            "PUT /api/schedules/beat",
            "PATCH /api/schedules/beat",
            "PATCH /api/schedules/beat",
            "POST /api/schedules/beat/run",
            "DELETE /api/schedules/beat",
        ];
        assert_eq!(fake.calls(), calls);
        let bodies = fake.bodies();
        let body = r#"{"subject":"app.beat","payload":{"n": 1.50},"headers":{"a":["1","2"]},"every":"1m30s","jitter":"2s","missed":"once","paused":false}"#;
        assert_eq!(bodies[2], body);
        assert_eq!((&*bodies[3], &*bodies[4]), (r#"{"paused":true}"#, r#"{"paused":false}"#));
    }

    #[tokio::test]
    async fn nothing_is_deleted_unasked() {
        let fake = Fake::start(vec![]).await;
        let error = call(&fake, &["delete", "beat"]).await.unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("pass --yes"), "{error}");
        assert_eq!(fake.calls(), [""; 0]);
    }

    #[test]
    fn a_schedule_needs_either_an_expression_or_an_interval() {
        for words in [
            &["set", "s", "app.x"][..],
            &["set", "s", "app.x", "--cron", "@daily", "--every", "5s"],
            &["set", "s", "app.x", "--every", "5s", "--time-zone", "UTC"],
            &["set", "s", "app.x", "--every", "soon"],
            &["set", "s", "app.x", "--every", "5s", "--missed", "all"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_schedule_is_shown_line_by_line() {
        let text = shown(ONE).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            ["name          beat", "subject       app.beat", "payload       {\"n\":1.50}", "headers       a: 1"]
        );
        assert!(
            lines.contains(&"next_ticks    2026-12-01T00:00:30Z")
                && lines.contains(&"              2026-12-01T00:01:00Z"),
            "{text}"
        );
        assert!(!text.contains("cron") && !text.contains("last_tick"), "{text}");
    }
}
