//! `rollbook deploy`: a folder becomes the build of a definition, and runs.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use indicatif::ProgressBar;
use reqwest::Method;
use serde_json::{Map, Value, json};
use tempfile::NamedTempFile;

use super::control::ask;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::http::{CallError, Client};
use crate::app::cli::shared::output::{Unit, note, print, progress};
use crate::base::archive::limits::Limits;
use crate::base::archive::pack;

const EXAMPLES: &str = "\
Examples:
  rollbook deploy web --start 'node server.js' --tag eu
  rollbook deploy web ./app --build 'npm install --production' --revision v1.2
  rollbook deploy web --no-restart

Packs a folder, uploads it, shows what its build says, and brings the result to the docks. The options change the \
definition before; without any the definition must be there. Processes that run are restarted.";

/// Arguments of `deploy`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DeployArgs {
    /// Id of the definition
    definition: String,
    /// The folder
    #[arg(default_value = ".")]
    folder: PathBuf,
    /// The command of the process
    #[arg(long, value_name = "COMMAND")]
    start: Option<String>,
    /// The command that builds what is uploaded, on the node
    #[arg(long, value_name = "COMMAND")]
    build: Option<String>,
    /// On docks with this tag; can be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// A variable of the environment; can be repeated
    #[arg(long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// On so many docks
    #[arg(long)]
    limit: Option<u32>,
    /// What is deployed, as text
    #[arg(long, default_value = "")]
    revision: String,
    /// Only on docks with this id or tag
    #[arg(long, value_name = "DOCK|TAG")]
    route: Option<String>,
    /// Leave processes that run as they are
    #[arg(long)]
    no_restart: bool,
}

impl DeployArgs {
    /// The members of the definition that are set.
    fn members(&self) -> anyhow::Result<Map<String, Value>> {
        let mut members = Map::new();
        let texts = [("start", &self.start), ("build", &self.build)];
        for (name, text) in texts.into_iter().filter_map(|(name, text)| Some((name, text.as_ref()?))) {
            members.insert(name.to_owned(), text.as_str().into());
        }
        if !self.tag.is_empty() {
            members.insert("tags".to_owned(), self.tag.clone().into());
        }
        if let Some(limit) = self.limit {
            members.insert("limit".to_owned(), limit.into());
        }
        if !self.env.is_empty() {
            let pairs = self.env.iter().map(|pair| {
                let (name, value) = pair.split_once('=').with_context(|| format!("--env {pair}: NAME=VALUE"))?;
                Ok((name.to_owned(), value.into()))
            });
            members.insert("env".to_owned(), Value::Object(pairs.collect::<anyhow::Result<_>>()?));
        }
        Ok(members)
    }
}

pub(in crate::app::cli) async fn run(global: &Global, args: DeployArgs) -> anyhow::Result<()> {
    let client = Client::web(global)?;
    let (id, members) = (args.definition.as_str(), args.members()?);
    let url = client.url(&["api", "definitions", id], &[]);
    if !members.is_empty() {
        let _set: Value = client.json(Method::PUT, url, Some(&Value::Object(members))).await?;
    }
    let archive = packed(&args.folder)?;
    upload(global, &client, (id, &args.revision), &archive).await?;
    let route = args.route.as_deref();
    ask(&client, id, "sync", route).await?;
    if !args.no_restart {
        ask(&client, id, "restart", route).await?;
    }
    match global.output {
        Output::Json => print(&json!({ "definition": id, "revision": args.revision }).to_string()),
        Output::Table => print(&format!("{id} is deployed; `rollbook logs {id}` shows what it says")),
    }
}

fn packed(folder: &Path) -> anyhow::Result<NamedTempFile> {
    let file = NamedTempFile::new().context("no room for an archive")?;
    let writer = file.reopen().context("no room for an archive")?;
    pack::pack(folder, writer, &Limits::MOST).with_context(|| folder.display().to_string())?;
    Ok(file)
}

/// Uploads an archive, and shows on standard error what its build says.
async fn upload(
    global: &Global,
    client: &Client,
    (id, revision): (&str, &str),
    archive: &NamedTempFile,
) -> anyhow::Result<()> {
    let bytes = archive.as_file().metadata()?.len();
    let bar =
        if matches!(global.output, Output::Json) { ProgressBar::hidden() } else { progress(Some(bytes), Unit::Bytes) };
    let url = client.url(&["api", "definitions", id, "builds"], &[("revision", revision)]);
    let file = tokio::fs::File::open(archive.path()).await?;
    let counted = bar.clone();
    let sent = client.upload(url, (file, bytes), move |count| counted.inc(count)).await;
    let mut answer = match sent {
        Ok(answer) => answer,
        Err(error) => {
            bar.abandon();
            return Err(explained(id, error));
        }
    };
    bar.finish_and_clear();
    let mut lines = Vec::new();
    let mut deployed = false;
    while let Some(bytes) = answer.chunk().await? {
        lines.extend_from_slice(&bytes);
        while let Some(end) = lines.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = lines.drain(..=end).collect();
            deployed |= shown(&serde_json::from_slice(&line).unwrap_or_default(), &bar)?;
        }
    }
    anyhow::ensure!(deployed, "the node has not said that the build is deployed");
    Ok(())
}

/// Shows a line of the answer. Returns whether the build is deployed.
fn shown(line: &Value, bar: &ProgressBar) -> anyhow::Result<bool> {
    let text = |name: &str| line.get(name).and_then(Value::as_str);
    if let Some(output) = text("output") {
        bar.suspend(|| note(output.trim_end_matches('\n')));
    }
    if let Some(error) = text("error") {
        anyhow::bail!("not deployed: {error}");
    }
    Ok(text("deployed").is_some())
}

fn explained(id: &str, error: CallError) -> anyhow::Error {
    match error.code() {
        Some("definition_not_found") => {
            anyhow::anyhow!("there is no definition {id}; say how it is started with --start")
        }
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::app::cli::shared::testing::{Fake, answer};

    #[derive(Parser)]
    struct Parsed {
        #[command(flatten)]
        args: DeployArgs,
    }

    #[tokio::test]
    async fn a_deploy_sets_uploads_syncs_and_restarts() {
        let gone = || answer("204 No Content", "", "");
        let built = answer("200 OK", "", "{\"output\":\"making\\n\"}\n{\"deployed\":\"built\"}\n");
        let fake = Fake::start(vec![answer("200 OK", "", "{}"), built, gone(), gone()]).await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "a").unwrap();
        let path = folder.path().to_str().unwrap();
        let line = ["deploy", "web", path, "--start", "x", "--env", "A=b=c", "--tag", "eu", "--revision", "r1"];
        run(&fake.global(), Parsed::parse_from(line).args).await.unwrap();
        assert_eq!(
            fake.calls(),
            [
                "PUT /api/definitions/web",
                "POST /api/definitions/web/builds?revision=r1",
                "POST /api/definitions/web/sync",
                "POST /api/definitions/web/restart"
            ]
        );
    }

    #[test]
    fn options_become_members_and_nothing_else() {
        let members = |line: &[&str]| Parsed::parse_from(line).args.members();
        assert_eq!(members(&["deploy", "web"]).unwrap(), Map::new());
        let all = members(&["deploy", "web", "--env", "A=b=c", "--limit", "2"]).unwrap();
        assert_eq!(Value::Object(all), json!({"limit": 2, "env": {"A": "b=c"}}));
        assert!(members(&["deploy", "web", "--env", "A"]).is_err());
    }
}
