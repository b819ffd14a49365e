//! `rollbook subscribe`: prints events as they come, over any number of connections.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::ack::acknowledge;
use crate::app::cli::shared::event::{Event, one_line};
use crate::app::cli::shared::follow::{Follower, Next, ReconnectPolicy};
use crate::app::cli::shared::global::Global;
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::{Closed, Out, note, unread};
use crate::base::duration;
use crate::bus::delivery::policy::{IN_FLIGHT_DEFAULT, IN_FLIGHT_MAX};

const EXAMPLES: &str = "\
Examples:
  rollbook subscribe 'app.>'
  rollbook subscribe 'app.orders.*' --start oldest --count 10 --payload-only
  rollbook subscribe 'app.>' --consumer billing --ack
  rollbook subscribe 'app.>' --group workers --ack --redelivery 30s

Prints one event per line as JSON. When the connection ends it comes back and goes on behind the last event. A \
consumer or a group has its place in the log on the cluster: --start counts only when it is new. With --ack an \
event counts as done once it is printed; one that is not done is delivered again.";

/// Arguments of `subscribe`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct SubscribeArgs {
    /// Subject, with * for one part and > or ** for the rest
    pattern: String,
    /// Where to begin: oldest, newest, behind an event id, at a time of RFC 3339, or with the newest event of each
    /// subject (last_per_subject)
    #[arg(long, value_name = "oldest|newest|ID|TIME", default_value = "newest")]
    start: String,
    /// Begin so long ago, in place of --start
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, conflicts_with = "start")]
    since: Option<Duration>,
    /// Only events with this header; again for more
    #[arg(long = "header", value_name = "NAME:VALUE")]
    headers: Vec<String>,
    /// Of the events of a key, get the next one when the one before is done: subject, header:NAME or a JSON pointer
    #[arg(long, value_name = "KEY")]
    order_by: Option<String>,
    /// Share the events with the other members of this group
    #[arg(long, value_name = "NAME")]
    group: Option<String>,
    /// Be the durable consumer of this name
    #[arg(long, value_name = "NAME")]
    consumer: Option<String>,
    /// Acknowledge each event: printed (auto), by `rollbook ack` (manual), or never asked (none)
    #[arg(
        long,
        value_enum,
        value_name = "auto|manual|none",
        hide_possible_values = true,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "auto",
        default_value = "none"
    )]
    ack: Ack,
    /// Time after which an event without acknowledgment comes again, at least 100ms [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse)]
    redelivery: Option<Duration>,
    /// Waits of the first and further deliveries in place of --redelivery, as 1s,10s,1m
    #[arg(long, value_name = "DURATION,...")]
    backoff: Option<String>,
    /// Deliveries of an event before it becomes a dead letter; 0 = no limit [default: 3]
    #[arg(long, value_name = "N")]
    redelivery_count: Option<u32>,
    /// Most events without acknowledgement at a time [default: 256; with --count or --ack=manual 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(IN_FLIGHT_MAX)))]
    max_in_flight: Option<u32>,
    /// Store dead letters under this subject rather than _dead_ and that of the event
    #[arg(long, value_name = "SUBJECT")]
    dead_letter: Option<String>,
    /// Stop after this many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Print only the payload (null if there is none)
    #[arg(long)]
    payload_only: bool,
    /// Connect again when nothing came for this long; longer than the node's keep-alive
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "90s")]
    silence: Duration,
}

/// Who acknowledges.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ack {
    /// This command, once the event is printed
    Auto,
    /// `rollbook ack`, or another client
    Manual,
    /// Nobody
    None,
}

/// Most attempts to acknowledge an event. After them, the node delivers the event again.
const ACK_ATTEMPTS: u32 = 3;
const ACK_PAUSE: Duration = Duration::from_millis(200);
/// Most events of one acknowledgement.
const BATCH_MAX: usize = 256;

pub(in crate::app::cli) async fn run(global: &Global, args: SubscribeArgs) -> anyhow::Result<()> {
    let (client, mut out) = (Client::log(global)?, Out::stdout());
    tokio::select! {
        ended = follow(&client, &args, &mut out) => ended,
        () = unread() => Err(Closed.into()),
    }
}

async fn follow(client: &Client, args: &SubscribeArgs, out: &mut Out) -> anyhow::Result<()> {
    let policy = ReconnectPolicy { silence_max: args.silence, attempts_max: None };
    let mut follower = Follower::new(client, query(args), policy);
    let mut shown_consumer = String::new();
    let (mut printed, mut unsaid) = (0_u64, Vec::new());
    while args.count.is_none_or(|count| printed < count) {
        if !follower.has_ready() {
            out.flush()?;
        }
        // The follower waits forever, so without a limit the item `Quiet` never comes.
        let Next::Event(event) = follower.next(None).await? else { continue };
        if args.ack == Ack::Manual && shown_consumer != follower.consumer_id() {
            follower.consumer_id().clone_into(&mut shown_consumer);
            note(&format!("consumer {shown_consumer}"));
        }
        print(args, &event.data, out)?;
        printed = printed.saturating_add(1);
        if args.ack == Ack::Auto {
            unsaid.extend(event.id);
            let full = unsaid.len() >= BATCH_MAX || args.count == Some(printed);
            if full || !follower.has_ready() {
                out.flush()?;
                acknowledge_or_leave(client, follower.consumer_id(), &std::mem::take(&mut unsaid)).await;
            }
        }
    }
    out.flush()
}

impl SubscribeArgs {
    /// With a count the command leaves when it has printed so many: what it had beyond would count as delivered.
    fn in_flight(&self) -> u32 {
        let one = self.count.is_some() || self.ack == Ack::Manual;
        self.max_in_flight.unwrap_or(if one { 1 } else { IN_FLIGHT_DEFAULT })
    }
}

fn query(args: &SubscribeArgs) -> Vec<(&'static str, String)> {
    let start = args.since.map_or_else(|| ("start", args.start.clone()), |ago| ("since", duration::format(ago)));
    let mut query = vec![("subject", args.pattern.clone()), start];
    query.extend(args.headers.iter().map(|header| ("header", header.clone())));
    let mut add = |name, value: Option<String>| query.extend(value.map(|value| (name, value)));
    add("order_by", args.order_by.clone());
    add("consumer", args.consumer.clone());
    add("group", args.group.clone());
    add("ack", (args.ack != Ack::None).then(|| "manual".to_owned()));
    add("redelivery", args.redelivery.map(duration::format));
    add("backoff", args.backoff.clone());
    add("redelivery_count", args.redelivery_count.map(|count| count.to_string()));
    add("dead_letter", args.dead_letter.clone());
    let in_flight = (args.ack != Ack::None).then(|| args.in_flight()).filter(|most| *most > 1);
    add("max_in_flight", in_flight.map(|most| most.to_string()));
    query
}

fn print(args: &SubscribeArgs, data: &str, out: &mut Out) -> anyhow::Result<()> {
    if !args.payload_only {
        return out.line(&one_line(data));
    }
    let event = Event::parse(data)?;
    out.line(&one_line(event.payload.map_or("null", serde_json::value::RawValue::get)))
}

/// A lost acknowledgement costs a second delivery, and does not end the stream.
async fn acknowledge_or_leave(client: &Client, consumer_id: &str, event_ids: &[String]) {
    if event_ids.is_empty() {
        return;
    }
    for attempt in 1..=ACK_ATTEMPTS {
        match acknowledge(client, consumer_id, event_ids, &[]).await {
            // The acknowledgement may have crossed the next delivery, and then ends none.
            Ok(_) => return,
            Err(error) if error.is_transient() && attempt < ACK_ATTEMPTS => tokio::time::sleep(ACK_PAUSE).await,
            Err(error) => {
                let ids = event_ids.join(", ");
                return note(&format!("rollbook: not acknowledged, and delivered again: {ids}: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{self, Fake, answer, captured, frame};
    use clap::Parser;

    fn args(line: &str) -> SubscribeArgs {
        let words = ["rollbook", "subscribe"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Client(ClientCommand::Subscribe(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn options_become_the_query() {
        let query = |line| {
            query(&args(line)).iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
        };
        assert_eq!(query("app.>"), "subject=app.>&start=newest");
        assert_eq!(query("app.> --ack"), "subject=app.>&start=newest&ack=manual&max_in_flight=256");
        assert_eq!(query("app.> --ack=manual"), "subject=app.>&start=newest&ack=manual");
        assert_eq!(
            query("app.> --ack --count 3 --max-in-flight 2 --dead-letter app.failed"),
            "subject=app.>&start=newest&ack=manual&dead_letter=app.failed&max_in_flight=2"
        );
        assert_eq!(
            query(
                "--ack app.> --start e_1 --group g --consumer c --redelivery 1m30s --redelivery-count 0 --backoff 1s,1m"
            ),
            "subject=app.>&start=e_1&consumer=c&group=g&ack=manual&redelivery=1m30s&backoff=1s,1m&redelivery_count=0\
             &max_in_flight=256"
        );
        assert_eq!(
            query("app.> --since 10m --header a:b --header c:d --order-by /id"),
            "subject=app.>&since=10m&header=a:b&header=c:d&order_by=/id"
        );
        assert_eq!(
            (args("a.b --ack=manual").ack, args("a.b --ack").ack, args("a.b").ack),
            (Ack::Manual, Ack::Auto, Ack::None)
        );
    }

    #[tokio::test]
    async fn prints_acknowledges_reconnects_and_stops_at_the_count() {
        let fake = Fake::start(vec![
            testing::stream("c_a", &format!("retry: 1\n\n{}", frame(1, "{\"n\":1}"))),
            answer("202 Accepted", "", ""),
            testing::stream("c_b", &frame(2, "[1,\ndata: 2]")),
            answer("202 Accepted", "", ""),
        ])
        .await;
        let (mut out, text) = captured();
        let client = Client::log(&fake.global()).unwrap();
        follow(&client, &args("app.> --ack --count 2 --payload-only"), &mut out).await.unwrap();
        assert_eq!(text(), "{\"n\":1}\n[1, 2]\n");
        let stream = "GET /?subject=app.%3E&start=newest&ack=manual";
        let acks = ["PUT /?consumer_id=c_a&event_id=e_1", "PUT /?consumer_id=c_b&event_id=e_2"];
        assert_eq!(fake.calls(), [stream, acks[0], stream, acks[1]]);
    }

    #[tokio::test]
    async fn what_came_together_is_acknowledged_together() {
        let fake = Fake::start(vec![
            testing::stream("c_a", &format!("{}{}{}", frame(1, "1"), frame(2, "2"), frame(3, "3"))),
            answer("202 Accepted", "", "{\"count\":3,\"not_in_flight\":[]}"),
        ])
        .await;
        let (mut out, text) = captured();
        let client = Client::log(&fake.global()).unwrap();
        follow(&client, &args("app.> --ack --count 3 --max-in-flight 9 --payload-only"), &mut out).await.unwrap();
        assert_eq!(text(), "1\n2\n3\n");
        assert_eq!(fake.calls()[1..], ["PUT /?consumer_id=c_a"]);
    }

    #[tokio::test]
    async fn prints_whole_events_one_a_line() {
        let body = format!("{}{}", frame(1, "{\"a\":\ndata: 1}"), frame(2, "null"));
        let fake = Fake::start(vec![testing::stream("c_a", &body)]).await;
        let (mut out, text) = captured();
        let client = Client::log(&fake.global()).unwrap();
        follow(&client, &args("app.> --count 2"), &mut out).await.unwrap();
        let lines: Vec<serde_json::Value> = text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[0]["payload"]["a"], &lines[1]["index"]), (2, &1.into(), &2.into()));
    }
}
