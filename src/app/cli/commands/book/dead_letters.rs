//! `rollbook dead-letters`: shows events that were given up, publishes them again, or puts them away.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::app::cli::commands::xbus::common::{list, text, told};
use crate::app::cli::shared::confirm;
use crate::app::cli::shared::error::{AlreadyReported, Usage};
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{note, print};

/// The pause between two looks at the progress of a job.
const PAUSE: Duration = Duration::from_millis(500);
/// Most items that a node puts on a page.
const PAGE_MAX: usize = 1000;

const EXAMPLES: &str = "\
Examples:
  rollbook dead-letters list --subject 'orders.>'
  rollbook dead-letters show e_03598317830000000001
  rollbook dead-letters retry e_03598317830000000001
  rollbook dead-letters retry --all --group billing --reason timeout --yes
  rollbook dead-letters discard --all --subject 'orders.test.>' --yes

A letter is open until it is retried or discarded, by whoever and at whichever node.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook dead-letters list
  rollbook dead-letters list --subject 'orders.>' --group billing --reason timeout
  rollbook dead-letters list --state all --limit 1000 -o json

The oldest letters come first.";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook dead-letters show e_03598317830000000001

It prints the letter with its event as JSON. ID is the id of the letter, or its index in the namespace _dead_.";

const RETRY_EXAMPLES: &str = "\
Examples:
  rollbook dead-letters retry e_03598317830000000001
  rollbook dead-letters retry e_03598317830000000001 --to orders.checked
  rollbook dead-letters retry --all --subject 'orders.>' --dry-run
  rollbook dead-letters retry --all --group billing --yes

The event is published again with its payload and headers, and the header rollbook-dead-letter with the id of the letter. \
With --all that is a job of the node that is asked: the command shows how far it is, and when the command is interrupted, \
the job goes on; DELETE /api/dead-letter-jobs/ID cancels it. A job ends with its node; the same command goes on with the \
letters that are still open. --all asks before. Without a terminal it does nothing, unless --yes is given: exit code 2. \
The exit code is 1 when a letter is still open.";

const DISCARD_EXAMPLES: &str = "\
Examples:
  rollbook dead-letters discard e_03598317830000000001
  rollbook dead-letters discard --all --subject 'orders.test.>' --yes

The letter is not open any more, and nothing is published. `list --state discarded` still shows it, as long as the \
namespace _dead_ keeps it. --all is a job and asks before, as with `retry`.";

/// Arguments of `dead-letters`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum State {
    Open,
    Retried,
    Discarded,
    All,
}

impl State {
    const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Retried => "retried",
            Self::Discarded => "discarded",
            Self::All => "all",
        }
    }
}

/// Which letters.
#[derive(Debug, Default, Args)]
struct FilterArgs {
    /// Only letters of events with this subject, which may have wildcards
    #[arg(long, value_name = "PATTERN")]
    subject: Option<String>,
    /// Only those of this durable consumer
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Only those of this group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Only those with this text in their reason
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

impl FilterArgs {
    fn members(&self) -> Vec<(&'static str, &str)> {
        let all = [
            ("subject", &self.subject),
            ("consumer", &self.consumer),
            ("group", &self.group),
            ("reason", &self.reason),
        ];
        all.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?))).collect()
    }
}

/// Letters that are named, or all of a filter.
#[derive(Debug, Default, Args)]
struct WhichArgs {
    /// Ids of letters
    #[arg(value_name = "ID", required_unless_present = "all")]
    ids: Vec<String>,
    /// All open letters that fit
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    #[command(flatten)]
    filter: FilterArgs,
    /// Only count the letters that fit
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show dead letters
    #[command(after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        filter: FilterArgs,
        /// Only those in this state
        #[arg(long, default_value = "open")]
        state: State,
        /// Most letters that are shown
        #[arg(long, default_value_t = 100, value_name = "COUNT")]
        limit: usize,
    },
    /// Show a dead letter with its event
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Id of the letter
        id: String,
    },
    /// Publish the events of dead letters again
    #[command(after_help = RETRY_EXAMPLES)]
    Retry {
        #[command(flatten)]
        which: WhichArgs,
        /// Publish under this subject rather than that of the event
        #[arg(long, value_name = "SUBJECT")]
        to: Option<String>,
    },
    /// Put dead letters away
    #[command(after_help = DISCARD_EXAMPLES)]
    Discard {
        #[command(flatten)]
        which: WhichArgs,
    },
}

/// What is done with letters.
struct Deed {
    verb: &'static str,
    /// The subject under which events are published again.
    to: Option<String>,
}

pub(in crate::app::cli) async fn run(global: &Global, args: DeadLettersArgs) -> anyhow::Result<()> {
    match args.action {
        Action::List { filter, state, limit } => show_list(global, &filter, state, limit).await,
        Action::Show { id } => show(global, &id).await,
        Action::Retry { which, to } => act(global, which, Deed { verb: "retry", to }).await,
        Action::Discard { which } => act(global, which, Deed { verb: "discard", to: None }).await,
    }
}

/// A page of letters.
#[derive(Deserialize)]
struct LetterPage {
    items: Vec<Value>,
    next_cursor: Option<String>,
}

async fn show_list(global: &Global, filter: &FilterArgs, state: State, limit: usize) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    while items.len() < limit {
        let room = limit.saturating_sub(items.len()).min(PAGE_MAX).to_string();
        let mut query = filter.members();
        query.extend([("state", state.word()), ("limit", room.as_str())]);
        query.extend(cursor.as_deref().map(|cursor| ("cursor", cursor)));
        let page: LetterPage = client.json(Method::GET, client.url(&["api", "dead-letters"], &query), None).await?;
        items.extend(page.items);
        cursor = page.next_cursor;
        if cursor.is_none() {
            break;
        }
    }
    let columns = [
        ("ID", "id"),
        ("AT", "at"),
        ("SUBJECT", "subject"),
        ("EVENT", "event_id"),
        ("CONSUMER", "consumer"),
        ("GROUP", "group"),
        ("DELIVERIES", "deliveries"),
        ("STATE", "state"),
        ("REASON", "reason"),
    ];
    list(global, items, &columns)?;
    if cursor.is_some() && global.output == Output::Table {
        note("there may be more; --limit shows more at a time");
    }
    Ok(())
}

async fn show(global: &Global, id: &str) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let letter: Value = client.json(Method::GET, client.url(&["api", "dead-letters", id], &[]), None).await?;
    match global.output {
        Output::Json => print(&letter.to_string()),
        Output::Table => print(&serde_json::to_string_pretty(&letter)?),
    }
}

async fn act(global: &Global, which: WhichArgs, deed: Deed) -> anyhow::Result<()> {
    if which.all {
        return job(global, &which, &deed).await;
    }
    if which.dry_run || !which.filter.members().is_empty() {
        let text = "--dry-run, --subject, --consumer, --group and --reason are for --all; nothing was changed";
        return Err(Usage(text.to_owned()).into());
    }
    let client = Client::web(global)?;
    let mut failed = false;
    for id in &which.ids {
        let url = client.url(&["api", "dead-letters", id, deed.verb], &[]);
        let body = deed.to.as_ref().map(|to| json!({ "to": to }));
        match client.json::<Value>(Method::POST, url, body.as_ref()).await {
            Ok(letter) => told(global, &letter, &sentence(&letter))?,
            // The others are tried all the same, when there are any.
            Err(error) if which.ids.len() > 1 => {
                note(&format!("error: {id}: {error:#}"));
                failed = true;
            }
            Err(error) => return Err(error),
        }
    }
    if failed { Err(AlreadyReported.into()) } else { Ok(()) }
}

/// What has become of a letter.
fn sentence(letter: &Value) -> String {
    let done = letter.get("done").cloned().unwrap_or_default();
    let (id, state) = (text(letter, "id"), text(letter, "state"));
    match text(&done, "event_id") {
        event if event.is_empty() => format!("dead letter {id} is {state}"),
        event => format!("dead letter {id} is {state}: event {event} of {}", text(&done, "to")),
    }
}

/// Has a job done, and shows how far it is until it ends.
async fn job(global: &Global, which: &WhichArgs, deed: &Deed) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let what = match deed.verb {
        "retry" => "This publishes the events of all open dead letters that fit once more.",
        _ => "This puts all open dead letters that fit away.",
    };
    if !which.dry_run && confirm::has_to_ask(which.yes, &format!("to {} dead letters", deed.verb))? {
        confirm::ask(what, deed.verb)?;
    }
    let filter: Map<String, Value> =
        which.filter.members().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let mut body = json!({ "action": deed.verb, "filter": filter, "dry_run": which.dry_run });
    if let (Some(to), Some(body)) = (&deed.to, body.as_object_mut()) {
        body.insert("to".to_owned(), json!(to));
    }
    let url = client.url(&["api", "dead-letter-jobs"], &[]);
    let mut answer: Value = client.json(Method::POST, url, Some(&body)).await?;
    let id = text(&answer, "id");
    let mut said = String::new();
    while text(&answer, "state") == "running" {
        let line = progress(&answer);
        if global.output == Output::Table && line != said {
            note(&line);
            said = line;
        }
        tokio::time::sleep(PAUSE).await;
        answer = client.json(Method::GET, client.url(&["api", "dead-letter-jobs", &id], &[]), None).await?;
    }
    told(global, &answer, &ended(&answer))?;
    match text(&answer, "state").as_str() {
        "done" if text(&answer, "refused") == "0" => Ok(()),
        "done" => Err(AlreadyReported.into()),
        state => anyhow::bail!("the job {id} is {state}: {}", text(&answer, "reason")),
    }
}

fn progress(answer: &Value) -> String {
    let of = |member| text(answer, member);
    let done = if of("action") == "retry" { "retried" } else { "discarded" };
    let mut line = format!("job {}: {} fit, {} {done}", of("id"), of("matched"), of("done"));
    for (member, word) in [("skipped", "done by others"), ("refused", "refused")] {
        if of(member) != "0" {
            line.push_str(&format!(", {} {word}", of(member)));
        }
    }
    line
}

/// The end of a job, with the first reasons of refusals.
fn ended(answer: &Value) -> String {
    let mut told = progress(answer);
    let refusals = answer.get("refusals").and_then(Value::as_array).into_iter().flatten();
    for refusal in refusals {
        told.push_str(&format!("\n  {}: {}", text(refusal, "letter"), text(refusal, "reason")));
    }
    told
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        args: DeadLettersArgs,
    }

    async fn call(fake: &Fake, words: &[&str]) -> anyhow::Result<()> {
        let line = Line::try_parse_from([&["dead-letters"], words].concat())?;
        run(&fake.global(), line.args).await
    }

    #[tokio::test]
    async fn letters_are_listed_page_by_page_up_to_the_limit() {
        let page =
            |items: &str, next: &str| answer("200 OK", "", &format!(r#"{{"items":[{items}],"next_cursor":{next}}}"#));
        let fake =
            Fake::start(vec![page("", r#""x""#), page(r#"{"id":"e_1"}"#, r#""y""#), page("{},{}", "null")]).await;
        call(&fake, &["list", "--subject", "a.>", "--limit", "3"]).await.unwrap();
        let path = "GET /api/dead-letters?subject=a.%3E&state=open&limit=";
        let wanted = [format!("{path}3"), format!("{path}3&cursor=x"), format!("{path}2&cursor=y")];
        assert_eq!(fake.calls(), wanted);
    }

    #[tokio::test]
    async fn letters_that_are_named_are_done_one_by_one_and_a_failure_is_told_at_the_end() {
        let done = r#"{"id":"e_1","state":"retried","done":{"event_id":"e_9","to":"a.b"}}"#;
        let refused = r#"{"status":409,"detail":"it was discarded","code":"conflict"}"#;
        let fake = Fake::start(vec![
            answer("409 Conflict", "", refused),
            answer("200 OK", "", done),
            answer("409 Conflict", "", refused),
        ])
        .await;
        let error = call(&fake, &["retry", "e_0", "e_1", "--to", "a.b"]).await.unwrap_err();
        assert!(error.is::<AlreadyReported>(), "{error}");
        assert_eq!(fake.bodies(), [r#"{"to":"a.b"}"#; 2]);
        let error = call(&fake, &["discard", "e_0"]).await.unwrap_err();
        assert!(error.to_string().contains("it was discarded"), "{error}");
        let calls = ["/api/dead-letters/e_0/retry", "/api/dead-letters/e_1/retry", "/api/dead-letters/e_0/discard"];
        assert_eq!(fake.calls(), calls.map(|path| format!("POST {path}")));
    }

    #[tokio::test]
    async fn a_job_is_followed_to_its_end() {
        let job = |state: &str, refused: u8| {
            let body = format!(
                r#"{{"id":"j1","action":"retry","state":"{state}","matched":2,"done":1,"skipped":0,"refused":{refused}}}"#
            );
            answer("200 OK", "", &body)
        };
        let fake = Fake::start(vec![job("running", 0), job("done", 0), job("done", 1), job("failed", 0)]).await;
        call(&fake, &["retry", "--all", "--group", "w", "--yes"]).await.unwrap();
        assert_eq!(fake.calls(), ["POST /api/dead-letter-jobs", "GET /api/dead-letter-jobs/j1"]);
        let body = r#"{"action":"retry","filter":{"group":"w"},"dry_run":false}"#;
        assert_eq!(fake.bodies().first().map(String::as_str), Some(body));
        let error = call(&fake, &["retry", "--all", "--yes"]).await.unwrap_err();
        assert!(error.is::<AlreadyReported>(), "a letter is still open: {error}");
        let error = call(&fake, &["discard", "--all", "--dry-run"]).await.unwrap_err();
        assert!(error.to_string().contains("j1 is failed"), "{error}");
    }

    #[tokio::test]
    async fn many_letters_need_an_answer_to_the_question_and_filters_are_for_many() {
        let fake = Fake::start(Vec::new()).await;
        for words in [&["discard", "--all"][..], &["retry", "e_1", "--group", "w"], &["retry", "e_1", "--dry-run"]] {
            assert!(call(&fake, words).await.unwrap_err().is::<Usage>(), "{words:?}");
        }
        for words in [&["retry"][..], &["retry", "e_1", "--all"]] {
            assert!(call(&fake, words).await.unwrap_err().is::<clap::Error>(), "{words:?}");
        }
    }

    #[test]
    fn progress_names_what_did_not_go_well_only_when_there_is_any() {
        let answer = json!({
            "id": "j", "action": "discard", "matched": 3, "done": 1, "skipped": 1, "refused": 1,
            "refusals": [{ "letter": "e_1", "reason": "gone" }],
        });
        assert_eq!(ended(&answer), "job j: 3 fit, 1 discarded, 1 done by others, 1 refused\n  e_1: gone");
    }
}
