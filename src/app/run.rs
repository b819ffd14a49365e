//! `rollbook serve`: store -> node -> bus -> doors -> admin, and back again on a signal.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix::Actor as _;
use actix_web::dev::ServerHandle;
use actix_web::{App, HttpServer};
use anyhow::Context as _;
use rollbook_cluster::node::{Node, NodeConfig, Running};
use rollbook_core::command::{Command, NamespaceCreate};
use rollbook_core::error::Refusal;
use rollbook_core::namespace::Retention;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::config::settings::Config;
use super::config::values::{Listen, LogFormat, Namespaces};
use crate::admin::request_log::log_request;
use crate::admin::{self, Admin};
use crate::bus::feed::Feed;
use crate::bus::handle::Bus;
use crate::bus::metrics::Metrics;
use crate::bus::proposer::{self, Proposer};
use crate::bus::registry::{Drain, Registry};
use crate::doors::sse::{self, Door, Enabled};

/// How long open streams have to end after the signal.
const DRAIN: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop.
///
/// # Errors
/// The node cannot start, or cannot bring everything to the disk at its end.
pub fn serve(config: &Config) -> anyhow::Result<()> {
    log(config)?;
    end_with_node_threads();
    // Before anything is opened: a port in use must not touch the data.
    let sse = bind("sse", &config.sse.listen)?;
    let web = bind("web", &config.web.listen)?;
    let address = "127.0.0.1:7441".to_owned();
    let timeout = config.book.publish_timeout;
    let running = Running::start(&NodeConfig { id: config.node.id, data: config.node.data.clone(), address, timeout })?;
    let served = actix_web::rt::System::new().block_on(house(config, running.node(), sse, web));
    let stopped = running.stop().context("the node did not stop cleanly");
    served.and(stopped)
}

fn log(config: &Config) -> anyhow::Result<()> {
    // What the operator asks for comes later and wins.
    let filter = format!("openraft=warn,actix_server=warn,{}", config.log.filter);
    let filter = tracing_subscriber::EnvFilter::try_new(filter).context("log.filter")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second call in one process, as in tests, keeps the first.
    match config.log.format {
        LogFormat::Json => builder.json().try_init().ok(),
        LogFormat::Text => builder.try_init().ok(),
    };
    Ok(())
}

/// A panic on a thread that the whole node stands on ends the process: the log is durable, and a node
/// that lives on without one of its parts would lie. A panic of one connection ends that connection.
fn end_with_node_threads() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        let thread = std::thread::current();
        if matches!(thread.name(), Some("raft" | "raft-wal" | "settle" | "feed")) {
            std::process::abort();
        }
    }));
}

/// A bound listener, so that a port in use is known before the node starts.
fn bind(name: &str, listen: &Listen) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = listen.addr() else { return Ok(None) };
    let listener = TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address} for {name}; choose another address with --{}", flag(name))
    })?;
    Ok(Some(listener))
}

fn flag(name: &str) -> &str {
    if name == "sse" { "log" } else { name }
}

/// Everything above the node.
struct House {
    door: Arc<Door>,
    admin: Arc<Admin>,
    registry: actix::Addr<Registry>,
    stop: CancellationToken,
    servers: Vec<ServerHandle>,
}

async fn house(config: &Config, node: Node, sse: Option<TcpListener>, web: Option<TcpListener>) -> anyhow::Result<()> {
    let stop = CancellationToken::new();
    let metrics = Metrics::default();
    let proposer = Proposer::new(node.clone(), proposer_config(config), metrics.clone());
    actix_web::rt::spawn(proposer.clone().watch_disk(stop.clone()));
    let feed = Feed::new(node.clone());
    let (running_feed, feed_stop) = (Arc::clone(&feed), stop.clone());
    std::thread::Builder::new().name("feed".to_owned()).spawn(move || running_feed.run(&feed_stop))?;
    declare(&node, &config.book.namespaces).await?;
    let bus = Bus::new(node, feed, proposer, metrics);
    let registry = Registry::new(&bus).start();
    let admin = Admin::new(bus.clone(), registry.clone());
    let door = Door::new(bus, registry.clone(), door_config(config));
    let mut house = House { door, admin, registry, stop, servers: Vec::new() };
    let mut lines = Vec::new();
    if let Some(listener) = sse {
        lines.push(("sse", listener.local_addr()?));
        house.serve_sse(config, listener)?;
    }
    if let Some(listener) = web {
        lines.push(("web", listener.local_addr()?));
        house.serve_web(listener)?;
    }
    // Before anybody is told that the node is there: from then on a stop must be a clean one.
    let told_to_stop = signals()?;
    announce(&lines);
    told_to_stop.await;
    tracing::info!("stopping");
    house.drain().await;
    Ok(())
}

/// Creates the namespaces that the configuration lists and that are not there yet.
async fn declare(node: &Node, namespaces: &Namespaces) -> anyhow::Result<()> {
    let Namespaces::Listed(names) = namespaces else { return Ok(()) };
    for name in names.iter().filter(|name| node.namespace(name).is_none()) {
        let create = NamespaceCreate { name: name.clone(), retention: Retention::default() };
        match node.command(Command::NamespaceCreate(create)).await {
            Ok(_) | Err(Refusal::NamespaceExists(_)) => {}
            Err(refusal) => anyhow::bail!("namespace {name} cannot be created: {refusal}"),
        }
    }
    Ok(())
}

impl House {
    fn serve_sse(&mut self, config: &Config, listener: TcpListener) -> anyhow::Result<()> {
        let workers = match config.threads.workers {
            // One core is left to raft, the log and the settler.
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1)),
            workers => workers,
        };
        let door = Arc::clone(&self.door);
        let server = HttpServer::new(move || App::new().configure(|services| sse::mount(&door, services)))
            .workers(workers)
            .max_connections(config.sse.connections_max.div_ceil(workers))
            .tcp_nodelay(true)
            // A client that closes its side has left: its events must go to others at once.
            .h1_allow_half_closed(false)
            .backlog(4096)
            .shutdown_timeout(DRAIN.as_secs())
            .disable_signals()
            .listen(listener)?
            .run();
        self.servers.push(server.handle());
        actix_web::rt::spawn(server);
        Ok(())
    }

    fn serve_web(&mut self, listener: TcpListener) -> anyhow::Result<()> {
        let admin = Arc::clone(&self.admin);
        let server = HttpServer::new(move || {
            App::new()
                .wrap(actix_web::middleware::from_fn(log_request))
                .configure(|services| admin::mount(&admin, services))
        })
        .workers(1)
        .shutdown_timeout(DRAIN.as_secs())
        .disable_signals()
        .listen(listener)?
        .run();
        self.servers.push(server.handle());
        actix_web::rt::spawn(server);
        Ok(())
    }

    /// Not ready any more, streams end with a hint, requests in flight are answered, then silence.
    async fn drain(self) {
        self.admin.drain();
        self.door.drain();
        if self.registry.send(Drain).await.is_err() {
            tracing::error!("the registry had stopped before");
        }
        tracing::info!("streams were told to end");
        // Give the streams a moment to write their last line before connections are closed.
        actix_web::rt::time::sleep(Duration::from_millis(100)).await;
        futures_util::future::join_all(self.servers.iter().map(|server| server.stop(true))).await;
        tracing::info!("listeners are closed");
        self.stop.cancel();
    }
}

fn proposer_config(config: &Config) -> proposer::Config {
    proposer::Config {
        data: config.node.data.clone(),
        reserve_bytes: config.book.reserve_bytes,
        pending_bytes_max: config.book.pending_bytes_max,
    }
}

fn door_config(config: &Config) -> sse::Config {
    sse::Config {
        body_bytes_max: config.sse.body_bytes_max,
        body_timeout: config.sse.body_timeout,
        keep_alive: config.sse.keep_alive,
        enabled: match &config.book.namespaces {
            Namespaces::Any => Enabled::Any,
            Namespaces::Listed(names) => Enabled::Listed(names.clone()),
        },
    }
}

/// One line for each door, then `ready`: scripts wait for it.
#[expect(clippy::print_stdout, reason = "the lines are the interface of `serve` to scripts")]
fn announce(lines: &[(&str, SocketAddr)]) {
    for (name, address) in lines {
        println!("{name:<5} http://{address}/");
    }
    println!("ready");
}

/// Catches the signals that end the node; resolves with the first.
fn signals() -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("signals")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
