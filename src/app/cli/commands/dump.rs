//! `rollbook dump`: writes the events of a namespace as lines of JSON, from the oldest event to the newest at the
//! start of the dump.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use indicatif::ProgressBar;
use serde::Deserialize;

use super::namespaces::{self, Namespace};
use crate::app::cli::shared::event::{Event, one_line};
use crate::app::cli::shared::follow::{Follower, Next, ReconnectPolicy};
use crate::app::cli::shared::global::Global;
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::{Out, Unit, counted, note, progress};
use crate::app::config::values::RESERVED_NAMESPACES;

const EXAMPLES: &str = "\
Examples:
  rollbook dump app > app.ndjson
  rollbook dump app --out app.ndjson
  rollbook dump --all --out everything.ndjson
  rollbook dump app | zstd > app.ndjson.zst

One event per line with id, trace_id, key, subject, response_subject, created_at, headers and payload; the index is \
left out, as it belongs to the log. `rollbook restore` reads it back. --all leaves out the node's own namespaces.";

/// After a pause this long in the stream, the command asks the log whether more events can come.
const QUIET: Duration = Duration::from_secs(2);
/// A dump must end, so a node that stays away makes it fail.
const RECONNECT_POLICY: ReconnectPolicy =
    ReconnectPolicy { silence_max: Duration::from_secs(90), attempts_max: Some(8) };

/// Arguments of `dump`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DumpArgs {
    /// Namespace
    #[arg(required_unless_present = "all", conflicts_with = "all")]
    namespace: Option<String>,
    /// All namespaces, one after the other
    #[arg(long)]
    all: bool,
    /// Write to this file instead of standard output; it appears once it is complete
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(in crate::app::cli) async fn run(global: &Global, args: DumpArgs) -> anyhow::Result<()> {
    let (log, web) = (Client::log(global)?, Client::web(global)?);
    let namespaces = match &args.namespace {
        Some(name) => {
            if RESERVED_NAMESPACES.contains(&name.as_str()) {
                note(&format!("namespace {name} is written by the nodes alone: a restore will not store these events"));
            }
            vec![namespaces::get(&web, name).await?]
        }
        None => all(&web).await?,
    };
    let Some(path) = &args.out else {
        return dump(&log, &web, &namespaces, &mut Out::stdout()).await;
    };
    let part = part_of(path);
    let written = to_file(&log, &web, &namespaces, path, &part).await;
    if written.is_err() {
        // An incomplete dump is removed. A file that cannot be removed changes nothing.
        std::fs::remove_file(&part).ok();
    }
    written
}

fn part_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

async fn to_file(log: &Client, web: &Client, namespaces: &[Namespace], path: &Path, part: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write {}", path.display());
    let file = File::create(part).with_context(cannot)?;
    let disk = file.try_clone().with_context(cannot)?;
    let mut out = Out::new(Box::new(file));
    dump(log, web, namespaces, &mut out).await?;
    disk.sync_all().with_context(cannot)?;
    std::fs::rename(part, path).with_context(cannot)
}

async fn all(web: &Client) -> anyhow::Result<Vec<Namespace>> {
    let items = web.list(&["api", "namespaces"], &[]).await?;
    let namespaces: Result<Vec<Namespace>, _> = items.into_iter().map(Namespace::deserialize).collect();
    let mut namespaces = namespaces.context("the node lists its namespaces in a way this version does not know")?;
    namespaces.retain(|namespace| !RESERVED_NAMESPACES.contains(&namespace.name.as_str()));
    Ok(namespaces)
}

async fn dump(log: &Client, web: &Client, namespaces: &[Namespace], out: &mut Out) -> anyhow::Result<()> {
    let total = namespaces.iter().map(|namespace| namespace.events).sum();
    let bar = progress(Some(total), Unit::Events);
    for namespace in namespaces.iter().filter(|namespace| namespace.next_index > namespace.first_index) {
        bar.set_message(namespace.name.clone());
        let done = one(log, web, namespace, out, &bar).await;
        done.with_context(|| format!("dump of namespace {}", namespace.name))?;
    }
    out.flush()?;
    let events = bar.position();
    bar.finish_and_clear();
    let from = counted(u64::try_from(namespaces.len())?, "namespace");
    note(&format!("dumped {} of {from}", counted(events, "event")));
    Ok(())
}

async fn one(
    log: &Client,
    web: &Client,
    namespace: &Namespace,
    out: &mut Out,
    bar: &ProgressBar,
) -> anyhow::Result<()> {
    let last = i64::try_from(namespace.next_index)?.saturating_sub(1);
    let query = vec![("subject", format!("{}.**", namespace.name)), ("start", "oldest".to_owned())];
    let mut follower = Follower::new(log, query, RECONNECT_POLICY);
    loop {
        match follower.next(Some(QUIET)).await? {
            Next::Event(sent) => {
                let event = Event::parse(&sent.data).context("the node sent an event that is not JSON")?;
                let Some(index) = event.index else { bail!("the node sent an event without its index") };
                // Retention may have removed the last events meanwhile, and newer events are not part of the dump.
                if index > last {
                    return Ok(());
                }
                out.line(&one_line(&serde_json::to_string(&event)?))?;
                bar.inc(1);
                if index == last {
                    return Ok(());
                }
            }
            Next::Quiet if is_gone(web, &namespace.name, last).await? => return Ok(()),
            Next::Quiet => {}
        }
    }
}

/// Whether retention (or a deletion) has removed all events that could still come.
async fn is_gone(web: &Client, name: &str, last: i64) -> anyhow::Result<bool> {
    match namespaces::get(web, name).await {
        Ok(namespace) => Ok(i64::try_from(namespace.first_index)? > last),
        Err(error) => match error.downcast_ref::<CallError>() {
            Some(call) if call.status() == Some(404) => Ok(true),
            Some(call) if call.is_transient() => Ok(false),
            _ => Err(error),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{self, Fake, answer, captured, frame};

    fn app(first: u64, next: u64) -> String {
        let events = next - first;
        format!("{{\"name\":\"app\",\"first_index\":{first},\"next_index\":{next},\"events\":{events}}}")
    }

    fn parsed(json: &str) -> Namespace {
        serde_json::from_str(json).unwrap()
    }

    async fn dumped(answers: Vec<String>, namespaces: &[Namespace]) -> (anyhow::Result<()>, String, Vec<String>) {
        let fake = Fake::start(answers).await;
        let client = Client::log(&fake.global()).unwrap();
        let (mut out, text) = captured();
        let result = dump(&client, &client, namespaces, &mut out).await;
        (result, text(), fake.calls())
    }

    fn record(index: u64, payload: &str) -> String {
        format!(
            "{{\"id\":\"e_{index}\",\"subject\":\"app.x\",\"created_at\":\"2026-01-01T00:00:00Z\",\"payload\":{payload}}}\n"
        )
    }

    #[tokio::test]
    async fn ends_at_the_event_that_was_newest_at_the_start() {
        let body = format!("{}{}{}", frame(1, "1.50"), frame(2, "{\"a\":\ndata:  2}"), frame(3, "3"));
        let (result, text, calls) = dumped(vec![testing::stream("c_a", &body)], &[parsed(&app(1, 3))]).await;
        result.unwrap();
        assert_eq!(text, format!("{}{}", record(1, "1.50"), record(2, "{\"a\":  2}")));
        assert_eq!(calls, ["GET /?subject=app.**&start=oldest"]);
    }

    #[tokio::test]
    async fn goes_on_after_a_lost_connection_and_skips_empty_namespaces() {
        let answers = vec![
            testing::stream("c_a", &format!("retry: 1\n\n{}", frame(1, "1"))),
            testing::stream("c_b", &frame(2, "2")),
        ];
        let (result, text, calls) = dumped(answers, &[parsed(&app(5, 5)), parsed(&app(1, 3))]).await;
        result.unwrap();
        assert_eq!(text, format!("{}{}", record(1, "1"), record(2, "2")));
        assert_eq!(calls.len(), 2);
    }

    #[tokio::test]
    async fn ends_when_retention_took_the_rest() {
        let (result, text, _) = dumped(vec![testing::stream("c_a", &frame(9, "1"))], &[parsed(&app(1, 3))]).await;
        result.unwrap();
        assert_eq!(text, "");
        let fake = Fake::start(vec![answer("200 OK", "", &app(3, 3)), answer("404 Not Found", "", "gone")]).await;
        let client = Client::web(&fake.global()).unwrap();
        assert!(is_gone(&client, "app", 2).await.unwrap());
        assert!(is_gone(&client, "app", 2).await.unwrap());
    }

    #[tokio::test]
    async fn a_file_appears_only_when_it_is_complete() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("app.ndjson");
        let args = || DumpArgs { namespace: Some("app".into()), all: false, out: Some(path.clone()) };
        let fake = Fake::start(vec![answer("200 OK", "", &app(1, 2)), answer("400 Bad Request", "", "no\n")]).await;
        let error = run(&fake.global(), args()).await.unwrap_err();
        assert_eq!(format!("{error:#}"), "dump of namespace app: no (HTTP 400)");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let fake = Fake::start(vec![answer("200 OK", "", &app(1, 2)), testing::stream("c_a", &frame(1, "1"))]).await;
        run(&fake.global(), args()).await.unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), record(1, "1"));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
