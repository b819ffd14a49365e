//! `rollbook audit`: who changed what, and what was refused to whom.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rollbook_core::security::principal::Principal;
use serde::Deserialize;
use serde_json::Value;

use crate::app::cli::shared::event::one_line;
use crate::app::cli::shared::follow::{Follower, Next, ReconnectPolicy};
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{Closed, Out, print, table, unread};

const EXAMPLES: &str = "\
Examples:
  rollbook audit
  rollbook audit --principal user:ann --what security
  rollbook audit --what denied --follow
  rollbook audit --limit 1000 --output json | jq -r '.[] | select(.payload.outcome == \"refused\") | .subject'

The newest are the last. WHAT is an area and a change: security.principal_set, security.credential_add, \
namespace.delete, config.set, denied.publish. OUTCOME is done, refused by the rules, or denied for want of a right; \
refusals are gathered for each second and principal, which is the number behind. With --follow new lines come as they \
are written, and JSON is one event a line. The audit is the namespace _audit: `rollbook subscribe '_audit.>'` reads the \
events themselves.";

/// The namespace of the audit.
const NAMESPACE: &str = "_audit";
/// How many events are shown unless it is said.
const SHOWN: u16 = 100;
/// How many are shown before new ones are followed.
const SHOWN_BEFORE_FOLLOWING: u16 = 10;
/// When to connect again: a node sends a sign of life at least this often.
const POLICY: ReconnectPolicy = ReconnectPolicy { silence_max: Duration::from_secs(90), attempts_max: None };

/// Arguments of `audit`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AuditArgs {
    /// How many of the newest events are shown, up to 1000 [default: 100, with --follow 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: Option<u16>,
    /// Only events before this index, to page back
    #[arg(long, value_name = "INDEX", conflicts_with = "follow")]
    before: Option<u64>,
    /// Only what this principal did, or was refused
    #[arg(long, value_name = "KIND:NAME")]
    principal: Option<Principal>,
    /// Only this area, as security or denied, or this change, as security.role_set
    #[arg(long, value_name = "AREA")]
    what: Option<String>,
    /// Go on with new events as they come
    #[arg(short, long)]
    follow: bool,
}

/// An event of the audit.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    subject: String,
    index: u64,
    payload: Line,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Line {
    principal: String,
    credential: String,
    address: String,
    door: String,
    target: String,
    outcome: String,
    reason: String,
    count: u64,
    at: String,
}

impl Event {
    /// The columns of a line.
    fn columns(&self) -> [String; 7] {
        let Self { subject, index, payload: line, .. } = self;
        let what = subject.strip_prefix(NAMESPACE).and_then(|rest| rest.strip_prefix('.')).unwrap_or(subject);
        let mut outcome = line.outcome.clone();
        if line.count > 1 {
            outcome.push_str(&format!(" {} times", line.count));
        }
        if !line.reason.is_empty() {
            outcome.push_str(&format!(": {}", line.reason));
        }
        let from = [line.door.as_str(), &line.address, &line.credential];
        let from = from.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>().join(" ");
        [index.to_string().as_str(), &line.at, &line.principal, what, &line.target, &outcome, &from].map(plain)
    }
}

/// A text without characters that a terminal would obey: targets and names come from clients.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

pub(in crate::app::cli) async fn run(global: &Global, args: AuditArgs) -> anyhow::Result<()> {
    let items = newest(global, &args).await?;
    if !args.follow {
        return print(&match global.output {
            Output::Json => Value::Array(items).to_string(),
            Output::Table => shown(&items)?,
        });
    }
    let (client, mut out) = (Client::log(global)?, Out::stdout());
    let start = items.last().and_then(|item| item.get("id")).and_then(Value::as_str).unwrap_or("oldest").to_owned();
    for item in &items {
        out.line(&one(global, &item.to_string())?)?;
    }
    tokio::select! {
        ended = follow(global, &client, &args, start, &mut out) => ended,
        () = unread() => Err(Closed.into()),
    }
}

/// The newest events that were asked for, the newest last.
async fn newest(global: &Global, args: &AuditArgs) -> anyhow::Result<Vec<Value>> {
    let client = Client::web(global)?;
    let default = if args.follow { SHOWN_BEFORE_FOLLOWING } else { SHOWN };
    let limit = args.limit.unwrap_or(default).to_string();
    let before = args.before.map(|index| index.to_string());
    let principal = args.principal.as_ref().map(ToString::to_string);
    let given = [("before", &before), ("principal", &principal), ("what", &args.what)];
    let mut query = vec![("limit", limit.as_str())];
    query.extend(given.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?))));
    let mut items = client.list(&["api", "audit"], &query).await?;
    items.reverse();
    Ok(items)
}

fn shown(items: &[Value]) -> anyhow::Result<String> {
    let mut lines = Vec::with_capacity(items.len());
    for item in items {
        let event = Event::deserialize(item).context("an event of the audit is not as this release expects")?;
        lines.push(event.columns().to_vec());
    }
    Ok(table(&["INDEX", "AT", "WHO", "WHAT", "TARGET", "OUTCOME", "FROM"], lines))
}

/// One event on one line.
fn one(global: &Global, json: &str) -> anyhow::Result<String> {
    if global.output == Output::Json {
        return Ok(one_line(json).into_owned());
    }
    let event: Event = serde_json::from_str(json).context("an event of the audit is not as this release expects")?;
    let [_, at, who, what, target, outcome, from] = event.columns();
    Ok(format!("{at:<24}  {who:<20}  {what:<26}  {target:<24}  {outcome}  {from}").trim_end().to_owned())
}

/// Writes new events as they come, without an end.
async fn follow(
    global: &Global,
    client: &Client,
    args: &AuditArgs,
    start: String,
    out: &mut Out,
) -> anyhow::Result<()> {
    let subject = args.what.as_ref().map_or_else(|| format!("{NAMESPACE}.>"), |what| format!("{NAMESPACE}.{what}.>"));
    let principal = args.principal.as_ref().map(ToString::to_string);
    let mut follower = Follower::new(client, vec![("subject", subject), ("start", start)], POLICY);
    loop {
        if !follower.has_ready() {
            out.flush()?;
        }
        // The follower waits forever, so without a limit the item `Quiet` never comes.
        let Next::Event(event) = follower.next(None).await? else { continue };
        if let Some(principal) = &principal {
            let is_of =
                serde_json::from_str::<Event>(&event.data).is_ok_and(|event| event.payload.principal == *principal);
            if !is_of {
                continue;
            }
        }
        out.line(&one(global, &event.data)?)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{self, Fake, answer, captured};
    use clap::Parser;

    fn args(line: &str) -> AuditArgs {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Client(ClientCommand::Audit(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn event(index: u64, principal: &str, rest: &str) -> String {
        format!(
            r#"{{"id":"e_{index}","subject":"_audit.denied.publish","index":{index},"payload":{{"principal":"{principal}","credential":"k7","address":"10.0.0.1:5","door":"sse","target":"orders.x","outcome":"denied"{rest},"at":"2026-01-01T00:00:00Z"}}}}"#
        )
    }

    #[tokio::test]
    async fn options_become_the_query_and_the_newest_is_the_last() {
        let body =
            format!(r#"{{"items":[{},{}],"next_cursor":null}}"#, event(7, "user:ann", ""), event(6, "user:ann", ""));
        let fake = Fake::start(vec![answer("200 OK", "", &body)]).await;
        let line = "rollbook audit --limit 2 --before 9 --principal user:ann --what denied";
        let items = newest(&fake.global(), &args(line)).await.unwrap();
        assert_eq!(fake.calls(), ["GET /api/audit?limit=2&before=9&principal=user%3Aann&what=denied"]);
        assert_eq!((items.len(), &items[0]["index"], &items[1]["index"]), (2, &6.into(), &7.into()));
        let text = shown(&items).unwrap();
        assert!(text.contains("denied.publish") && text.contains("sse 10.0.0.1:5 k7"), "{text}");
    }

    #[test]
    fn a_line_obeys_nobody_but_the_audit() {
        let event: Event =
            serde_json::from_str(&event(7, "user:\\u001b[2Jann", r#","count":5,"reason":"no right""#)).unwrap();
        let [_, _, who, what, _, outcome, _] = event.columns();
        assert_eq!((who.as_str(), what.as_str()), ("user:\u{fffd}[2Jann", "denied.publish"));
        assert_eq!(outcome, "denied 5 times: no right");
    }

    #[tokio::test]
    async fn following_begins_behind_the_last_event_that_was_shown() {
        let frame = |index: u64, who: &str| format!("id: e_{index}\nevent: msg\ndata: {}\n\n", event(index, who, ""));
        let body = format!("{}{}event: error\ndata: the end\n\n", frame(8, "user:bob"), frame(9, "user:ann"));
        let fake = Fake::start(vec![testing::stream("c_a", &body)]).await;
        let (global, (mut out, text)) = (fake.global(), captured());
        let client = Client::log(&global).unwrap();
        let line = args("rollbook audit --follow --what denied --principal user:ann");
        let error = follow(&global, &client, &line, "e_7".to_owned(), &mut out).await.unwrap_err();
        assert!(error.to_string().contains("the end"), "{error}");
        out.flush().unwrap();
        assert!(text().contains("user:ann") && !text().contains("user:bob"), "{}", text());
        assert_eq!(fake.calls(), ["GET /?subject=_audit.denied.%3E&start=e_7"]);
    }
}
