//! `rollbook config`: checks a file, or prints every setting with its layer.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

use super::serve::ServeArgs;
use crate::app::cli::shared::global::{Global, Output};
use crate::app::cli::shared::output::print;
use crate::app::config::layers::Loaded;
use crate::app::config::settings::Config;

const EXAMPLES: &str = "\
Examples:
  rollbook config check rollbook.toml
  rollbook config dump --origins
  rollbook config dump --config rollbook.toml --log 127.0.0.1:2022
  rollbook config dump > rollbook.toml";

const CHECK_EXAMPLES: &str = "\
Examples:
  rollbook config check rollbook.toml";

const DUMP_EXAMPLES: &str = "\
Examples:
  rollbook config dump --origins
  rollbook config dump --config rollbook.toml --log 127.0.0.1:2022
  rollbook config dump > rollbook.toml";

/// Arguments of `config`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ConfigArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Check a file by itself; each error comes with line and column, exit code 2
    #[command(after_help = CHECK_EXAMPLES)]
    Check {
        /// TOML file
        file: PathBuf,
    },
    /// Show every setting that `serve` would use with the same flags and environment
    #[command(after_help = DUMP_EXAMPLES)]
    Dump {
        /// Say where each value comes from
        #[arg(long)]
        origins: bool,
        #[command(flatten)]
        serve: Box<ServeArgs>,
    },
}

pub(in crate::app::cli) async fn run(global: &Global, args: ConfigArgs) -> anyhow::Result<()> {
    match args.action {
        Action::Check { file } => {
            Config::load(Some(&file), std::iter::empty(), &[])?;
            print(&format!("{}: ok", file.display()))
        }
        Action::Dump { origins, serve } => {
            let loaded = serve.load()?;
            match global.output {
                Output::Table => print(loaded.dump(origins).trim_end()),
                Output::Json => print(&as_json(&loaded, origins)?.to_string()),
            }
        }
    }
}

/// `{"sse.listen": "..."}`, or with origins `{"sse.listen": {"value": "...", "origin": "..."}}`.
fn as_json(loaded: &Loaded, origins: bool) -> anyhow::Result<Value> {
    let mut settings = Map::new();
    for (key, value, origin) in loaded.settings() {
        let value = serde_json::to_value(value)?;
        let shown = if origins { json!({ "value": value, "origin": origin.to_string() }) } else { value };
        settings.insert(key, shown);
    }
    Ok(Value::Object(settings))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::cli::shared::testing::global;
    use crate::app::config::layers::ConfigError;
    use std::path::Path;

    #[tokio::test]
    async fn check_takes_a_good_file_and_names_line_and_column_of_a_bad_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("r.toml");
        std::fs::write(&file, "[sse]\nlisten = \"off\"\n").unwrap();
        check(&file).await.unwrap();
        std::fs::write(&file, "[sse]\nlisten = \"of\"\nx = 1\n").unwrap();
        let text = check(&file).await.unwrap_err().downcast::<ConfigError>().unwrap().to_string();
        assert!(text.contains("r.toml:2:10: ") && text.contains("r.toml:3:1: unknown key `x`"), "{text}");
    }

    async fn check(file: &Path) -> anyhow::Result<()> {
        run(&global("", ""), ConfigArgs { action: Action::Check { file: file.to_owned() } }).await
    }

    #[test]
    fn json_has_every_setting() {
        let loaded = Config::load(None, std::iter::empty(), &[("node.id", toml::Value::Integer(2))]).unwrap();
        let with = as_json(&loaded, true).unwrap();
        assert_eq!(with["node.id"], json!({ "value": 2, "origin": "flag --node" }));
        assert_eq!(with["sse.keep_alive"], json!({ "value": "30s", "origin": "default" }));
        assert_eq!(as_json(&loaded, false).unwrap()["node.id"], json!(2));
    }
}
