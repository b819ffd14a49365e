//! `rollbook call`: calls a method of a service and prints the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::Args;
use serde::Deserialize;

use crate::app::cli::shared::error::Usage;
use crate::app::cli::shared::global::Global;
use crate::app::cli::shared::http::{Client, NO_PROVIDER};
use crate::app::cli::shared::output::print;
use crate::app::cli::shared::payload;
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook call users:get '{\"id\":7}'
  rollbook call report:make --timeout 2m
  cat order.json | rollbook call billing:charge

Reaches a service of any door: capability or id, and action or method. Prints what it answers, as JSON; an error of \
the service is printed with what it says. Without a payload, which may be piped in too, the service gets {}.";

/// Arguments of `call`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CallArgs {
    /// What is asked: SERVICE:METHOD
    #[arg(value_name = "SERVICE:METHOD")]
    destination: String,
    /// Payload as JSON, or - for standard input [default: what is piped in, else {}]
    payload: Option<String>,
    /// How long the answer may take
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = duration::parse)]
    timeout: Duration,
}

/// The payload of a call without one. A service that expects an object then reports a missing field.
const NOTHING: &str = "{}";
/// Most names in a list behind an error.
const NAMES_MAX: usize = 20;

pub(in crate::app::cli) async fn run(global: &Global, args: CallArgs) -> anyhow::Result<()> {
    call(global, args, payload::is_piped()).await
}

async fn call(global: &Global, args: CallArgs, piped: bool) -> anyhow::Result<()> {
    let CallArgs { destination, payload, timeout } = args;
    let named = destination.split_once(':').filter(|(service, method)| !service.is_empty() && !method.is_empty());
    let (service, method) = named.ok_or_else(|| Usage(format!("{destination}: write SERVICE:METHOD")))?;
    let payload = payload::read(payload.as_deref(), None, piped)?;
    let payload = payload.as_ref().map_or(NOTHING, |json| json.get()).as_bytes().to_vec();
    let client = Client::web(global)?;
    let url = client.url(&["api", "call", service, method], &[]);
    match client.call(url, payload, timeout).await {
        Ok(answer) => print(answer.trim_end()),
        Err(error) if matches!(error.code(), Some(NO_PROVIDER | "service_not_found")) => {
            let there = offered_methods(&client, service).await.unwrap_or_default();
            Err(anyhow::anyhow!("{error}{there}"))
        }
        Err(error) => Err(error.into()),
    }
}

/// A service, as REST lists it.
#[derive(Deserialize)]
struct Service {
    #[serde(default)]
    capabilities: Vec<Capability>,
}

/// A capability of a service.
#[derive(Deserialize)]
struct Capability {
    name: String,
    /// The actions; empty means any action.
    #[serde(default)]
    actions: Vec<String>,
}

/// Lists the methods that can be called instead, for the text of an error.
async fn offered_methods(client: &Client, wanted: &str) -> anyhow::Result<String> {
    let services = client.list(&["api", "services"], &[("status", "online")]).await?;
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for service in services {
        for Capability { name, actions } in Service::deserialize(service)?.capabilities {
            found.entry(name).or_default().extend(actions);
        }
    }
    Ok(match found.get(wanted) {
        Some(methods) if !methods.is_empty() => format!("; {wanted} offers {}", names(methods.iter())),
        Some(_) => String::new(),
        None if found.is_empty() => "; no service is online".to_owned(),
        None => format!("; services that are online: {}", names(found.keys())),
    })
}

fn names<'a>(all: impl ExactSizeIterator<Item = &'a String>) -> String {
    let more = all.len().saturating_sub(NAMES_MAX);
    let listed: Vec<&str> = all.take(NAMES_MAX).map(String::as_str).collect();
    let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{rest}", listed.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

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
        call(&fake.global(), args("users:get", Some("{\"id\":7}")), false).await.unwrap();
        let failed = call(&fake.global(), args("users:get", None), false).await.unwrap_err().to_string();
        assert_eq!(failed, "the provider refused the call: {\"code\":\"E7\"} (HTTP 422)");
        assert_eq!(fake.calls(), ["POST /api/call/users/get", "POST /api/call/users/get"]);
        assert_eq!(fake.bodies(), ["{\"id\":7}", "{}"]);
    }

    #[tokio::test]
    async fn who_asks_for_what_nobody_offers_is_told_what_there_is() {
        let nobody = |detail: &str| {
            let problem = format!(r#"{{"title":"Unavailable","detail":"{detail}","code":"no_provider"}}"#);
            answer("503 Service Unavailable", "", &problem)
        };
        let services = r#"{"items":[{"id":"greeter","capabilities":[{"name":"greeter","actions":["greet","part"]}]},{"id":"u","capabilities":[{"name":"users"}]}],"next_cursor":null}"#;
        let none = r#"{"items":[],"next_cursor":null}"#;
        let fake = Fake::start(vec![
            nobody("no provider of greeter offers nope"),
            answer("200 OK", "", services),
            nobody("nobody offers gone"),
            answer("200 OK", "", services),
            nobody("nobody offers gone"),
            answer("200 OK", "", none),
            nobody("nobody offers gone"),
        ])
        .await;
        for (destination, says) in [
            ("greeter:nope", "no provider of greeter offers nope (HTTP 503); greeter offers greet, part"),
            ("gone:x", "nobody offers gone (HTTP 503); services that are online: greeter, users"),
            ("gone:x", "nobody offers gone (HTTP 503); no service is online"),
            ("gone:x", "nobody offers gone (HTTP 503)"),
        ] {
            let failed = call(&fake.global(), args(destination, None), false).await.unwrap_err();
            assert_eq!(failed.to_string(), says);
        }
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_said_before_anybody_is_asked() {
        let fake = Fake::start(Vec::new()).await;
        for (destination, payload) in [("users", None), (":get", None), ("users:", None), ("a:b", Some("{"))] {
            let error = call(&fake.global(), args(destination, payload), false).await.unwrap_err();
            assert!(error.is::<Usage>(), "{destination}: {error}");
        }
    }
}
