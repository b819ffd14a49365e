//! The command line: global options, the list of commands, and the flags of `serve`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use toml::Value;

use super::{ack, config, consumers, dump, health, namespaces, publish, restore, subscribe};
use crate::app::bench::BenchArgs;
use crate::app::config::{Config, ConfigError, Loaded, environment};

const EXAMPLES: &str = "\
Examples:
  rollbook serve
  rollbook publish app.orders.created '{\"order\":17}'
  rollbook subscribe 'app.>' --start oldest
  rollbook health --wait 10s

Exit codes: 0 done, 1 failed, 2 bad usage or configuration.";

/// A clustered service bus: it takes the roll and keeps the book.
#[derive(Debug, Parser)]
#[command(name = "rollbook", version, after_help = EXAMPLES, disable_help_subcommand = true)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command that talks to a node.
#[derive(Debug, Clone, Args)]
pub struct Global {
    /// Event log of the node to talk to
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        hide_env_values = true,
        env = "ROLLBOOK_LOG_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:2021"
    )]
    pub log_url: String,
    /// REST and health of the node to talk to
    #[arg(
        long,
        global = true,
        help_heading = "Global options",
        hide_env_values = true,
        env = "ROLLBOOK_WEB_URL",
        value_name = "URL",
        default_value = "http://127.0.0.1:7440"
    )]
    pub web_url: String,
    /// How results are written
    #[arg(short, long, global = true, help_heading = "Global options", value_enum, default_value_t = Output::Table)]
    pub output: Output,
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people
    Table,
    /// For programs: one JSON value
    Json,
}

/// What `rollbook` can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node
    Serve(ServeArgs),
    /// A command that talks to a running node, or to none.
    #[command(flatten)]
    Client(ClientCommand),
    /// Measure a node
    Bench(BenchArgs),
}

/// The commands that [`super::run`] carries out.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Publish an event, or many
    Publish(publish::PublishArgs),
    /// Print events as they come
    Subscribe(subscribe::SubscribeArgs),
    /// Acknowledge an event for a consumer
    Ack(ack::AckArgs),
    /// Write all events of a namespace as lines of JSON
    Dump(dump::DumpArgs),
    /// Publish the events of a dump again, with their ids and times
    Restore(restore::RestoreArgs),
    /// List, create and delete namespaces, set what they keep
    Namespaces(namespaces::NamespacesArgs),
    /// List and delete durable consumers
    Consumers(consumers::ConsumersArgs),
    /// Check a configuration file, or show what is in force
    Config(config::ConfigArgs),
    /// Ask whether the node is ready
    Health(health::HealthArgs),
}

const SERVE_EXAMPLES: &str = "\
Examples:
  rollbook serve
  rollbook serve --data /var/lib/rollbook --namespaces app,audit
  rollbook serve --log 0.0.0.0:2021 --web off --insecure
  rollbook serve --config rollbook.toml

Each setting comes from the highest of: flag, environment (ROLLBOOK_SSE__LISTEN for listen in [sse]),
file, default. `rollbook config dump --origins` shows all of them. Port 0 picks a free port; `off` closes a door.
Standard output gets one line per open door, then `ready`.";

/// Flags of `serve`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = SERVE_EXAMPLES)]
pub struct ServeArgs {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Number of this node [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i64).range(1..))]
    pub node: Option<i64>,
    /// Directory of everything this node stores [default: ./data]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,
    /// Where REST, metrics and health listen, or off [default: 127.0.0.1:7440]
    #[arg(long, value_name = "ADDR")]
    pub web: Option<String>,
    /// Where the event log listens, or off [default: 127.0.0.1:2021]
    #[arg(long, value_name = "ADDR")]
    pub log: Option<String>,
    /// Namespaces clients may use, separated by commas; * creates each with its first publish [default: *]
    #[arg(long, value_name = "LIST")]
    pub namespaces: Option<String>,
    /// Allow listeners that other machines can reach, without TLS and authentication
    #[arg(long)]
    pub insecure: bool,
}

impl ServeArgs {
    /// The configuration from all layers.
    ///
    /// # Errors
    ///
    /// When any layer has a problem; `rollbook` then exits with 2.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        Config::load(self.config.as_deref(), environment(), &self.flags())
    }

    /// The flags that were given, as settings.
    #[must_use]
    pub fn flags(&self) -> Vec<(&'static str, Value)> {
        let text = |value: &Option<String>| value.clone().map(Value::String);
        [
            ("node.id", self.node.map(Value::Integer)),
            ("node.data", text(&self.data)),
            ("node.insecure", self.insecure.then_some(Value::Boolean(true))),
            ("web.listen", text(&self.web)),
            ("sse.listen", text(&self.log)),
            ("book.namespaces", text(&self.namespaces)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        fn visit(command: &clap::Command, path: &str) {
            let examples = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let own = path.contains(" bench") || path.matches(' ').count() > 1;
            assert!(own || examples.starts_with("Examples:\n  rollbook "), "{path} has no examples");
            for child in command.get_subcommands() {
                visit(child, &format!("{path} {}", child.get_name()));
            }
        }
        visit(&Cli::command(), "rollbook");
    }

    /// Each example line of each help text is a command line that parses.
    #[test]
    fn examples_parse() {
        fn visit(command: &clap::Command) {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            for line in help.lines().filter_map(|line| line.strip_prefix("  ")) {
                let Some(at) = line.find("rollbook ") else { panic!("no command in: {line}") };
                let words = split_words(line.split_at(at).1);
                assert!(
                    Cli::try_parse_from(&words).is_ok(),
                    "{line}: {}",
                    Cli::try_parse_from(&words).unwrap_err()
                );
            }
            command.get_subcommands().filter(|child| child.get_name() != "bench").for_each(visit);
        }
        visit(&Cli::command());
    }

    /// Words of a shell line up to a pipe or a redirection; single quotes only.
    fn split_words(line: &str) -> Vec<String> {
        let (mut words, mut quoted) = (vec![String::new()], false);
        for c in line.chars() {
            match c {
                '\'' => quoted = !quoted,
                '|' | '<' | '>' if !quoted => break,
                ' ' if !quoted => words.push(String::new()),
                c => words.last_mut().unwrap().push(c),
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn serve_flags_become_settings_and_beat_the_default() {
        let line =
            "rollbook serve --node 3 --data /d --web off --log 127.0.0.1:0 --namespaces a,b --insecure";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        let config = Config::load(None, std::iter::empty(), &args.flags()).unwrap().config;
        assert_eq!((config.node.id, config.node.insecure), (3, true));
        assert_eq!(config.node.data, PathBuf::from("/d"));
        assert_eq!(
            (config.web.listen.to_string(), config.sse.listen.to_string()),
            ("off".into(), "127.0.0.1:0".into())
        );
        assert!(ServeArgs::default().flags().is_empty());
    }
}
