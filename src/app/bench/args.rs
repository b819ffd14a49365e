//! The arguments of `rollbook bench`: options of all workloads, and options of each.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::app::cli::access::resolve::Access;
use crate::app::cli::shared::global::{Global, Output};

/// Options shared by every workload.
#[derive(Debug, Clone, Args)]
pub(super) struct Common {
    /// Event log listener of the server under test [default: that of --log-url]
    #[arg(long, global = true, default_value = "", hide_default_value = true)]
    pub(super) url: String,
    /// Web listener of the server under test, whose /metrics gives its CPU time and memory [default: that of --web-url]
    #[arg(long, global = true, default_value = "", hide_default_value = true)]
    pub(super) web: String,
    /// Read the server's CPU time and memory from this local process instead of /metrics
    #[arg(long, global = true)]
    pub(super) pid: Option<u32>,
    /// How long each run lasts, for example 5s, 500ms or 1m
    #[arg(long, global = true, value_parser = parse_duration, conflicts_with = "n")]
    pub(super) duration: Option<Duration>,
    /// Stop each run after this many operations instead of after a time
    #[arg(long, global = true)]
    pub(super) n: Option<u64>,
    /// Bytes of each event's JSON payload
    #[arg(long, global = true, default_value_t = 200)]
    pub(super) size: usize,
    /// Subject to publish to or read from [default: bench.load]
    #[arg(long, global = true)]
    pub(super) subject: Option<String>,
    /// Runs of each case; the median is reported
    #[arg(long, global = true, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) runs: u32,
    /// Worker threads of the load generator
    #[arg(long, global = true, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) threads: u16,
    /// Print one JSON document instead of a table, as --output json does
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Addresses of the server and credentials, from these options and those of all commands.
    #[arg(skip)]
    pub(super) access: Access,
}

impl Common {
    /// Completes the options from those of all commands.
    ///
    /// # Errors
    /// The context or the token cannot be read.
    pub(super) fn complete(&mut self, global: &Global) -> anyhow::Result<()> {
        let given =
            |own: &str, other: &Option<String>| Some(own.to_owned()).filter(|url| !url.is_empty()).or(other.clone());
        let (log_url, web_url) = (given(&self.url, &global.log_url), given(&self.web, &global.web_url));
        self.access = Access::resolve(&Global { log_url, web_url, ..global.clone() })?;
        self.json |= global.output == Output::Json;
        Ok(())
    }
}

/// What to measure.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Workload {
    /// Single events by POST, one request in flight per connection
    #[command(
        after_help = "Examples:\n  rollbook bench publish --connections 1,16,64\n  rollbook bench publish --connections 64 --rate 5000 --duration 10s"
    )]
    Publish(PublishArgs),
    /// JSON arrays of events by POST
    #[command(after_help = "Examples:\n  rollbook bench batch --batch 1000 --connections 4 --json")]
    Batch(BatchArgs),
    /// Publishers to many SSE subscribers: deliveries per second and delivery latency
    #[command(after_help = "Examples:\n  rollbook bench fanout --subscribers 1,10,100 --publishers 4")]
    Fanout(FanoutArgs),
    /// One subscriber reading the log from its oldest event
    #[command(after_help = "Examples:\n  rollbook bench replay --prefill 1000000")]
    Replay(ReplayArgs),
    /// Members of a group that read the log from its oldest event and acknowledge each event
    #[command(after_help = "Examples:\n  rollbook bench consume --prefill 200000 --members 1,4 --window 256")]
    Consume(ConsumeArgs),
    /// Time to the first event of a new subscriber, and replay of a rare subject
    #[command(after_help = "Examples:\n  rollbook bench start --prefill 1000000 --rare 7")]
    Start(StartArgs),
    /// Memory of idle SSE connections and the rate of handshakes
    #[command(after_help = "Examples:\n  rollbook bench idle --connections 5000 --wait 3s")]
    Idle(IdleArgs),
    /// TLS handshakes a second, full and resumed
    #[command(
        after_help = "Examples:\n  rollbook bench handshake --url https://127.0.0.1:2021 --ca ca.pem\n  rollbook bench handshake --url https://127.0.0.1:2021 --connections 16"
    )]
    Handshake(HandshakeArgs),
    /// Envelopes of Xbus from an emitter to a worker to a consumer
    #[command(
        after_help = "Examples:\n  rollbook bench xbus --window 256 --duration 10s\n  rollbook bench xbus --nats 127.0.0.1:4222\n  rollbook bench xbus --big 100 --runs 1"
    )]
    Xbus(XbusArgs),
    /// Baseline: an HTTP handler that only reads the body and answers 202
    #[command(after_help = "Examples:\n  rollbook bench floor --connections 64,256")]
    Floor(FloorArgs),
    /// Baseline: fdatasync of 4 KiB appends on this disk
    #[command(after_help = "Examples:\n  rollbook bench fsync --dir ./data")]
    Fsync(FsyncArgs),
    /// Start a fresh server and run the whole table of limits
    #[command(after_help = "Examples:\n  rollbook bench all --dir /var/tmp\n  rollbook bench all --quick")]
    All(AllArgs),
    /// The server side of `floor`
    #[command(hide = true)]
    FloorServer(FloorServerArgs),
}

/// Options of `publish`.
#[derive(Debug, Clone, Args)]
pub(super) struct PublishArgs {
    /// Keep-alive connections
    #[arg(long, default_value = "64", value_delimiter = ',')]
    pub(super) connections: Vec<usize>,
    /// Open loop: requests per second over all connections, latency from the intended send time
    #[arg(long)]
    pub(super) rate: Option<u64>,
}

/// Options of `batch`.
#[derive(Debug, Clone, Args)]
pub(super) struct BatchArgs {
    /// Events of one request
    #[arg(long, default_value_t = 1000)]
    pub(super) batch: usize,
    /// Keep-alive connections
    #[arg(long, default_value = "1", value_delimiter = ',')]
    pub(super) connections: Vec<usize>,
    /// Open loop: events per second over all connections, latency from the intended send time
    #[arg(long)]
    pub(super) rate: Option<u64>,
}

/// Options of `fanout`.
#[derive(Debug, Clone, Args)]
pub(super) struct FanoutArgs {
    /// Numbers of subscribers, one case each
    #[arg(long, default_value = "1,10,100,1000", value_delimiter = ',')]
    pub(super) subscribers: Vec<usize>,
    /// Publishing connections
    #[arg(long, default_value_t = 4)]
    pub(super) publishers: usize,
    /// Events of one publish request
    #[arg(long, default_value_t = 1)]
    pub(super) batch: usize,
    /// Events that publishers may be ahead of the slowest subscriber
    #[arg(long, default_value_t = 256)]
    pub(super) window: u64,
}

/// Options of `replay`.
#[derive(Debug, Clone, Args)]
pub(super) struct ReplayArgs {
    /// Publish this many events first
    #[arg(long, default_value_t = 0)]
    pub(super) prefill: u64,
}

/// Options of `consume`.
#[derive(Debug, Clone, Args)]
pub(super) struct ConsumeArgs {
    /// Publish this many events first
    #[arg(long, default_value_t = 0)]
    pub(super) prefill: u64,
    /// Numbers of members, one case each
    #[arg(long, default_value = "1", value_delimiter = ',')]
    pub(super) members: Vec<usize>,
    /// Most events in flight of each member
    #[arg(long, default_value_t = 256)]
    pub(super) window: u32,
    /// Most events of one acknowledgement
    #[arg(long, default_value_t = 128, value_parser = parse_batch)]
    pub(super) batch: usize,
}

fn parse_batch(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| (1..=4096).contains(count)).ok_or_else(|| "1 to 4096".to_owned())
}

/// Options of `start`.
#[derive(Debug, Clone, Args)]
pub(super) struct StartArgs {
    /// Publish this many events first
    #[arg(long, default_value_t = 0)]
    pub(super) prefill: u64,
    /// Events of a rare subject, spread among the prefilled ones
    #[arg(long, default_value_t = 7)]
    pub(super) rare: u64,
}

/// Options of `idle`.
#[derive(Debug, Clone, Args)]
pub(super) struct IdleArgs {
    /// SSE connections to open
    #[arg(long, default_value_t = 5000)]
    pub(super) connections: usize,
    /// How long they stay idle before memory is read
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    pub(super) wait: Duration,
}

/// Options of `handshake`.
#[derive(Debug, Clone, Args)]
pub(super) struct HandshakeArgs {
    /// Handshakes at the same time
    #[arg(long, default_value = "16", value_delimiter = ',')]
    pub(super) connections: Vec<usize>,
}

/// Options of `xbus`.
#[derive(Debug, Clone, Args)]
pub(super) struct XbusArgs {
    /// Door for NATS of the running server, which asks nobody who it is [default: start a server]
    #[arg(long)]
    pub(super) nats: Option<String>,
    /// Where the temporary data directory of a server goes that is started
    #[arg(long, default_value = ".")]
    pub(super) dir: PathBuf,
    /// Envelopes on their way
    #[arg(long, default_value_t = 256)]
    pub(super) window: usize,
    /// Connections of the worker, and of the consumer
    #[arg(long, default_value_t = 4)]
    pub(super) connections: usize,
    /// Bytes of each envelope
    #[arg(long, default_value_t = 1024)]
    pub(super) bytes: usize,
    /// Instead, one envelope of so many MiB in fragments, and the memory of the server
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub(super) big: Option<u64>,
}

/// Options of `floor`.
#[derive(Debug, Clone, Args)]
pub(super) struct FloorArgs {
    /// Keep-alive connections
    #[arg(long, default_value = "64", value_delimiter = ',')]
    pub(super) connections: Vec<usize>,
    /// Worker threads of the baseline server
    #[arg(long, default_value_t = 2)]
    pub(super) workers: usize,
}

/// Options of `floor-server`.
#[derive(Debug, Clone, Args)]
pub(super) struct FloorServerArgs {
    /// Address to listen on; port 0 picks a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    pub(super) addr: SocketAddr,
    /// Worker threads
    #[arg(long, default_value_t = 2)]
    pub(super) workers: usize,
}

/// Options of `fsync`.
#[derive(Debug, Clone, Args)]
pub(super) struct FsyncArgs {
    /// Directory on the disk to measure
    #[arg(long, default_value = ".")]
    pub(super) dir: PathBuf,
}

/// Options of `all`.
#[derive(Debug, Clone, Args)]
pub(super) struct AllArgs {
    /// Where the temporary data directories go
    #[arg(long, default_value = ".")]
    pub(super) dir: PathBuf,
    /// Worker threads of the baseline server
    #[arg(long, default_value_t = 2)]
    pub(super) workers: usize,
    /// A few seconds on a small log: a smoke test, its figures mean little
    #[arg(long)]
    pub(super) quick: bool,
    /// Over TLS, with a temporary certificate
    #[arg(long)]
    pub(super) tls: bool,
    /// With a token, on a server that asks every client who it is
    #[arg(long)]
    pub(super) auth: bool,
}

/// Reads `500ms`, `5s`, `1.5s` or `2m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_at);
    let scale = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return Err(format!("`{text}` is not a duration; write 500ms, 5s or 1m")),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|n| Duration::try_from_secs_f64(n * scale).ok())
        .filter(|d| !d.is_zero())
        .ok_or_else(|| format!("`{text}` is not a duration above zero; write 500ms, 5s or 1m"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_with_a_unit_are_read() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "5", "s", "5h", "0s", "-1s", "1..2s", "1e9s"] {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }
}
