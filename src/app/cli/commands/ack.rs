//! `rollbook ack`: acknowledges one event for one consumer.

use clap::Args;
use reqwest::Method;
use serde_json::json;

use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::print;

const EXAMPLES: &str = "\
Examples:
  rollbook ack c_dc0unahksdu9ruucpt80 e_dc0unahksdu9ruucpt81

The consumer id is that of a stream opened with `rollbook subscribe --ack=manual`, which prints it to standard \
error, or the X-BUS-CONSUMER-ID header of any other client's stream. When that stream does not wait for the event \
(it is unknown, not sent yet, or acknowledged before) the command says so and ends with 1.";

/// The header that says whether an acknowledgement ended a delivery.
const ACKNOWLEDGED: &str = "x-bus-acknowledged";

/// Arguments of `ack`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AckArgs {
    /// Consumer id, c_...
    consumer_id: String,
    /// Event id, e_...
    event_id: String,
}

pub(in crate::app::cli) async fn run(global: &Global, args: AckArgs) -> anyhow::Result<()> {
    let AckArgs { consumer_id, event_id } = args;
    let waited_for = acknowledge(&Client::log(global)?, &consumer_id, &event_id).await?;
    anyhow::ensure!(waited_for, "nothing was acknowledged: no stream {consumer_id} waits for {event_id}");
    print(&match global.output {
        Output::Table => format!("{event_id} is acknowledged"),
        Output::Json => json!({ "event_id": event_id, "consumer_id": consumer_id }).to_string(),
    })
}

/// Acknowledges an event. Returns whether the event was in flight. An older node does not report an event that was
/// not.
pub(in crate::app::cli) async fn acknowledge(
    client: &Client,
    consumer_id: &str,
    event_id: &str,
) -> Result<bool, CallError> {
    let url = client.url(&[], &[("consumer_id", consumer_id), ("event_id", event_id)]);
    let answer = client.send(Method::PUT, url, None).await?;
    Ok(answer.headers().get(ACKNOWLEDGED).is_none_or(|waited_for| waited_for != "false"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{self, Fake};

    #[tokio::test]
    async fn puts_both_ids() {
        let fake = Fake::start(vec![testing::answer("202 Accepted", "", "")]).await;
        let args = AckArgs { consumer_id: "c_1".into(), event_id: "e_1".into() };
        run(&fake.global(), args).await.unwrap();
        assert_eq!(fake.calls(), ["PUT /?consumer_id=c_1&event_id=e_1"]);
    }

    #[tokio::test]
    async fn an_acknowledgement_of_nothing_is_a_failure() {
        for (said, done) in [("true", true), ("false", false)] {
            let headers = format!("X-BUS-ACKNOWLEDGED: {said}\r\n");
            let fake = Fake::start(vec![testing::answer("202 Accepted", &headers, "")]).await;
            let args = AckArgs { consumer_id: "c_1".into(), event_id: "e_1".into() };
            let ran = run(&fake.global(), args).await;
            assert_eq!(
                ran.map_err(|error| error.to_string()).err(),
                (!done).then(|| "nothing was acknowledged: no stream c_1 waits for e_1".to_owned())
            );
        }
    }
}
