//! `rollbook serve`: store -> node -> bus -> doors -> admin, and back again on a signal.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, middleware, web};
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
use super::sockets::{self, WEB};
use super::{isolation, membership, parts};
use crate::admin::answers::complete;
use crate::admin::consistency::ensure;
use crate::admin::request_log::log_request;
use crate::admin::{self, Admin, keys, same_origin};
use crate::app::config::layers::Loaded;
use crate::app::config::values::Namespaces;
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
use crate::doors;
use crate::doors::door::{Build, Context, Door};
use crate::net::http::settings::HttpSettings;
use crate::net::listener::listeners::Listeners;
use crate::net::listener::settings::ListenerSettings;

/// How long open streams, and requests to HTTP listeners, have to end after the signal.
const DRAIN: Duration = Duration::from_secs(5);
/// How long connections that end are waited for before the listeners are closed.
const LAST_ANSWERS: Duration = Duration::from_millis(300);
/// How often it is looked whether the cluster has a leader.
const READY_LOOK: Duration = Duration::from_millis(10);

/// Doors that are not in the list of [`crate::doors`], for a program that builds its own node around this library.
#[derive(Debug, Default)]
pub struct MoreDoors {
    /// Their sockets, by the names of the doors.
    pub sockets: Vec<(&'static str, TcpListener)>,
    /// How each is built.
    pub build: Vec<Build>,
}

/// Runs a node until it is told to stop. With `accept_lost_mark` it takes its raft log as it is.
///
/// # Errors
/// The node cannot start, or cannot bring everything to the disk at its end.
pub fn serve(loaded: &Loaded, accept_lost_mark: bool, more: MoreDoors) -> anyhow::Result<()> {
    let streams = log::start(&loaded.config)?;
    let served = run(loaded, accept_lost_mark, more, &streams);
    streams.end();
    served
}

fn run(loaded: &Loaded, accept_lost_mark: bool, more: MoreDoors, streams: &StandardStreams) -> anyhow::Result<()> {
    let fitted = descriptors::fit(&loaded.config)?;
    let config = &fitted.config;
    // Before anything is opened: a port in use must not touch the data.
    let bound = [sockets::bind(config)?, more.sockets].into_iter().flatten().collect();
    let running = Running::start(NodeConfig { accept_lost_mark, ..membership::node_config(loaded)? })?;
    let below = Below { node: running.node(), fatal: running.fatal(), bound, more: more.build };
    let served = actix_web::rt::System::new().block_on(house(&fitted, below, streams));
    let stopped = running.stop().context("the node did not stop cleanly");
    served.and(stopped)
}

/// Everything above the node.
struct RunningNode {
    access: Access,
    doors: Vec<Arc<dyn Door>>,
    services: Services,
    /// What other nodes reach the clients by, as long as the node runs.
    call_handler: Arc<CallHandler>,
    admin: Arc<Admin>,
    registry: Owned<Registry>,
    /// Streams and consumers of other nodes, as long as the node runs.
    _relay: Owned<Relay>,
    stop: CancellationToken,
    listeners: Listeners,
}

/// What the doors and the bus stand on.
struct Below {
    node: Node,
    /// Why the node must not go on, once that is known.
    fatal: watch::Receiver<Option<String>>,
    bound: Vec<(&'static str, TcpListener)>,
    more: Vec<Build>,
}

async fn house(fitted: &Fitted, below: Below, streams: &StandardStreams) -> anyhow::Result<()> {
    let Below { node, mut fatal, bound, more } = below;
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
    let call_handler = CallHandler::new(services.clone());
    let message_bytes_max = config.doors.all().iter().map(|(_, door)| door.message_bytes_max().1).max();
    let message_bytes_max = message_bytes_max.unwrap_or_default();
    let context = Context { access: access.clone(), services: services.clone(), message_bytes_max };
    let mut doors = doors::all(&config.doors, &context);
    doors.extend(more.iter().map(|build| build(&context)));
    let admin = Admin::new(services.clone(), relay.addr().clone(), parts::admin(config, &doors));
    let live = doors.iter().filter_map(|door| Some((door.name(), door.live()?)));
    call_handler.set_doors(live.chain([(keys::NAME, admin.live())]).collect());
    node.messages()
        .set_handler(Arc::new(Mailbox { relay: relay.addr().clone(), call_handler: Arc::downgrade(&call_handler) }));
    actix_web::rt::spawn(services.roll.clone().run(stop.clone()));
    actix_web::rt::spawn(services.router.clone().watch_deadlines(stop.clone()));
    actix_web::rt::spawn(Announcer::new(bus.clone(), services.clients.clone()).run(stop.clone()));
    let of_node = (parts::hosts(config), bus.metrics().clone());
    let listeners = Listeners::new(bound, of_node, (parts::threads(config), fitted.spare), DRAIN);
    let mut running =
        RunningNode { access, doors, services, call_handler, admin, registry, _relay: relay, stop, listeners };
    running.open(fitted)?;
    let (registry, cluster, stop) = (running.registry.addr().clone(), config.cluster.clone(), running.stop.clone());
    let clients = running.services.clients.clone();
    actix_web::rt::spawn(isolation::watch(node.consensus().clone(), registry, clients, cluster, stop));
    // Before anybody is told that the node is there: from then on a stop must be a clean one.
    let signals = Signals::catch().context("signals")?;
    running.announce(streams);
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
    running.drain(&node, &signals, ended.is_ok()).await;
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
    /// Opens the listeners of the doors, then the web listener, which the other doors share with REST.
    fn open(&mut self, fitted: &Fitted) -> anyhow::Result<()> {
        for door in &self.doors {
            Arc::clone(door).listen(&mut self.listeners)?;
        }
        let (doors, admin, node) = (self.doors.clone(), Arc::clone(&self.admin), self.services.bus.node().clone());
        let application = move || {
            // Runs on each of the threads. The services that they talk to may be connected to other nodes.
            node.messages().add_this_thread();
            let routes = |services: &mut web::ServiceConfig| {
                doors.iter().for_each(|door| Arc::clone(door).routes(services));
            };
            App::new().configure(routes).service(
                web::scope("")
                    .wrap(middleware::from_fn(same_origin::require))
                    .wrap(middleware::from_fn(ensure))
                    .wrap(middleware::from_fn(complete))
                    .wrap(middleware::from_fn(log_request))
                    .configure(|services| admin::mount(&admin, services)),
            )
        };
        let web = &fitted.config.web;
        let settings = ListenerSettings {
            name: WEB,
            connections_max: descriptors::web_connections_max(fitted),
            proxy_protocol_from: web.proxy_protocol_from.clone(),
        };
        let http = HttpSettings {
            hosts: self.listeners.hosts().clone(),
            idle_timeout: web.idle_timeout,
            websockets: true,
            refuse: Arc::new(admin::refuse),
        };
        Ok(self.listeners.http(parts::web_threads(&fitted.config), (settings, http), application)?)
    }

    /// One line for each listener.
    fn announce(&self, streams: &StandardStreams) {
        for (name, url) in self.listeners.urls() {
            tracing::info!(door = name, url, "listening");
            streams.announce(&format!("{name:<5} {url}"));
        }
    }

    /// Not ready any more, streams end with a hint, requests in flight are answered, then silence. Whoever says twice
    /// that the node is to stop waits for no client, and neither does a node that must not go on: what is in flight
    /// there has no answer to wait for.
    async fn drain(self, node: &Node, signals: &Signals, may_go_on: bool) {
        self.admin.drain();
        // First: writes on their way go through the next leader, and nobody waits for an election.
        node.membership().step_down().await;
        self.access.drain();
        self.doors.iter().for_each(|door| door.drain());
        self.services.clients.close_all(CloseReason::Draining);
        if self.registry.addr().send(Drain).await.is_err() {
            tracing::error!("the registry had stopped before");
        }
        tracing::info!("streams were told to end");
        // Give the streams a moment to write their last line before connections are closed.
        actix_web::rt::time::sleep(Duration::from_millis(100)).await;
        // Their clients are off the roll before the node is, so that others take over at once.
        self.services.roll.remove_leavers().await;
        self.listeners.drain();
        let graceful = may_go_on
            && tokio::select! {
                biased;
                () = signals.stop_now() => {
                    tracing::warn!("told to stop again: connections are closed at once");
                    false
                }
                () = self.clients_have_left() => true,
            };
        self.last_answers_are_read().await;
        self.listeners.stop(graceful).await;
        tracing::info!("listeners are closed");
        // Or the node would have what has the node, and its stores would never be closed.
        drop(self.call_handler);
        self.stop.cancel();
    }

    /// Waits a moment for connections that have been told all: a server that is stopped while it has one looks again a
    /// second later only.
    async fn last_answers_are_read(&self) {
        let until = clock::now() + LAST_ANSWERS;
        while clock::now() < until && self.listeners.open() > 0 {
            actix_web::rt::time::sleep(READY_LOOK).await;
        }
    }

    /// Waits until clients of services have left and their requests, those over REST too, have an end: as long as the
    /// settings of their doors promise.
    async fn clients_have_left(&self) {
        let began = clock::now();
        let longest = self.doors.iter().map(|door| door.drain_timeout()).fold(DRAIN, Duration::max);
        loop {
            let time = clock::now().saturating_duration_since(began);
            let connected = self.doors.iter().any(|door| door.connections() > 0 && time < door.drain_timeout());
            let in_flight = self.services.router.in_flight() > 0 && time < longest;
            if !connected && !in_flight {
                return;
            }
            actix_web::rt::time::sleep(READY_LOOK).await;
        }
    }
}
