//! `rollbook ack`: says for one consumer what has become of events.

use std::time::Duration;

use clap::Args;
use reqwest::Method;
use serde_json::json;

use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::print;
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook ack c_dc0unahksdu9ruucpt80 e_dc0unahksdu9ruucpt81
  rollbook ack c_dc0unahksdu9ruucpt80 e_dc0unahksdu9ruucpt81 --nack --delay 30s
  rollbook ack c_dc0unahksdu9ruucpt80 e_dc0unahksdu9ruucpt81 --reject 'no such customer'

The consumer id is that of a stream opened with `rollbook subscribe --ack=manual`, which prints it to standard \
error, or the X-BUS-CONSUMER-ID header of any other client's stream. When that stream does not wait for an event \
(it is unknown, not sent yet, or acknowledged before) the command says so and ends with 1.";

/// The header that says whether an acknowledgement ended a delivery.
const ACKNOWLEDGED: &str = "x-bus-acknowledged";

/// Arguments of `ack`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AckArgs {
    /// Consumer id, c_...
    consumer_id: String,
    /// Event ids, e_...
    #[arg(required = true)]
    event_ids: Vec<String>,
    /// They are not processed: deliver them again
    #[arg(long, group = "action")]
    nack: bool,
    /// With --nack: after this time [default: that of the back-off, or at once]
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, requires = "nack")]
    delay: Option<Duration>,
    /// They are being processed: wait as long again
    #[arg(long, group = "action")]
    in_progress: bool,
    /// They cannot be processed, for this reason: make them dead letters now
    #[arg(long, group = "action", value_name = "REASON")]
    reject: Option<String>,
    /// All events of the stream up to this one, which is the only id then
    #[arg(long)]
    up_to: bool,
}

impl AckArgs {
    /// The parameters beside the ids, and what is said of the events.
    fn action(&self) -> (Vec<(&'static str, String)>, &'static str) {
        if self.nack {
            let delay = self.delay.map(|delay| ("delay", duration::format(delay)));
            return ([("action", "nack".to_owned())].into_iter().chain(delay).collect(), "delivered again");
        }
        if self.in_progress {
            return (vec![("action", "in_progress".to_owned())], "in progress");
        }
        match &self.reject {
            Some(reason) => (vec![("action", "reject".to_owned()), ("reason", reason.clone())], "rejected"),
            None => (Vec::new(), "acknowledged"),
        }
    }
}

pub(in crate::app::cli) async fn run(global: &Global, args: AckArgs) -> anyhow::Result<()> {
    let (mut parameters, became) = args.action();
    let AckArgs { consumer_id, event_ids, up_to, .. } = args;
    if up_to {
        anyhow::ensure!(event_ids.len() == 1, "--up-to goes with one event id");
        parameters.push(("up_to", event_ids.concat()));
    }
    let ids: &[String] = if up_to { &[] } else { &event_ids };
    let waited_for = acknowledge(&Client::log(global)?, &consumer_id, ids, &parameters).await?;
    let shown = event_ids.join(", ");
    anyhow::ensure!(waited_for, "nothing was {became}: no stream {consumer_id} waits for {shown}");
    print(&match global.output {
        Output::Table if up_to => format!("all up to {shown} are {became}"),
        Output::Table if event_ids.len() > 1 => format!("{shown} are {became}"),
        Output::Table => format!("{shown} is {became}"),
        Output::Json => json!({ "event_ids": event_ids, "consumer_id": consumer_id }).to_string(),
    })
}

/// Says what has become of events, which may also be named by a parameter. Returns whether any was in flight. An older
/// node does not report an event that was not.
pub(in crate::app::cli) async fn acknowledge(
    client: &Client,
    consumer_id: &str,
    event_ids: &[String],
    parameters: &[(&str, String)],
) -> Result<bool, CallError> {
    let mut query = vec![("consumer_id", consumer_id)];
    query.extend(parameters.iter().map(|(name, value)| (*name, value.as_str())));
    let body = match event_ids {
        [] => None,
        [only] => {
            query.insert(1, ("event_id", only));
            None
        }
        many => Some(json!(many).to_string().into_bytes()),
    };
    let answer = client.send(Method::PUT, client.url(&[], &query), body).await?;
    let said = answer.headers().get(ACKNOWLEDGED);
    Ok(said.is_none_or(|waited_for| waited_for != "false" && waited_for != "0"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::args::{Cli, ClientCommand, Command};
    use crate::app::cli::shared::testing::{self, Fake};
    use clap::Parser;

    fn args(line: &str) -> AckArgs {
        let words = ["rollbook", "ack"].into_iter().chain(line.split_whitespace());
        match Cli::try_parse_from(words).unwrap().command {
            Command::Client(ClientCommand::Ack(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn puts_both_ids() {
        let fake = Fake::start(vec![testing::answer("202 Accepted", "", "")]).await;
        run(&fake.global(), args("c_1 e_1")).await.unwrap();
        assert_eq!(fake.calls(), ["PUT /?consumer_id=c_1&event_id=e_1"]);
    }

    #[tokio::test]
    async fn says_what_has_become_of_one_or_many() {
        for (line, call) in [
            ("c_1 e_1 e_2", "PUT /?consumer_id=c_1"),
            ("c_1 e_1 --up-to", "PUT /?consumer_id=c_1&up_to=e_1"),
            ("c_1 e_1 --nack --delay 30s", "PUT /?consumer_id=c_1&event_id=e_1&action=nack&delay=30s"),
            ("c_1 e_1 --in-progress", "PUT /?consumer_id=c_1&event_id=e_1&action=in_progress"),
            ("c_1 e_1 --reject no", "PUT /?consumer_id=c_1&event_id=e_1&action=reject&reason=no"),
        ] {
            let fake = Fake::start(vec![testing::answer("202 Accepted", "X-BUS-ACKNOWLEDGED: 1\r\n", "")]).await;
            run(&fake.global(), args(line)).await.unwrap();
            assert_eq!(fake.calls(), [call], "{line}");
        }
    }

    #[tokio::test]
    async fn an_acknowledgement_of_nothing_is_a_failure() {
        for (said, done) in [("true", true), ("false", false)] {
            let headers = format!("X-BUS-ACKNOWLEDGED: {said}\r\n");
            let fake = Fake::start(vec![testing::answer("202 Accepted", &headers, "")]).await;
            let ran = run(&fake.global(), args("c_1 e_1")).await;
            assert_eq!(
                ran.map_err(|error| error.to_string()).err(),
                (!done).then(|| "nothing was acknowledged: no stream c_1 waits for e_1".to_owned())
            );
        }
    }
}
