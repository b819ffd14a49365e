//! `rollbook health`: prints in one line whether the node is ready, with an exit code for the probe of a container.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use reqwest::Method;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::print;
use crate::base::duration;

const EXAMPLES: &str = "\
Examples:
  rollbook health
  rollbook health --wait 10s
  rollbook health --web-url http://127.0.0.1:7450

Exit code 0 when the node is ready, 1 when it is not.";

/// Pause between two requests.
const PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// Arguments of `health`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct HealthArgs {
    /// Wait this long for the node to become ready
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "0s")]
    wait: Duration,
}

pub(in crate::app::cli) async fn run(global: &Global, args: HealthArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let deadline = Instant::now().checked_add(args.wait);
    loop {
        let why = match ask(&client).await {
            Ok(()) => break,
            Err(why) => why,
        };
        let next = Instant::now().checked_add(PAUSE);
        if next >= deadline {
            // The text of the node may begin with the same words.
            bail!("not ready: {}", why.strip_prefix("not ready: ").unwrap_or(&why));
        }
        sleep(PAUSE).await;
    }
    print(&match global.output {
        Output::Table => "ready".to_owned(),
        Output::Json => json!({ "ready": true }).to_string(),
    })
}

async fn ask(client: &Client) -> Result<(), String> {
    let asked = client.send(Method::GET, client.url(&["readyz"], &[]), None);
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(CallError::Refused { text, status, .. })) => Err(format!("{text} (HTTP {status})")),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {}", duration::format(ANSWER_TIMEOUT))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{self, Fake, answer};

    fn not_ready() -> String {
        answer("503 Service Unavailable", "", "no leader\n")
    }

    #[tokio::test]
    async fn waits_until_ready() {
        let fake = Fake::start(vec![not_ready(), not_ready(), answer("200 OK", "", "ready")]).await;
        run(&fake.global(), HealthArgs { wait: Duration::from_secs(5) }).await.unwrap();
        assert_eq!(fake.calls(), ["GET /readyz"; 3]);
    }

    #[tokio::test]
    async fn says_why_not() {
        let fake = Fake::start(vec![not_ready()]).await;
        let args = HealthArgs { wait: Duration::ZERO };
        assert_eq!(run(&fake.global(), args).await.unwrap_err().to_string(), "not ready: no leader (HTTP 503)");
        let fake =
            Fake::start(vec![answer("503 Service Unavailable", "", "not ready: unavailable: no leader\n")]).await;
        let args = HealthArgs { wait: Duration::ZERO };
        let error = run(&fake.global(), args).await.unwrap_err();
        assert_eq!(error.to_string(), "not ready: unavailable: no leader (HTTP 503)", "once");
        let args = HealthArgs { wait: Duration::from_millis(150) };
        let error = run(&testing::global("", "http://127.0.0.1:1"), args).await.unwrap_err();
        assert!(error.to_string().starts_with("not ready: no node answers at http://127.0.0.1:1/"), "{error}");
    }
}
