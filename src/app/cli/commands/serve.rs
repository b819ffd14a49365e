//! The flags of `rollbook serve`.

use std::path::PathBuf;

use clap::Args;
use toml::Value;

use crate::app::config::layers::{ConfigError, Loaded, environment};
use crate::app::config::settings::Config;
use crate::app::node::start_options::StartOptions;

const EXAMPLES: &str = "\
Examples:
  rollbook serve
  rollbook serve --data /var/lib/rollbook --namespaces app,audit
  rollbook serve --nats 127.0.0.1:4222 --hms 127.0.0.1:10002
  rollbook serve --log 0.0.0.0:2021 --web off --insecure
  rollbook serve --log 0.0.0.0:2021 --tls-certificate certs/server.pem --tls-key certs/server.key
  rollbook serve --config rollbook.toml
  rollbook serve --node 2 --data d2 --web 127.0.0.1:7450 --log 127.0.0.1:2022 --cluster 1=127.0.0.1:7441,2=127.0.0.1:7451,3=127.0.0.1:7461

Each setting comes from the highest of: flag, environment (ROLLBOOK_SSE__LISTEN for listen in [sse]), \
file, default. `rollbook config dump --origins` shows all of them. Port 0 picks a free port; `off` closes a door. \
Nodes whose round trips take more than 200 ms need a larger cluster.heartbeat, the same on all.

Standard output gets one line per open door, then `ready`.";

/// Flags of `serve`.
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct ServeArgs {
    /// Read settings from this TOML file
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Number of this node [default: that of the data directory, else 1]
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
    /// Where clients of NATS connect, or off; their default port is 4222 [default: off]
    #[arg(long, value_name = "ADDR")]
    pub nats: Option<String>,
    /// Where clients and docks of hms connect, or off; their default port is 10002 [default: off]
    #[arg(long, value_name = "ADDR")]
    pub hms: Option<String>,
    /// Where other nodes call, or off [default: its own entry in --cluster, else 127.0.0.1:7441]
    #[arg(long, value_name = "ADDR")]
    pub peer: Option<String>,
    /// Where other nodes reach that listener [default: its own entry in --cluster, else --peer]
    #[arg(long, value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// The nodes that found the cluster, as NUMBER=HOST:PORT separated by commas [default: this node alone]
    #[arg(long, value_name = "LIST")]
    pub cluster: Option<String>,
    /// Namespaces clients may use, separated by commas; * creates each with its first publish [default: *]
    #[arg(long, value_name = "LIST")]
    pub namespaces: Option<String>,
    /// Certificate of all listeners for clients, with those between it and its CA, PEM [default: no TLS]
    #[arg(long, value_name = "FILE")]
    pub tls_certificate: Option<String>,
    /// Private key of that certificate, PEM
    #[arg(long, value_name = "FILE")]
    pub tls_key: Option<String>,
    /// CA whose certificates clients may show, PEM; tls.client_certificates says whether they have to
    #[arg(long, value_name = "FILE")]
    pub tls_client_ca: Option<String>,
    /// Allow listeners that other machines can reach, without TLS and authentication
    #[arg(long)]
    pub insecure: bool,
    /// Start once although the file MARK is lost; acknowledged events missing from the raft log then stay unnoticed
    #[arg(long)]
    pub accept_lost_mark: bool,
    /// Make another root token and write it to root.token in the data directory, when the first one is lost
    #[arg(long)]
    pub new_root_token: bool,
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

    /// What this start does that others do not.
    #[must_use]
    pub const fn options(&self) -> StartOptions {
        StartOptions { accept_lost_mark: self.accept_lost_mark, new_root_token: self.new_root_token }
    }

    /// The given flags, as settings.
    #[must_use]
    pub fn flags(&self) -> Vec<(&'static str, Value)> {
        let text = |value: &Option<String>| value.clone().map(Value::String);
        [
            ("node.id", self.node.map(Value::Integer)),
            ("node.data", text(&self.data)),
            ("node.insecure", self.insecure.then_some(Value::Boolean(true))),
            ("web.listen", text(&self.web)),
            ("sse.listen", text(&self.log)),
            ("nats.listen", text(&self.nats)),
            ("hms.listen", text(&self.hms)),
            ("peer.listen", text(&self.peer)),
            ("peer.advertise", text(&self.advertise)),
            ("cluster.founders", text(&self.cluster)),
            ("book.namespaces", text(&self.namespaces)),
            ("tls.certificate", text(&self.tls_certificate)),
            ("tls.key", text(&self.tls_key)),
            ("tls.client_ca", text(&self.tls_client_ca)),
        ]
        .into_iter()
        .filter_map(|(key, value)| Some((key, value?)))
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::app::cli::args::{Cli, Command};

    #[test]
    fn serve_flags_become_settings_and_beat_the_default() {
        let line = "rollbook serve --node 3 --data /d --web off --log 127.0.0.1:0 --namespaces a,b --insecure";
        let cli = Cli::try_parse_from(line.split(' ')).unwrap();
        let Command::Serve(args) = cli.command else { panic!("not serve") };
        let config = Config::load(None, std::iter::empty(), &args.flags()).unwrap().config;
        assert_eq!((config.node.id, config.node.insecure), (3, true));
        assert_eq!(config.node.data, PathBuf::from("/d"));
        assert_eq!(
            (config.web.listen.to_string(), config.doors.sse.listen.to_string()),
            ("off".into(), "127.0.0.1:0".into())
        );
        assert!(ServeArgs::default().flags().is_empty());
    }
}
