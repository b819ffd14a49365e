//! `rollbook restore`: publishes the lines of a dump with their ids and times, and leaves out events that are stored
//! already.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::app::cli::shared::event::Event;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::lines::{self, Line};
use crate::app::cli::shared::output::{Unit, counted, print, progress};
use crate::app::cli::shared::store;

const EXAMPLES: &str = "\
Examples:
  rollbook restore --in app.ndjson
  rollbook restore < app.ndjson
  zstd -dc app.ndjson.zst | rollbook restore

Events keep id and created_at and come into the log in the order of the lines. Those that are there already are \
left out, so a restore that was interrupted is simply started again.";

/// Longest time without an answer of the node. After this time the restore stops.
const AWAY_MAX: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(500);

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RestoreArgs {
    /// Read this file instead of standard input
    #[arg(long = "in", value_name = "FILE")]
    input: Option<PathBuf>,
}

/// One line of the dump.
struct Item {
    json: String,
    line: u64,
    namespace: String,
    /// Whether the event has a response subject. The node takes such an event only alone.
    single: bool,
}

impl AsRef<str> for Item {
    fn as_ref(&self) -> &str {
        &self.json
    }
}

/// The counts of the events so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct RestoreCounts {
    stored: u64,
    present: u64,
}

pub(in crate::app::cli) async fn run(global: &Global, args: RestoreArgs) -> anyhow::Result<()> {
    let client = Client::log(global)?;
    let (source, size) = lines::open(args.input.as_deref())?;
    let bar = progress(size, Unit::Bytes);
    let mut restore = Restore { client: &client, counts: RestoreCounts::default() };
    let done = restore.all(lines::read(source), |bytes| bar.inc(bytes)).await;
    bar.finish_and_clear();
    let RestoreCounts { stored, present } = restore.counts;
    let restored = counted(stored, "event");
    done.with_context(|| {
        format!("stopped with {restored} restored and {present} already there; start it again to go on")
    })?;
    print(&match global.output {
        Output::Table => format!("restored {restored}, {present} already there"),
        Output::Json => json!({ "restored": stored, "present": present }).to_string(),
    })
}

struct Restore<'a> {
    client: &'a Client,
    counts: RestoreCounts,
}

impl Restore<'_> {
    /// Stores all lines, in runs of one namespace.
    async fn all(
        &mut self,
        mut lines: tokio::sync::mpsc::Receiver<anyhow::Result<Line>>,
        read: impl Fn(u64),
    ) -> anyhow::Result<()> {
        let mut run: Vec<Item> = Vec::new();
        let mut bytes: usize = 0;
        while let Some(line) = lines.recv().await {
            let line = line?;
            read(line.bytes);
            let item = item(line)?;
            let full = run.len() >= store::BATCH_EVENTS || bytes.saturating_add(item.json.len()) > store::BATCH_BYTES;
            let fits = |last: &Item| last.namespace == item.namespace && !last.single && !item.single && !full;
            if !run.last().is_none_or(fits) {
                self.run(&std::mem::take(&mut run)).await?;
                bytes = 0;
            }
            bytes = bytes.saturating_add(item.json.len());
            run.push(item);
        }
        self.run(&run).await
    }

    /// Stores a run as one array, or one by one when the node has some of the events already.
    async fn run(&mut self, items: &[Item]) -> anyhow::Result<()> {
        match items {
            [] => Ok(()),
            [item] => self.one(item).await.map(|_| ()),
            items => match self.array(items).await? {
                true => Ok(()),
                false => self.each(items).await,
            },
        }
    }

    /// Publishes a run as one array. Returns `false` when the node has one of the events already, and so stored none.
    async fn array(&mut self, items: &[Item]) -> anyhow::Result<bool> {
        let mut waiting = items;
        let deadline = Instant::now().checked_add(AWAY_MAX);
        loop {
            let Err((stored, error)) = store::arrays(self.client, store::COPIES, waiting).await else {
                return self.count_stored(waiting.len()).map(|()| true);
            };
            self.count_stored(stored)?;
            waiting = waiting.get(stored..).unwrap_or_default();
            if error.status() == Some(409) {
                // Parts of a split array may be stored. The remaining events are published one by one.
                return if stored == 0 { Ok(false) } else { Box::pin(self.each(waiting)).await.map(|()| true) };
            }
            pause(error, deadline).await.with_context(|| at_line(waiting))?;
        }
    }

    /// Publishes events one by one. After events that are stored already, usually only new ones follow, and these go
    /// as an array.
    async fn each(&mut self, items: &[Item]) -> anyhow::Result<()> {
        let mut rest = items;
        let mut tried = false;
        while let Some((item, after)) = rest.split_first() {
            let stored = self.one(item).await?;
            rest = after;
            if stored && !tried && rest.len() > 1 {
                tried = true;
                if Box::pin(self.array(rest)).await? {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Publishes one event. Returns `false` when the node has the event already.
    async fn one(&mut self, item: &Item) -> anyhow::Result<bool> {
        let deadline = Instant::now().checked_add(AWAY_MAX);
        loop {
            match store::one(self.client, store::COPIES, &item.json).await {
                Ok(_) => return self.count_stored(1).map(|()| true),
                Err(error) if error.status() == Some(409) => {
                    self.counts.present = self.counts.present.saturating_add(1);
                    return Ok(false);
                }
                // The id makes a repetition safe: the node finds the event, at worst.
                Err(error) => pause(error, deadline).await.with_context(|| at_line(std::slice::from_ref(item)))?,
            }
        }
    }

    fn count_stored(&mut self, count: usize) -> anyhow::Result<()> {
        self.counts.stored = self.counts.stored.saturating_add(u64::try_from(count)?);
        Ok(())
    }
}

/// Waits before the next attempt, or fails when there is none.
async fn pause(error: CallError, deadline: Option<Instant>) -> Result<(), CallError> {
    let wait = error.retry_after().unwrap_or(PAUSE);
    if !error.is_transient() || Instant::now().checked_add(wait) >= deadline {
        return Err(error);
    }
    sleep(wait).await;
    Ok(())
}

fn at_line(items: &[Item]) -> String {
    match items {
        [] => "at the end".to_owned(),
        [item] => format!("line {}", item.line),
        [first, .., last] => format!("lines {} to {}", first.line, last.line),
    }
}

fn item(line: Line) -> anyhow::Result<Item> {
    let number = line.number;
    let event = Event::parse(&line.text).with_context(|| {
        format!("line {number} is not an event; restore takes the lines that `rollbook dump` wrote")
    })?;
    event.id.with_context(|| {
        format!("line {number} has no id, so a second restore would store it twice; use `rollbook publish --batch` for new events")
    })?;
    let (namespace, single) = (event.namespace().to_owned(), event.response_subject.is_some());
    Ok(Item { json: line.text, line: number, namespace, single })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    fn event(id: u64, subject: &str) -> String {
        format!("{{\"id\":\"e_{id}\",\"subject\":\"{subject}\"}}")
    }

    fn ok() -> String {
        answer("202 Accepted", "", "")
    }

    fn conflict() -> String {
        answer("409 Conflict", "", "event id already exists\n")
    }

    async fn restored(answers: Vec<String>, lines: &[String]) -> (anyhow::Result<()>, RestoreCounts, Vec<String>) {
        let fake = Fake::start(answers).await;
        let client = Client::log(&fake.global()).unwrap();
        let mut restore = Restore { client: &client, counts: RestoreCounts::default() };
        let source = std::io::Cursor::new(lines.join("\n"));
        let result = restore.all(lines::read(source), |_| ()).await;
        (result, restore.counts, fake.bodies())
    }

    fn counts(stored: u64, present: u64) -> RestoreCounts {
        RestoreCounts { stored, present }
    }

    #[tokio::test]
    async fn runs_of_one_namespace_in_order_and_response_subjects_alone() {
        let asks = r#"{"id":"e_3","subject":"a.x","response_subject":"_bus_.r"}"#.to_owned();
        let lines = [event(1, "a.x"), event(2, "a.y"), asks.clone(), event(4, "a.x"), event(5, "b.x")];
        let (result, counted, bodies) = restored(vec![ok(), ok(), ok(), ok()], &lines).await;
        result.unwrap();
        assert_eq!(counted, counts(5, 0));
        let first = format!("[{},{}]", lines[0], lines[1]);
        assert_eq!(bodies, [first, asks, lines[3].clone(), lines[4].clone()]);
    }

    #[tokio::test]
    async fn what_is_there_is_counted_and_the_rest_goes_as_an_array_again() {
        let lines = [event(1, "a.x"), event(2, "a.x"), event(3, "a.x"), event(4, "a.x"), event(5, "a.x")];
        let (result, counted, bodies) = restored(vec![conflict(), conflict(), conflict(), ok(), ok()], &lines).await;
        result.unwrap();
        assert_eq!(counted, counts(3, 2));
        assert_eq!(bodies[4], format!("[{},{}]", lines[3], lines[4]));
    }

    #[tokio::test]
    async fn scattered_ones_are_taken_one_by_one() {
        let lines = [event(1, "a.x"), event(2, "a.x"), event(3, "a.x"), event(4, "a.x")];
        let answers = vec![conflict(), ok(), conflict(), ok(), conflict(), ok()];
        let (result, counted, bodies) = restored(answers, &lines).await;
        result.unwrap();
        assert_eq!(counted, counts(3, 1));
        assert_eq!(
            bodies[2..],
            [format!("[{},{},{}]", lines[1], lines[2], lines[3]), lines[1].clone(), lines[2].clone(), lines[3].clone()]
        );
    }

    #[tokio::test]
    async fn a_node_that_says_not_now_is_asked_again() {
        let lines = [event(1, "a.x"), event(2, "a.x")];
        let busy = answer("503 Service Unavailable", "Retry-After: 0\r\n", "unavailable: no leader\n");
        let (result, counted, bodies) = restored(vec![busy, ok()], &lines).await;
        result.unwrap();
        assert_eq!((counted, bodies.len()), (counts(2, 0), 2));
    }

    #[tokio::test]
    async fn a_halved_array_with_known_events_counts_each_once() {
        let lines = [event(1, "a.x"), event(2, "a.x"), event(3, "a.x"), event(4, "a.x")];
        let large = answer("413 Payload Too Large", "", "request body too large\n");
        let (result, counted, bodies) = restored(vec![large, ok(), conflict(), conflict(), ok()], &lines).await;
        result.unwrap();
        assert_eq!(counted, counts(3, 1));
        assert_eq!(bodies[4], lines[3]);
    }

    #[tokio::test]
    async fn bad_lines_and_refusals_are_named() {
        let text = |result: anyhow::Result<()>| format!("{:#}", result.unwrap_err());
        let (result, _, _) = restored(vec![], &["{}".to_owned()]).await;
        assert!(text(result).starts_with("line 1 is not an event; restore takes the lines"));
        let (result, _, _) = restored(vec![], &[r#"{"subject":"a.x"}"#.to_owned()]).await;
        assert!(text(result).starts_with("line 1 has no id"));
        let refused = answer("400 Bad Request", "", "namespace roll is reserved\n");
        let (result, _, _) = restored(vec![refused], &[event(1, "roll.x"), event(2, "roll.y")]).await;
        assert_eq!(text(result), "lines 1 to 2: namespace roll is reserved (HTTP 400)");
    }
}
