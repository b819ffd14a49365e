//! `rollbook ack`: acknowledges one event for one consumer.

use clap::Args;
use reqwest::Method;
use serde_json::json;

use super::global::{Global, Output};
use super::http::{CallError, Client};
use super::output::print;

const EXAMPLES: &str = "\
Examples:
  rollbook ack c_dc0unahksdu9ruucpt80 e_dc0unahksdu9ruucpt81

The consumer id is that of a stream opened with `rollbook subscribe --ack=manual`, which prints it to standard \
error, or the X-BUS-CONSUMER-ID header of any other client's stream. The node does \
not say whether the event was waiting: it takes the acknowledgment of one that is unknown, or done, as well.";

/// Arguments of `ack`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AckArgs {
    /// Consumer id, c_...
    consumer_id: String,
    /// Event id, e_...
    event_id: String,
}

pub(super) async fn run(global: &Global, args: AckArgs) -> anyhow::Result<()> {
    let AckArgs { consumer_id, event_id } = args;
    acknowledge(&Client::log(global)?, &consumer_id, &event_id).await?;
    print(&match global.output {
        Output::Table => format!("acknowledgment of {event_id} for {consumer_id} was taken"),
        Output::Json => json!({ "event_id": event_id, "consumer_id": consumer_id }).to_string(),
    })
}

/// Tells the node that the consumer is done with the event.
pub(super) async fn acknowledge(client: &Client, consumer_id: &str, event_id: &str) -> Result<(), CallError> {
    let url = client.url(&[], &[("consumer_id", consumer_id), ("event_id", event_id)]);
    client.send(Method::PUT, url, None).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{self, Fake};
    use super::*;

    #[tokio::test]
    async fn puts_both_ids() {
        let fake = Fake::start(vec![testing::answer("202 Accepted", "", "")]).await;
        let args = AckArgs { consumer_id: "c_1".into(), event_id: "e_1".into() };
        run(&fake.global(), args).await.unwrap();
        assert_eq!(fake.calls(), ["PUT /?consumer_id=c_1&event_id=e_1"]);
    }
}
