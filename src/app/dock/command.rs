//! `rollbook dock`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use rustls::ClientConfig;
use tokio::signal::unix::{SignalKind, signal};

use super::config::Config as DockConfig;
use super::run;
use crate::app::cli::access::tls::TlsFiles;
use crate::app::cli::shared::error::Usage;
use crate::app::config::settings::Config;
use crate::app::log::{self, StandardStreams};
use crate::base::duration;

/// Stands for the CAs of the system.
const SYSTEM: &str = "system";
/// Size from which on a file of output is rotated.
const LOG_BYTES: u64 = 16 * 1024 * 1024;

const EXAMPLES: &str = "\
Examples:
  rollbook dock --hms 127.0.0.1:10002 --id eu-1 --data ./dock --default
  rollbook dock --hms node-1:10002,node-2:10002,node-3:10002 --id eu-1 --data /var/lib/rollbook-dock --tag eu --ca ca.pem --token-file dock.token

Runs processes on this machine, and prints `ready` when it is connected. The dock is connected to one of the nodes, and goes to another one when that is lost; its \
processes run on meanwhile, also when the dock itself is killed and started again. SIGTERM ends the processes first, \
unless --keep is given.";

/// Arguments of `dock`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DockArgs {
    /// Nodes that the dock may connect to
    #[arg(long, value_name = "HOST:PORT", value_delimiter = ',', required = true)]
    hms: Vec<String>,
    /// Name of the dock, which no other dock of the cluster has
    #[arg(long)]
    id: String,
    /// Directory with builds, output and what runs
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// A tag; processes with one of the tags run here. Can be repeated
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// Processes without tags run here
    #[arg(long)]
    default: bool,
    /// File with the token of the dock
    #[arg(long, value_name = "FILE", env = "ROLLBOOK_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Size from which on a file of output is rotated, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = LOG_BYTES)]
    log_bytes_max: u64,
    /// Time between an answered ping and the next one
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration::parse)]
    ping_interval: Duration,
    /// How long a node may take to answer a ping
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration::parse)]
    ping_timeout: Duration,
    /// Use no cgroups, also where the kernel lets the dock
    #[arg(long)]
    no_cgroups: bool,
    /// Connect over TLS, and trust the CAs in this file, PEM; `system` means those of the system
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Client certificate, PEM
    #[arg(long, value_name = "FILE", requires = "ca")]
    certificate: Option<PathBuf>,
    /// Its key, PEM [default: the file of the certificate]
    #[arg(long, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// Leave the processes running when the dock is stopped
    #[arg(long)]
    keep: bool,
}

/// Runs a dock until a signal stops it.
///
/// # Errors
/// The dock cannot start. Nodes that cannot be reached are no error.
pub fn run(args: DockArgs) -> anyhow::Result<()> {
    let streams = log::start(&Config::default())?;
    let ran = serve(args, &streams);
    streams.end();
    ran
}

/// The settings of TLS, when there is a CA to trust.
fn tls(
    ca: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
) -> anyhow::Result<Option<ClientConfig>> {
    let Some(ca) = ca else { return Ok(None) };
    let ca = Some(ca).filter(|path| path.as_os_str() != SYSTEM);
    TlsFiles { ca, certificate, key }.config().map(Some)
}

/// A token goes out only over TLS or within the machine, as with all commands.
fn check_secret(config: &DockConfig) -> anyhow::Result<()> {
    let local = |node: &String| {
        let host = node.rsplit_once(':').map_or(node.as_str(), |(host, _)| host).trim_matches(['[', ']']);
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    };
    match config.nodes.iter().find(|node| !local(node)) {
        Some(node) if config.token_file.is_some() && config.tls.is_none() => {
            Err(Usage(format!("the token would go to {node} in clear; pass --ca FILE for TLS")).into())
        }
        _ => Ok(()),
    }
}

fn serve(args: DockArgs, streams: &StandardStreams) -> anyhow::Result<()> {
    let mut config = DockConfig::new(args.id, args.data, args.hms);
    config.tags = args.tag;
    (config.default, config.keep, config.cgroups) = (args.default, args.keep, !args.no_cgroups);
    config.tls = tls(args.ca, args.certificate, args.certificate_key)?.map(Arc::new);
    config.token_file = args.token_file;
    check_secret(&config)?;
    config.log_bytes_max = args.log_bytes_max;
    (config.timing.ping_after, config.timing.pong_within) = (args.ping_interval, args.ping_timeout);
    // One thread does it all, and costs the least while nothing happens.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("no runtime")?;
    runtime.block_on(async {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate()).context("signals")?, signal(SignalKind::interrupt()).context("signals")?);
        let stopped = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        // Scripts wait for this line.
        Ok(run::run(config, stopped, || streams.announce("ready")).await?)
    })
}
