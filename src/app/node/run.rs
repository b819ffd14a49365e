//! `rollbook serve`: store -> node -> bus -> doors -> admin, and back again on a signal.

use std::fmt::Debug;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::{Request, Response};
use actix_server::Server;
use actix_service::{IntoServiceFactory, ServiceFactory};
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServerHandle};
use actix_web::{App, Error, web};
use anyhow::Context as _;
use rollbook_cluster::node::Node;
use rollbook_cluster::running::{NodeConfig, Running};
use rollbook_cluster::wait::wait_until;
use rollbook_core::command::{Command, NamespaceCreate};
use rollbook_core::error::Refusal;
use rollbook_core::namespace::Retention;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::descriptors::{self, Fitted};
use super::signals::Signals;
use super::{isolation, membership, parts};
use crate::admin;
use crate::admin::answers::complete;
use crate::admin::consistency::ensure;
use crate::admin::request_log::log_request;
use crate::admin::{Admin, keys, same_origin};
use crate::app::config::layers::Loaded;
use crate::app::config::settings::{self, Config};
use crate::app::config::values::{Listen, Namespaces};
use crate::app::log::{self, StandardStreams};
use crate::base::actors::Owned;
use crate::base::clock;
use crate::base::metrics::Metrics;
use crate::bus::access::Access;
use crate::bus::call_handler::{CallHandler, Mailbox};
use crate::bus::client::clients::CloseReason;
use crate::bus::consume::registry::{Drain, Registry};
use crate::bus::handle::Bus;
use crate::bus::read::feed::Feed;
use crate::bus::relay::Relay;
use crate::bus::roll::announcer::Announcer;
use crate::bus::roll::services::Services;
use crate::bus::write::proposer::Proposer;
use crate::doors::sse::{self, Door};
use crate::doors::{socketio, websocket};
use crate::net::http::limits::{ListenerLimits, ListenerSettings};
use crate::net::http::server;

/// How long open streams, and requests to HTTP listeners, have to end after the signal.
const DRAIN: Duration = Duration::from_secs(5);
/// What a door needs beyond its own time to write its last frames.
const LAST_FRAMES: Duration = Duration::from_secs(1);
/// How long connections that end are waited for before the listeners are closed.
const FAREWELLS: Duration = Duration::from_millis(300);
/// How often it is looked whether the cluster has a leader.
const READY_LOOK: Duration = Duration::from_millis(10);

/// Runs a node until it is told to stop. With `accept_lost_mark` it takes its raft log as it is.
///
/// # Errors
/// The node cannot start, or cannot bring everything to the disk at its end.
pub fn serve(loaded: &Loaded, accept_lost_mark: bool) -> anyhow::Result<()> {
    let streams = log::start(&loaded.config)?;
    let served = run(loaded, accept_lost_mark, &streams);
    streams.end();
    served
}

fn run(loaded: &Loaded, accept_lost_mark: bool, streams: &StandardStreams) -> anyhow::Result<()> {
    let fitted = descriptors::fit(&loaded.config)?;
    let config = &fitted.config;
    // Before anything is opened: a port in use must not touch the data.
    let sse = bind("sse", &config.sse.listen)?;
    let web = bind("web", &config.web.listen)?;
    let running = Running::start(NodeConfig { accept_lost_mark, ..membership::node_config(loaded)? })?;
    let above = Above { node: running.node(), fatal: running.fatal() };
    let served = actix_web::rt::System::new().block_on(house(&fitted, above, sse, web, streams));
    let stopped = running.stop().context("the node did not stop cleanly");
    served.and(stopped)
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
struct RunningNode {
    access: Access,
    door: Arc<Door>,
    socketio: Arc<socketio::Door>,
    websocket: Arc<websocket::Door>,
    services: Services,
    /// What other nodes reach the clients by, as long as the house stands.
    desk: Arc<CallHandler>,
    admin: Arc<Admin>,
    registry: Owned<Registry>,
    /// Streams and consumers of other nodes, as long as the house stands.
    _relay: Owned<Relay>,
    stop: CancellationToken,
    /// No connection is kept for another request any more.
    stopping: CancellationToken,
    servers: Vec<ServerHandle>,
    listeners: Vec<Arc<ListenerLimits>>,
}

/// What the house stands on.
struct Above {
    node: Node,
    /// Why the node must not go on, once that is known.
    fatal: watch::Receiver<Option<String>>,
}

async fn house(
    fitted: &Fitted,
    above: Above,
    sse: Option<TcpListener>,
    web: Option<TcpListener>,
    streams: &StandardStreams,
) -> anyhow::Result<()> {
    let Above { node, mut fatal } = above;
    let config = &fitted.config;
    let stop = CancellationToken::new();
    let metrics = Metrics::default();
    let proposer =
        Proposer::new((node.proposals().clone(), node.disk().clone()), parts::proposer(config), metrics.clone());
    actix_web::rt::spawn(proposer.clone().watch_disk(stop.clone()));
    let feed = Feed::new(node.state().clone());
    let (running_feed, feed_stop) = (Arc::clone(&feed), stop.clone());
    std::thread::Builder::new().name("feed".to_owned()).spawn(move || running_feed.run(&feed_stop))?;
    let bus = Bus::new(node.clone(), feed, proposer, metrics);
    let actors = &bus.metrics().actors;
    let registry = Owned::start(actors, Registry::new(&bus));
    let relay = Owned::start(actors, Relay::new(&bus, registry.addr().clone()));
    let access = Access::new(bus.clone(), registry.addr().clone(), relay.addr().clone(), parts::enabled(config));
    let services = Services::new(&bus, parts::roll(config), parts::calls(config));
    let desk = CallHandler::new(services.clone());
    let socketio = socketio::Door::new(&services, access.clone(), parts::socketio(config));
    let websocket = websocket::Door::new(&services, access.clone(), parts::websocket(config));
    let admin = Admin::new(services.clone(), relay.addr().clone(), parts::admin(config));
    let doors = socketio.live().map(|live| (socketio::NAME, live)).into_iter();
    desk.set_doors(doors.chain([(keys::NAME, admin.live())]).collect());
    node.messages().set_handler(Arc::new(Mailbox { relay: relay.addr().clone(), desk: Arc::downgrade(&desk) }));
    actix_web::rt::spawn(services.roll.clone().run(stop.clone()));
    actix_web::rt::spawn(services.router.clone().watch_deadlines(stop.clone()));
    actix_web::rt::spawn(Announcer::new(bus.clone(), services.clients.clone()).run(stop.clone()));
    let door = Door::new(access.clone(), parts::sse(config));
    let mut house = RunningNode {
        access,
        door,
        socketio,
        websocket,
        services,
        desk,
        admin,
        registry,
        _relay: relay,
        stop,
        stopping: CancellationToken::new(),
        servers: Vec::new(),
        listeners: Vec::new(),
    };
    let mut lines = Vec::new();
    if let Some(listener) = sse {
        lines.push(("sse", listener.local_addr()?));
        house.serve_sse(config, listener)?;
    }
    if let Some(listener) = web {
        lines.push(("web", listener.local_addr()?));
        house.serve_web(fitted, listener)?;
    }
    let (registry, cluster, stop) = (house.registry.addr().clone(), config.cluster.clone(), house.stop.clone());
    let clients = house.services.clients.clone();
    actix_web::rt::spawn(isolation::watch(node.consensus().clone(), registry, clients, cluster, stop));
    // Before anybody is told that the node is there: from then on a stop must be a clean one.
    let signals = Signals::catch().context("signals")?;
    announce(streams, &lines);
    let lives = async {
        if config.peer.listen.addr().is_some() && node.consensus().ready().is_err() {
            tracing::info!("waiting for the other nodes");
        }
        while node.consensus().ready().is_err() {
            actix_web::rt::time::sleep(READY_LOOK).await;
        }
        declare(&node, &config.book.namespaces).await?;
        tracing::info!("ready");
        // The last line: scripts wait for it.
        streams.announce("ready");
        std::future::pending::<anyhow::Result<()>>().await
    };
    let ended = tokio::select! {
        () = signals.stop() => Ok(()),
        failed = lives => failed,
        _ = wait_until(&mut fatal, Option::is_some) => {
            let why = fatal.borrow().clone();
            Err(anyhow::anyhow!(why.unwrap_or_default()))
        }
    };
    tracing::info!("stopping");
    house.drain(&node, config, &signals, ended.is_ok()).await;
    ended
}

/// Creates the namespaces that the configuration lists and that are not there yet.
async fn declare(node: &Node, namespaces: &Namespaces) -> anyhow::Result<()> {
    let Namespaces::Listed(names) = namespaces else { return Ok(()) };
    for name in names.iter().filter(|name| node.state().namespace(name).is_none()) {
        let create = NamespaceCreate { name: name.clone(), retention: Retention::default() };
        match node.proposals().command(Command::NamespaceCreate(create)).await {
            Ok(_) | Err(Refusal::NamespaceExists(_)) => {}
            Err(refusal) => anyhow::bail!("namespace {name} cannot be created: {refusal}"),
        }
    }
    Ok(())
}

impl RunningNode {
    fn serve_sse(&mut self, config: &Config, listener: TcpListener) -> anyhow::Result<()> {
        let workers = match config.threads.workers {
            // One core is left to raft, the log and the settler.
            0 => std::thread::available_parallelism().map_or(1, |cores| cores.get().saturating_sub(1).max(1)),
            workers => workers,
        };
        let door = Arc::clone(&self.door);
        let refuses = Arc::clone(&self.door);
        let terms = parts::log_listener(config, Arc::new(move |fault| refuses.refuse(fault)));
        let application = move || App::new().configure(|services| sse::mount(&door, services));
        let server = self.listen(listener, workers, terms, application)?;
        self.servers.push(server.handle());
        actix_web::rt::spawn(server);
        Ok(())
    }

    fn serve_web(&mut self, fitted: &Fitted, listener: TcpListener) -> anyhow::Result<()> {
        let (admin, socketio) = (Arc::clone(&self.admin), Arc::clone(&self.socketio));
        let websocket = Arc::clone(&self.websocket);
        let workers = match fitted.config.threads.web {
            // A request between two services of one thread wakes no other.
            0 => std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).max(1)),
            workers => workers,
        };
        let node = self.services.bus.node().clone();
        let application = move || {
            // Runs on each of the threads. The services that they talk to may be connected to other nodes.
            node.messages().add_this_thread();
            let app = App::new().configure(|services| socketio::mount(&socketio, services));
            app.configure(|services| websocket::mount(&websocket, services)).service(
                web::scope("")
                    .wrap(actix_web::middleware::from_fn(same_origin::require))
                    .wrap(actix_web::middleware::from_fn(ensure))
                    .wrap(actix_web::middleware::from_fn(complete))
                    .wrap(actix_web::middleware::from_fn(log_request))
                    .configure(|services| admin::mount(&admin, services)),
            )
        };
        let terms = parts::web_listener(fitted, Arc::new(admin::refuse));
        let server = self.listen(listener, workers, terms, application)?;
        self.servers.push(server.handle());
        actix_web::rt::spawn(server);
        Ok(())
    }

    fn listen<I, S, B>(
        &mut self,
        listener: TcpListener,
        workers: usize,
        terms: ListenerSettings,
        application: impl Fn() -> I + Send + Clone + 'static,
    ) -> anyhow::Result<Server>
    where
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig, Error: Into<Error>, InitError: Debug, Service: 'static>
            + 'static,
        S::Response: Into<Response<B>> + 'static,
        B: MessageBody + 'static,
    {
        let builder = Server::build()
            .workers(workers)
            .backlog(4096)
            // The listener counts for itself, so that whoever finds no room is told.
            .max_concurrent_connections(usize::MAX)
            .shutdown_timeout(DRAIN.as_secs())
            .disable_signals();
        let rules = ListenerLimits::new(terms, self.services.bus.metrics().clone());
        self.listeners.push(Arc::clone(&rules));
        Ok(server::listen(builder, listener, rules, self.stopping.clone(), application)?)
    }

    /// Not ready any more, streams end with a hint, requests in flight are answered, then silence. Whoever says twice
    /// that the node is to stop waits for no client, and neither does a node that must not go on: what is in flight
    /// there has no answer to wait for.
    async fn drain(self, node: &Node, config: &Config, signals: &Signals, may_go_on: bool) {
        self.admin.drain();
        // First: writes on their way go through the next leader, and nobody waits for an election.
        node.membership().step_down().await;
        self.access.drain();
        self.socketio.drain();
        self.websocket.drain();
        self.services.clients.close_all(CloseReason::Draining);
        if self.registry.addr().send(Drain).await.is_err() {
            tracing::error!("the registry had stopped before");
        }
        tracing::info!("streams were told to end");
        // Give the streams a moment to write their last line before connections are closed.
        actix_web::rt::time::sleep(Duration::from_millis(100)).await;
        // Their clients are off the roll before the node is, so that others take over at once.
        self.services.roll.take_off().await;
        self.stopping.cancel();
        let graceful = may_go_on
            && tokio::select! {
                biased;
                () = signals.stop_now() => {
                    tracing::warn!("told to stop again: connections are closed at once");
                    false
                }
                () = self.ended(&config.websocket) => true,
            };
        self.farewells_are_read().await;
        futures_util::future::join_all(self.servers.iter().map(|server| server.stop(graceful))).await;
        tracing::info!("listeners are closed");
        // Or the node would have what has the node, and its stores would never be closed.
        drop(self.desk);
        self.stop.cancel();
    }

    /// Waits a moment for connections that have been told all: a server that is stopped while it has one looks again a
    /// second later only.
    async fn farewells_are_read(&self) {
        let until = clock::now() + FAREWELLS;
        while clock::now() < until && self.listeners.iter().any(|rules| rules.open() > 0) {
            actix_web::rt::time::sleep(READY_LOOK).await;
        }
    }

    /// Waits until clients of services have left and their requests, those over REST too, have an end: as long as the
    /// settings of their doors promise.
    async fn ended(&self, websocket: &settings::WebSocket) {
        let began = clock::now();
        let long = DRAIN.max(websocket.drain_timeout.saturating_add(LAST_FRAMES));
        loop {
            let time = clock::now().saturating_duration_since(began);
            let leaving = self.socketio.connections() > 0 && time < DRAIN;
            let busy = self.websocket.connections() > 0 || self.services.router.in_flight() > 0;
            let waits = leaving || (busy && time < long);
            if !waits {
                return;
            }
            actix_web::rt::time::sleep(READY_LOOK).await;
        }
    }
}

/// One line for each door.
fn announce(streams: &StandardStreams, lines: &[(&str, SocketAddr)]) {
    for (name, address) in lines {
        tracing::info!(door = name, url = %format_args!("http://{address}/"), "listening");
        streams.announce(&format!("{name:<5} http://{address}/"));
    }
}
