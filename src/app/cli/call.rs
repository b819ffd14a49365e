//! `rollbook call`: asks a service for something and prints its answer.

use std::time::Duration;

use clap::Args;

use super::error::Usage;
use super::global::Global;
use super::http::Client;
use super::output::print;
use super::payload;
use crate::bus::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook call users:get '{\"id\":7}'
  rollbook call report:make --timeout 2m
  cat order.json | rollbook call billing:charge -

Reaches a service of any door: capability or id, and action or method. Prints what it answers, as JSON; an error of \
the service is printed with what it says.";

/// Arguments of `call`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CallArgs {
    /// What is asked: SERVICE:METHOD
    #[arg(value_name = "SERVICE:METHOD")]
    destination: String,
    /// Payload as JSON, or - for standard input
    payload: Option<String>,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

pub(super) async fn run(global: &Global, args: CallArgs) -> anyhow::Result<()> {
    let CallArgs { destination, payload, timeout } = args;
    let named = destination.split_once(':').filter(|(service, method)| !service.is_empty() && !method.is_empty());
    let (service, method) = named.ok_or_else(|| Usage(format!("{destination}: write SERVICE:METHOD")))?;
    let payload = payload::read(payload.as_deref(), None)?.map_or_else(Vec::new, |json| json.get().as_bytes().to_vec());
    let client = Client::web(global)?;
    let url = client.url(&["api", "call", service, method], &[]);
    print(client.call(url, payload, timeout).await?.trim_end())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fake, answer};
    use super::*;

    fn args(destination: &str, payload: Option<&str>) -> CallArgs {
        let timeout = Duration::from_secs(1);
        CallArgs { destination: destination.to_owned(), payload: payload.map(str::to_owned), timeout }
    }

    #[tokio::test]
    async fn asks_and_tells_what_the_service_says_when_it_fails() {
        let problem = r#"{"title":"refused","detail":"the provider refused the call","error":{"code":"E7"}}"#;
        let fake = Fake::start(vec![
            answer("200 OK", "", "{\"name\":\"x\"}"),
            answer("422 Unprocessable Entity", "", problem),
        ])
        .await;
        run(&fake.global(), args("users:get", Some("{\"id\":7}"))).await.unwrap();
        let failed = run(&fake.global(), args("users:get", None)).await.unwrap_err().to_string();
        assert_eq!(failed, "the provider refused the call: {\"code\":\"E7\"} (HTTP 422)");
        assert_eq!(fake.calls(), ["POST /api/call/users/get", "POST /api/call/users/get"]);
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_said_before_anybody_is_asked() {
        let fake = Fake::start(Vec::new()).await;
        for (destination, payload) in [("users", None), (":get", None), ("users:", None), ("a:b", Some("{"))] {
            let error = run(&fake.global(), args(destination, payload)).await.unwrap_err();
            assert!(error.is::<Usage>(), "{destination}: {error}");
        }
    }
}
