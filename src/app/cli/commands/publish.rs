//! `rollbook publish`: publishes one event, or one event for each line of standard input.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use reqwest::header::HeaderMap;
use rollbook_core::event::headers::HeaderList;
use serde::Serialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{Client, DELAYED_ID, EVENT_INDEX};
use crate::app::cli::shared::lines::{self, Line};
use crate::app::cli::shared::output::{Unit, counted, note, print, progress};
use crate::app::cli::shared::payload;
use crate::app::cli::shared::store;

const EXAMPLES: &str = "\
Examples:
  rollbook publish app.orders.created '{\"order\":17}'
  rollbook publish app.note '\"a string needs its quotes\"' --key note-1
  rollbook publish app.report --file report.json
  rollbook publish app.orders.created '{\"order\":18}' -H 'tenant: acme' -H 'region: eu'
  date +%s | rollbook publish app.tick
  rollbook publish app.lines --batch < lines.ndjson
  rollbook publish app.reminder '{\"order\":17}' --delay 1h
  rollbook publish app.sale '{\"percent\":20}' --at 2026-12-24T08:00:00Z

What is piped in, or redirected from a file, is the payload when no other is given; inside a loop that reads such an \
input itself, add </dev/null. Prints the id of the event and its index in the log of the namespace, -1 for an inbox, \
which keeps nothing. An event that waits has the id under which `rollbook delayed cancel` cancels it, and the time at \
which it is published. With --key or --id a publish may be repeated safely: the second stores nothing and prints id and index of the first. Its exit code is 0; with --output json it has \
`\"duplicate\": true`, else a line on standard error says so.";

/// Arguments of `publish`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PublishArgs {
    /// Subject; its first part is the namespace
    subject: String,
    /// Payload as JSON, or - for standard input [default: what is piped in, else the event has none]
    #[arg(conflicts_with_all = ["file", "batch"])]
    payload: Option<String>,
    /// Read the payload from this file
    #[arg(long, value_name = "FILE", conflicts_with = "batch")]
    file: Option<PathBuf>,
    /// Deduplication key: the same key and subject are stored once
    #[arg(long, conflicts_with = "batch")]
    key: Option<String>,
    /// Trace id to store with the event
    #[arg(long)]
    trace_id: Option<String>,
    /// Header of the event, or of each one: 'Name: value'. May be repeated, also for one name
    #[arg(long = "header", short = 'H', value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// Event id instead of one made by the node
    #[arg(long, conflicts_with = "batch")]
    id: Option<String>,
    /// Publish the event only after this time, as 10s, 500ms or 1h30m; 366 days at most
    #[arg(long, value_name = "DURATION", conflicts_with = "at")]
    delay: Option<String>,
    /// Publish the event only at this time of RFC 3339, as 2026-12-24T08:00:00Z
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    /// One payload per line of standard input, sent in arrays of up to 1000
    #[arg(long)]
    batch: bool,
}

/// The JSON of one event.
#[derive(Serialize)]
struct NewEvent<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, Vec<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a RawValue>,
}

/// Reads a header. The node checks the name and the value.
pub(super) fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header is `Name: value`")?;
    HeaderList::default().push(name, value.trim()).map_err(|error| error.to_string())?;
    Ok((name.to_owned(), value.trim().to_owned()))
}

pub(in crate::app::cli) async fn run(global: &Global, args: PublishArgs) -> anyhow::Result<()> {
    publish(global, args, payload::is_piped()).await
}

async fn publish(global: &Global, args: PublishArgs, piped: bool) -> anyhow::Result<()> {
    let client = Client::log(global)?;
    if args.batch {
        let (source, _) = lines::open(None)?;
        return batch(global, &client, &args, source).await;
    }
    let payload = payload::read(args.payload.as_deref(), args.file.as_deref(), piped)?;
    match store::one(&client, store::NEW, &event(&args, payload.as_deref())?).await {
        Ok(response) => print(&published(global.output, response.headers(), false)),
        Err(error) => {
            let Some(headers) = error.stored().or_else(|| error.waiting()) else { return Err(error.into()) };
            if global.output == Output::Table {
                note(&format!("stored before, nothing was added: {error}"));
            }
            print(&published(global.output, headers, true))
        }
    }
}

/// The line about a stored event.
fn published(output: Output, headers: &HeaderMap, duplicate: bool) -> String {
    let header = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let (Some(id), Some(until)) = (header(DELAYED_ID), header("X-BUS-DELAYED-UNTIL")) {
        return match output {
            Output::Table => format!("{id} {until}"),
            Output::Json => json!({ "delayed_id": id, "delayed_until": until, "duplicate": duplicate }).to_string(),
        };
    }
    let (id, index) = (header("X-BUS-EVENT-ID").unwrap_or_default(), header(EVENT_INDEX).unwrap_or_default());
    match output {
        Output::Table => format!("{id} {index}"),
        Output::Json => {
            let created_at = header("X-BUS-EVENT-CREATED-AT");
            let index = index.parse::<i64>().ok();
            json!({ "id": id, "index": index, "created_at": created_at, "duplicate": duplicate }).to_string()
        }
    }
}

fn event(args: &PublishArgs, payload: Option<&RawValue>) -> anyhow::Result<String> {
    let mut headers = BTreeMap::<&str, Vec<&str>>::new();
    for (name, value) in &args.headers {
        headers.entry(name).or_default().push(value);
    }
    let event = NewEvent {
        id: args.id.as_deref(),
        trace_id: args.trace_id.as_deref(),
        key: args.key.as_deref(),
        subject: &args.subject,
        delay: args.delay.as_deref(),
        at: args.at.as_deref(),
        headers,
        payload,
    };
    Ok(serde_json::to_string(&event)?)
}

/// Publishes the lines that have arrived, and does not wait until a batch is full.
async fn batch(
    global: &Global,
    client: &Client,
    args: &PublishArgs,
    source: impl Read + Send + 'static,
) -> anyhow::Result<()> {
    let mut lines = lines::read(source);
    let bar = progress(None, Unit::Events);
    let mut published: u64 = 0;
    let mut taken = Vec::new();
    while lines.recv_many(&mut taken, store::BATCH_EVENTS).await > 0 {
        let mut events = Vec::with_capacity(taken.len());
        let mut bad = None;
        for line in taken.drain(..) {
            match line.and_then(|line| batch_event(args, &line)) {
                Ok(event) => events.push(event),
                Err(error) => {
                    bad = Some(error);
                    break;
                }
            }
        }
        for events in by_size(&events) {
            let sent = store::arrays(client, store::NEW, events).await;
            let stored = sent.as_ref().map_or_else(|(stored, _)| *stored, |()| events.len());
            published = published.saturating_add(u64::try_from(stored)?);
            bar.set_position(published);
            sent.map_err(|(_, error)| error).with_context(|| stopped(published))?;
        }
        if let Some(error) = bad {
            return Err(error.context(stopped(published)));
        }
    }
    bar.finish_and_clear();
    print(&match global.output {
        Output::Table => format!("published {}", counted(published, "event")),
        Output::Json => json!({ "published": published }).to_string(),
    })
}

fn stopped(published: u64) -> String {
    format!("stopped with {} stored", counted(published, "event"))
}

fn batch_event(args: &PublishArgs, line: &Line) -> anyhow::Result<String> {
    event(args, Some(payload::json(&line.text, &format!("line {}", line.number), "")?))
}

/// Splits the events into runs of bounded size.
fn by_size(mut events: &[String]) -> Vec<&[String]> {
    let mut runs = Vec::new();
    while !events.is_empty() {
        let mut bytes: usize = 0;
        let fits = |event: &&String| {
            bytes = bytes.saturating_add(event.len());
            bytes <= store::BATCH_BYTES
        };
        let count = events.iter().take_while(fits).count().max(1);
        let (run, rest) = events.split_at_checked(count).unwrap_or((events, &[]));
        runs.push(run);
        events = rest;
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::error::Usage;
    use crate::app::cli::shared::testing::{Fake, answer};

    fn args(subject: &str) -> PublishArgs {
        let subject = subject.to_owned();
        PublishArgs {
            subject,
            payload: None,
            file: None,
            key: None,
            trace_id: None,
            headers: vec![],
            id: None,
            delay: None,
            at: None,
            batch: false,
        }
    }

    const STORED: &str =
        "X-BUS-EVENT-ID: e_1\r\nX-BUS-EVENT-INDEX: 42\r\nX-BUS-EVENT-CREATED-AT: 2026-01-01T00:00:00Z\r\n";

    #[tokio::test]
    async fn sends_the_fields_given_and_the_payload_untouched() {
        let fake = Fake::start(vec![answer("202 Accepted", STORED, ""); 2]).await;
        let payload = Some("{\"n\": 1.50,\n \"s\":\"\\u00e4\"}".to_owned());
        let given = PublishArgs {
            payload,
            key: Some("k\"1".into()),
            trace_id: Some("t".into()),
            id: Some("e_1".into()),
            ..args("app.x")
        };
        publish(&fake.global(), given, false).await.unwrap();
        publish(&fake.global(), args("app.y"), false).await.unwrap();
        let first = "{\"id\":\"e_1\",\"trace_id\":\"t\",\"key\":\"k\\\"1\",\"subject\":\"app.x\",\"payload\":{\"n\": 1.50,\n \"s\":\"\\u00e4\"}}";
        assert_eq!(fake.bodies(), [first, "{\"subject\":\"app.y\"}"]);
        assert_eq!(fake.calls(), ["POST /", "POST /"]);
    }

    #[tokio::test]
    async fn headers_are_read_from_arguments_and_sent_with_each_event() {
        let fake = Fake::start(vec![answer("202 Accepted", STORED, "")]).await;
        let headers = ["tenant:  acme ", "x: a:b", "tenant: second", "empty:"].map(|text| header(text).unwrap());
        let given = PublishArgs { headers: headers.to_vec(), ..args("app.x") };
        publish(&fake.global(), given, false).await.unwrap();
        let wanted = r#"{"subject":"app.x","headers":{"empty":[""],"tenant":["acme","second"],"x":["a:b"]}}"#;
        assert_eq!(fake.bodies(), [wanted]);
        assert_eq!(header("tenant").unwrap_err(), "a header is `Name: value`");
        assert!(header("a b: x").unwrap_err().starts_with("the name of a header is"));
        assert!(header("a: x\ny").unwrap_err().contains("line break"));
    }

    #[tokio::test]
    async fn an_event_that_waits_says_how_long_and_has_the_id_to_cancel_it() {
        let waits = "X-BUS-DELAYED-ID: d_1_2_3\r\nX-BUS-DELAYED-UNTIL: 2026-01-01T00:00:00Z\r\n";
        let fake = Fake::start(vec![answer("202 Accepted", waits, ""); 2]).await;
        publish(&fake.global(), PublishArgs { delay: Some("10s".into()), ..args("app.x") }, false).await.unwrap();
        let at = PublishArgs { at: Some("2026-01-01T00:00:00Z".into()), ..args("app.x") };
        publish(&fake.global(), at, false).await.unwrap();
        let wanted = [r#"{"subject":"app.x","delay":"10s"}"#, r#"{"subject":"app.x","at":"2026-01-01T00:00:00Z"}"#];
        assert_eq!(fake.bodies(), wanted);
        let headers: HeaderMap = [("x-bus-delayed-id", "d_1_2_3"), ("x-bus-delayed-until", "T")]
            .into_iter()
            .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
            .collect();
        assert_eq!(published(Output::Table, &headers, false), "d_1_2_3 T");
        let json = published(Output::Json, &headers, true);
        assert_eq!(json, r#"{"delayed_id":"d_1_2_3","delayed_until":"T","duplicate":true}"#);
    }

    #[tokio::test]
    async fn a_repetition_that_the_node_knows_is_a_success() {
        let refused = |headers| answer("409 Conflict", headers, "key was processed before\n");
        let fake = Fake::start(vec![refused(STORED), refused("")]).await;
        let keyed = || PublishArgs { key: Some("k".into()), ..args("app.x") };
        publish(&fake.global(), keyed(), false).await.unwrap();
        let error = publish(&fake.global(), keyed(), false).await.unwrap_err();
        assert_eq!(error.to_string(), "key was processed before (HTTP 409)", "it does not say where the first is");
    }

    #[tokio::test]
    async fn a_payload_that_is_not_json_is_bad_usage_and_not_sent() {
        let fake = Fake::start(vec![]).await;
        let error = publish(&fake.global(), PublishArgs { payload: Some("hello".into()), ..args("app.x") }, false)
            .await
            .unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("a string needs double quotes"), "{error}");
    }

    #[tokio::test]
    async fn a_batch_goes_out_as_arrays() {
        // The lines may arrive in more than one go.
        let fake = Fake::start(vec![answer("202 Accepted", "", ""); 4]).await;
        let client = Client::log(&fake.global()).unwrap();
        let source = std::io::Cursor::new("{\"a\":1}\n\n[2]\n\"x\"\n");
        batch(&fake.global(), &client, &args("app.x"), source).await.unwrap();
        let sent = fake.bodies().concat().replace("][", ",");
        assert_eq!(
            sent,
            r#"[{"subject":"app.x","payload":{"a":1}},{"subject":"app.x","payload":[2]},{"subject":"app.x","payload":"x"}]"#
        );
    }

    #[tokio::test]
    async fn a_bad_line_is_named_after_the_good_ones_are_sent() {
        // The lines may arrive in more than one go.
        let fake = Fake::start(vec![answer("202 Accepted", "", ""); 4]).await;
        let client = Client::log(&fake.global()).unwrap();
        let source = std::io::Cursor::new("1\n2\nnope\n4\n");
        let error = batch(&fake.global(), &client, &args("app.x"), source).await.unwrap_err();
        let text = format!("{error:#}");
        assert!(text.starts_with("stopped with 2 events stored: line 3 is not JSON"), "{text}");
    }

    #[test]
    fn runs_are_bounded_by_bytes() {
        let event = "x".repeat(store::BATCH_BYTES / 2);
        let events = [event.clone(), event.clone(), event, "y".repeat(store::BATCH_BYTES * 2), "z".into()];
        let sizes: Vec<usize> = by_size(&events).iter().map(|run| run.len()).collect();
        assert_eq!(sizes, [2, 1, 1, 1]);
    }
}
