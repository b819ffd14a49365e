//! `rollbook events`: looks up stored events, without following the log.

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::app::cli::shared::event::{Event, one_line};
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{print, table};

const EXAMPLES: &str = "\
Examples:
  rollbook events list 'app.>'
  rollbook events list 'app.orders.*' --since 1h --limit 1000
  rollbook events show app e_dc6gts00000000000020

Needs the right to subscribe to the subjects, or to some of them: then only those events are shown.";

const LIST_EXAMPLES: &str = "\
Examples:
  rollbook events list 'app.>'
  rollbook events list 'app.>' --order asc --from 1000 --limit 10
  rollbook events list 'app.orders.*' --since 2026-01-31T12:00:00Z --until 30m
  rollbook events list 'app.>' --output json | jq -r '.[].payload'

The newest come first, unless --order says otherwise. A long payload is cut; --output json has all of it.";

const SHOW_EXAMPLES: &str = "\
Examples:
  rollbook events show app e_dc6gts00000000000020
  rollbook events show app 17 | jq .payload

Prints the event as JSON, as it is stored.";

/// Most characters of a payload in the table.
const PAYLOAD_SHOWN: usize = 60;
/// Most events of one request.
const PAGE_MAX: usize = 1000;
/// Most events that are listed at once.
const LIMIT_MAX: i64 = 10_000;

/// Arguments of `events`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct EventsArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Show stored events of some subjects
    #[command(after_help = LIST_EXAMPLES)]
    List(ListArgs),
    /// Show one stored event
    #[command(after_help = SHOW_EXAMPLES)]
    Show {
        /// Namespace
        namespace: String,
        /// Id of the event, or its index in the namespace
        event: String,
    },
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Subject, with * for one part and > or ** for the rest
    pattern: String,
    /// Which come first: the oldest (asc) or the newest (desc)
    #[arg(long, value_enum, value_name = "asc|desc", hide_possible_values = true, default_value = "desc")]
    order: Order,
    /// Begin with this index; with desc it is that of the newest event
    #[arg(long, value_name = "INDEX")]
    from: Option<u64>,
    /// Only events that were created at this time or later: a time, or so long ago, as 1h
    #[arg(long, value_name = "TIME|DURATION")]
    since: Option<String>,
    /// Only events that were created before this time: a time, or so long ago, as 1h
    #[arg(long, value_name = "TIME|DURATION")]
    until: Option<String>,
    /// Most events, up to 10000
    #[arg(long, value_name = "N", default_value = "100", value_parser = clap::value_parser!(u16).range(1..=LIMIT_MAX))]
    limit: u16,
}

/// Which events come first.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// The oldest
    Asc,
    /// The newest
    Desc,
}

impl Order {
    const fn word(self) -> &'static str {
        match self {
            Self::Asc => "asc",
            Self::Desc => "desc",
        }
    }
}

/// A page of events as REST gives it. The events stay as they are.
#[derive(Deserialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

pub(in crate::app::cli) async fn run(global: &Global, args: EventsArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    match args.action {
        Action::List(args) => {
            let items = list(&client, &args).await?;
            print(&shown(global, &items)?)
        }
        Action::Show { namespace, event } => {
            let url = client.url(&["api", "namespaces", &namespace, "events", &event], &[]);
            let found: Box<RawValue> = client.json(Method::GET, url, None).await?;
            print(&one_line(found.get()))
        }
    }
}

/// The events that were asked for, page by page.
async fn list(client: &Client, args: &ListArgs) -> anyhow::Result<Vec<Box<RawValue>>> {
    let namespace = args.pattern.split('.').next().unwrap_or_default();
    let limit = usize::from(args.limit);
    let from = args.from.map(|index| index.to_string());
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let left = limit.saturating_sub(items.len()).min(PAGE_MAX).to_string();
        let mut query = vec![("subject", args.pattern.as_str()), ("order", args.order.word()), ("limit", &left)];
        let given = [("from", &from), ("since", &args.since), ("until", &args.until), ("cursor", &cursor)];
        query.extend(given.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?))));
        let page: Page =
            client.json(Method::GET, client.url(&["api", "namespaces", namespace, "events"], &query), None).await?;
        items.extend(page.items);
        // A page may be empty and yet have another one behind it.
        match page.next_cursor {
            Some(next) if items.len() < limit && Some(&next) != cursor.as_ref() => cursor = Some(next),
            _ => return Ok(items),
        }
    }
}

fn shown(global: &Global, items: &[Box<RawValue>]) -> anyhow::Result<String> {
    if global.output == Output::Json {
        let items: Vec<&str> = items.iter().map(|item| item.get()).collect();
        return Ok(format!("[{}]", items.join(",")));
    }
    let mut rows = Vec::with_capacity(items.len());
    for item in items {
        let event = Event::parse(item.get()).context("an event is not as this release expects")?;
        let text = |raw: Option<&RawValue>| raw.map_or("", |raw| raw.get().trim_matches('"')).to_owned();
        let index = event.index.map_or_else(String::new, |index| index.to_string());
        let payload = cut(event.payload.map_or("", |payload| payload.get()));
        rows.push(vec![index, text(event.created_at), plain(&event.subject), plain(&text(event.id)), payload]);
    }
    Ok(table(&["INDEX", "CREATED AT", "SUBJECT", "ID", "PAYLOAD"], rows))
}

/// A text without characters that a terminal would obey: payloads and ids come from clients.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The beginning of a payload, on one line.
fn cut(payload: &str) -> String {
    let payload = one_line(payload);
    let mut text = plain(&payload.chars().take(PAYLOAD_SHOWN).collect::<String>());
    if payload.chars().nth(PAYLOAD_SHOWN).is_some() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{Fake, answer};
    use clap::Parser;

    fn args(line: &str) -> EventsArgs {
        match Cli::try_parse_from(line.split(' ')).unwrap().command {
            Command::Client(ClientCommand::Events(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    fn event(index: u64, payload: &str) -> String {
        format!(
            r#"{{"id":"e_{index}","subject":"app.x","created_at":"2026-01-01T00:00:00Z","payload":{payload},"index":{index}}}"#
        )
    }

    fn page(items: &[String], next: &str) -> String {
        answer("200 OK", "", &format!(r#"{{"items":[{}],"next_cursor":{next}}}"#, items.join(",")))
    }

    #[tokio::test]
    async fn pages_are_asked_for_until_there_are_enough_events_also_behind_an_empty_page() {
        let first = page(&[event(9, "1.50"), event(8, "2")], r#""a""#);
        let answers = vec![first, page(&[], r#""b""#), page(&[event(3, "3")], r#""c""#)];
        let fake = Fake::start(answers).await;
        let Action::List(args) = args("rollbook events list app.> --limit 3 --from 9 --since 1h").action else {
            panic!("not a list")
        };
        let client = Client::web(&fake.global()).unwrap();
        let items = list(&client, &args).await.unwrap();
        let asked = "GET /api/namespaces/app/events?subject=app.%3E&order=desc&limit";
        let calls = [
            format!("{asked}=3&from=9&since=1h"),
            format!("{asked}=1&from=9&since=1h&cursor=a"),
            format!("{asked}=1&from=9&since=1h&cursor=b"),
        ];
        assert_eq!(fake.calls(), calls);
        let json = Global { output: Output::Json, ..fake.global() };
        let whole = format!("[{},{},{}]", event(9, "1.50"), event(8, "2"), event(3, "3"));
        assert_eq!(shown(&json, &items).unwrap(), whole, "byte for byte");
    }

    #[tokio::test]
    async fn one_event_is_asked_for_by_its_id() {
        let fake = Fake::start(vec![answer("200 OK", "", &event(7, "1"))]).await;
        run(&fake.global(), args("rollbook events show app a/b")).await.unwrap();
        assert_eq!(fake.calls(), ["GET /api/namespaces/app/events/a%2Fb"]);
    }

    #[test]
    fn a_table_cuts_long_payloads_and_obeys_nobody() {
        let long = event(1, &format!("\"{}\"", "x".repeat(100)));
        let items = [long, event(2, "\"\u{9b}2J\"")].map(|json| RawValue::from_string(json).unwrap());
        let text = shown(&Global::default(), &items).unwrap();
        let row = text.lines().nth(1).unwrap();
        assert!(row.trim_start().starts_with("1 ") && row.ends_with('…') && !row.contains(&"x".repeat(60)), "{row}");
        assert!(text.contains("\u{fffd}2J"), "{text}");
    }
}
