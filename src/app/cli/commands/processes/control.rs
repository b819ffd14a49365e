//! `rollbook start`, `stop` and `restart`.

use clap::Args;
use reqwest::Method;

use crate::app::cli::shared::global::Global;
use crate::app::cli::shared::http::Client;
use crate::app::cli::shared::output::print;

const EXAMPLES: &str = "\
Examples:
  rollbook start web
  rollbook stop web --route eu
  rollbook restart web

Returns when all docks have done it; the first dock that could not is the error. A stop waits for the end of the \
processes. With --route only docks with this id or tag are asked.";

/// Arguments of `start`, `stop` and `restart`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ControlArgs {
    /// Id of the definition
    definition: String,
    /// Only on docks with this id or tag
    #[arg(long, value_name = "DOCK|TAG")]
    route: Option<String>,
}

/// What is done.
#[derive(Debug, Clone, Copy)]
pub(in crate::app::cli) enum Verb {
    Start,
    Stop,
    Restart,
}

impl Verb {
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Start => ("start", "started"),
            Self::Stop => ("stop", "stopped"),
            Self::Restart => ("restart", "restarted"),
        }
    }
}

pub(in crate::app::cli) async fn run(global: &Global, args: ControlArgs, verb: Verb) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let (word, done) = verb.words();
    ask(&client, &args.definition, word, args.route.as_deref()).await?;
    print(&format!("{} is {done}", args.definition))
}

/// Has something done with a definition on docks. No answer is too late: docks may wait for a process to end.
pub(super) async fn ask(client: &Client, id: &str, word: &str, route: Option<&str>) -> anyhow::Result<()> {
    let query: Vec<_> = route.map(|route| ("route", route)).into_iter().collect();
    let url = client.url(&["api", "definitions", id, word], &query);
    client.send_patiently(Method::POST, url, Vec::new()).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[tokio::test]
    async fn each_command_is_one_request() {
        let gone = || answer("204 No Content", "", "");
        let fake = Fake::start(vec![gone(), gone(), gone()]).await;
        for (verb, route) in [(Verb::Start, None), (Verb::Stop, Some("eu")), (Verb::Restart, None)] {
            let args = ControlArgs { definition: "web".to_owned(), route: route.map(str::to_owned) };
            run(&fake.global(), args, verb).await.unwrap();
        }
        let calls = ["start", "stop?route=eu", "restart"].map(|word| format!("POST /api/definitions/web/{word}"));
        assert_eq!(fake.calls(), calls);
    }
}
