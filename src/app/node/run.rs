//! `rollbook serve`: starts store, node, bus, doors and administration in this order, and stops them in reverse.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::{App, middleware, web};
use anyhow::Context as _;
use rollbook_cluster::live::Live;
use rollbook_cluster::node::Node;
use rollbook_cluster::running::{NodeConfig, Running};
use rollbook_cluster::wait::wait_until;
use rollbook_core::command::{Command, NamespaceCreate};
use rollbook_core::error::Refusal;
use rollbook_core::namespace::Retention;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::descriptors::{self, FittedConfig};
use super::signals::Signals;
use super::sockets::{self, WEB};
use super::start_options::StartOptions;
use super::{bootstrap, isolation, membership, parts};
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
use crate::bus::docks::fleet::{self, AnswerForDocks};
use crate::bus::docks::hub::DockHub;
use crate::bus::guard::Guard;
use crate::bus::handle::Bus;
use crate::bus::live_peers::{self, LivePeers};
use crate::bus::read::feed::Feed;
use crate::bus::relay::Relay;
use crate::bus::roll::announcer::Announcer;
use crate::bus::roll::services::Services;
use crate::bus::schedules::client::ScheduleClient;
use crate::bus::schedules::runner;
use crate::bus::security::authority::Authority;
use crate::bus::tickets::{self, AnswerForTickets, AskForTickets};
use crate::bus::write::proposer::Proposer;
use crate::bus::xbus::jobs::engine::Engine;
use crate::doors;
use crate::doors::door::{Build, Context, Door};
use crate::net::http::settings::HttpSettings;
use crate::net::listener::connects::Connects;
use crate::net::listener::listeners::{Listeners, Shared};
use crate::net::listener::settings::ListenerSettings;
use crate::net::tls::certificates::Certificates;
use crate::net::tls::reload;

/// How long streams and HTTP requests have to end after the signal to stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the node waits for connections with a last answer before it closes the listeners.
const LAST_ANSWERS_MAX: Duration = Duration::from_millis(300);
/// How often the node checks whether the cluster has a leader, and whether clients have disconnected.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Doors that are not in the list of [`crate::doors`], for a program that builds its own node around this library.
#[derive(Debug, Default)]
pub struct ExtraDoors {
    /// The sockets of the doors, by the names of the doors.
    pub sockets: Vec<(&'static str, TcpListener)>,
    /// The functions that build the doors.
    pub build: Vec<Build>,
}

/// Runs a node until a signal stops it.
///
/// # Errors
/// The node cannot start, or cannot write everything to the disk at its end.
pub fn serve(loaded: &Loaded, options: StartOptions, more: ExtraDoors) -> anyhow::Result<()> {
    let streams = log::start(&loaded.config)?;
    let served = run(loaded, options, more, &streams);
    streams.end();
    served
}

fn run(loaded: &Loaded, options: StartOptions, more: ExtraDoors, streams: &StandardStreams) -> anyhow::Result<()> {
    let StartOptions { accept_lost_mark, new_root_token } = options;
    let fitted = descriptors::fit(&loaded.config)?;
    let config = &fitted.config;
    // The sockets are bound before any file is opened, so that a port in use leaves the data untouched.
    let bound = [sockets::bind(config)?, more.sockets].into_iter().flatten().collect();
    let certificates = config.tls.has_certificate().then(|| Certificates::load(&config.tls)).transpose()?;
    let running = Running::start(NodeConfig { accept_lost_mark, ..membership::node_config(loaded)? })?;
    let node_parts = NodeParts {
        node: running.node(),
        fatal: running.fatal(),
        bound,
        certificates,
        more: more.build,
        new_root_token,
    };
    let served = actix_web::rt::System::new().block_on(run_floors(&fitted, node_parts, streams));
    let stopped = running.stop().context("the node did not stop cleanly");
    served.and(stopped)
}

/// Everything above the node.
struct RunningNode {
    access: Access,
    doors: Vec<Arc<dyn Door>>,
    services: Services,
    /// Handles the calls of other nodes to the clients of this node. Lives as long as the node runs.
    call_handler: Arc<CallHandler>,
    admin: Arc<Admin>,
    registry: Owned<Registry>,
    /// Serves streams and consumers of other nodes. Lives as long as the node runs.
    _relay: Owned<Relay>,
    stop: CancellationToken,
    listeners: Listeners,
}

/// The parts that the bus and the doors are built on.
struct NodeParts {
    node: Node,
    /// The reason why the node must stop, when there is one.
    fatal: watch::Receiver<Option<String>>,
    bound: Vec<(&'static str, TcpListener)>,
    /// The certificate of the listeners.
    certificates: Option<Arc<Certificates>>,
    more: Vec<Build>,
    /// Make another root token.
    new_root_token: bool,
}

async fn run_floors(fitted: &FittedConfig, node_parts: NodeParts, streams: &StandardStreams) -> anyhow::Result<()> {
    let NodeParts { node, mut fatal, bound, certificates, more, new_root_token } = node_parts;
    let config = &fitted.config;
    let stop = CancellationToken::new();
    let metrics = Metrics::default();
    let proposer =
        Proposer::new((node.proposals().clone(), node.disk().clone()), parts::proposer(config), metrics.clone());
    actix_web::rt::spawn(proposer.clone().watch_disk(stop.clone()));
    let feed = Feed::new(node.state().clone());
    let (running_feed, feed_stop) = (Arc::clone(&feed), stop.clone());
    std::thread::Builder::new().name("feed".to_owned()).spawn(move || running_feed.run(&feed_stop))?;
    let authority = Authority::new(node.clone(), parts::security(config)?, &metrics)?;
    actix_web::rt::spawn(authority.clone().run(stop.clone()));
    let bus = Bus::new((node.clone(), authority), feed, proposer, metrics);
    let actors = &bus.metrics().actors;
    let registry = Owned::start(actors, Registry::new(&bus));
    let relay = Owned::start(actors, Relay::new(&bus, registry.addr().clone()));
    let access = Access::new(bus.clone(), registry.addr().clone(), relay.addr().clone(), parts::enabled(config));
    let services = Services::new(&bus, parts::roll(config), parts::calls(config));
    let call_handler = CallHandler::new(services.clone());
    let message_bytes_max = config.doors.all().iter().map(|(_, door)| door.message_bytes_max().1).max();
    let message_bytes_max = message_bytes_max.unwrap_or_default();
    let xbus = Engine::new(bus.clone());
    actix_web::rt::spawn(xbus.clone().run(stop.clone()));
    let docks = DockHub::new(
        bus.clone(),
        services.peers.clone(),
        (config.doors.hms.build_limits(), config.doors.hms.record_config()),
    );
    actix_web::rt::spawn(docks.clone().run(stop.clone()));
    actix_web::rt::spawn(docks.clone().tell_registered(services.roll.registered_processes(), stop.clone()));
    actix_web::rt::spawn(runner::run(access.clone(), stop.clone()));
    let context = Context {
        access: access.clone(),
        services: services.clone(),
        xbus: xbus.clone(),
        docks: docks.clone(),
        message_bytes_max,
    };
    let mut doors = doors::all(&config.doors, &context);
    doors.extend(more.iter().map(|build| build(&context)));
    let rooms = (services.clone(), xbus, docks.clone(), ScheduleClient::new(access.clone()));
    let admin = Admin::new(rooms, relay.addr().clone(), parts::admin(config, &doors));
    let live = doors.iter().filter_map(|door| Some((door.name(), door.live()?)));
    let live_peers = LivePeers::new(bus.live_subjects().clone(), services.peers.clone(), bus.metrics().clone());
    actix_web::rt::spawn(Arc::clone(&live_peers).run(stop.clone()));
    let answer_tickets: Arc<dyn Live> = Arc::new(AnswerForTickets(bus.authority().clone()));
    let answer_for_docks: Arc<dyn Live> = Arc::new(AnswerForDocks(docks.fleet().here().clone()));
    let rooms: [(_, Arc<dyn Live>); 4] = [
        (keys::NAME, admin.live()),
        (tickets::NAME, answer_tickets),
        (live_peers::NAME, live_peers),
        (fleet::NAME, answer_for_docks),
    ];
    call_handler.set_doors(live.chain(rooms).collect());
    bus.authority().set_ticket_peers(Arc::new(AskForTickets(services.peers.clone())));
    node.messages()
        .set_handler(Arc::new(Mailbox { relay: relay.addr().clone(), call_handler: Arc::downgrade(&call_handler) }));
    actix_web::rt::spawn(services.roll.clone().run(stop.clone()));
    actix_web::rt::spawn(services.router.clone().watch_deadlines(stop.clone()));
    actix_web::rt::spawn(Guard::new(services.clone()).run(stop.clone()));
    actix_web::rt::spawn(Announcer::new(bus.clone(), services.clients.clone()).run(stop.clone()));
    let (hosts, metrics, connects) = (parts::hosts(config), bus.metrics().clone(), Connects::new(&config.listeners));
    metrics.insecure.set(config.node.insecure.into());
    let shared = Shared { hosts, metrics: metrics.clone(), certificates: certificates.clone(), connects };
    let listeners = Listeners::new(bound, shared, parts::threads(config), DRAIN);
    let mut running =
        RunningNode { access, doors, services, call_handler, admin, registry, _relay: relay, stop, listeners };
    running.open(fitted)?;
    let (registry, cluster, stop) = (running.registry.addr().clone(), config.cluster.clone(), running.stop.clone());
    let clients = running.services.clients.clone();
    actix_web::rt::spawn(isolation::watch(node.consensus().clone(), registry, clients, cluster, stop));
    // From the announcement on, a signal has to stop the node cleanly.
    let signals = Signals::catch().context("signals")?;
    if let Some(certificates) = certificates {
        reload::warn_of_end(&certificates);
        let stop = running.stop.clone();
        actix_web::rt::spawn(reload::watch(certificates, signals.hangups(), metrics, stop));
    }
    running.announce(streams, config.node.insecure);
    let until_failure = async {
        if config.peer.listen.addr().is_some() && node.consensus().ready().is_err() {
            tracing::info!("waiting for the other nodes, until a majority of the cluster answers");
        }
        while node.consensus().ready().is_err() {
            actix_web::rt::time::sleep(POLL_INTERVAL).await;
        }
        create_namespaces(&node, &config.book.namespaces).await?;
        tracing::info!("ready");
        while !running.services.bus.authority().is_caught_up() {
            actix_web::rt::time::sleep(POLL_INTERVAL).await;
        }
        bootstrap::run(&node, (&config.node.data, new_root_token), streams, &running.stop).await?;
        // Scripts wait for this line, which is the last.
        streams.announce("ready");
        std::future::pending::<anyhow::Result<()>>().await
    };
    let ended = tokio::select! {
        () = signals.stop() => Ok(()),
        failed = until_failure => failed,
        _ = wait_until(&mut fatal, Option::is_some) => {
            let reason = fatal.borrow().clone();
            Err(anyhow::anyhow!(reason.unwrap_or_default()))
        }
    };
    tracing::info!("stopping");
    running.drain(&node, &signals, ended.is_ok()).await;
    ended
}

/// Creates the configured namespaces that do not exist yet.
async fn create_namespaces(node: &Node, namespaces: &Namespaces) -> anyhow::Result<()> {
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
    /// Opens the listeners of the doors, and then the web listener, which the other doors share with REST.
    fn open(&mut self, fitted: &FittedConfig) -> anyhow::Result<()> {
        for door in &self.doors {
            Arc::clone(door).listen(&mut self.listeners)?;
        }
        let (doors, admin, node) = (self.doors.clone(), Arc::clone(&self.admin), self.services.bus.node().clone());
        let application = move || {
            // This closure runs on each thread. The services of a thread may be connected to other nodes.
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
            tls: web.listener_tls(),
            client_ca: None,
            greeting: None,
        };
        let http = HttpSettings {
            hosts: self.listeners.hosts().clone(),
            idle_timeout: web.idle_timeout,
            websockets: true,
            refuse: Arc::new(admin::refuse),
        };
        self.listeners.http(parts::web_threads(&fitted.config), (settings, http), application)?;
        if let Some(name) = self.listeners.unserved().next() {
            anyhow::bail!("no door serves the socket {name}: its clients would wait for ever");
        }
        Ok(())
    }

    /// Announces each listener in one line.
    fn announce(&self, streams: &StandardStreams, is_insecure: bool) {
        if is_insecure {
            tracing::warn!("--insecure: whoever reaches a listener may use it, and listeners without TLS can be read");
            streams.announce("warning: --insecure: whoever reaches these listeners may use them");
        }
        for (name, url) in self.listeners.urls() {
            tracing::info!(door = name, url, "listening");
            streams.announce(&format!("{name:<5} {url}"));
        }
    }

    /// Stops the node in order: the node is not ready any more, streams end with a hint, requests in flight are
    /// answered, and the listeners close. After a second signal the node waits for no client. An unhealthy node does
    /// not wait either, because its requests would get no answer.
    async fn drain(self, node: &Node, signals: &Signals, is_healthy: bool) {
        self.admin.drain();
        // The leader steps down first, so that pending writes go to the next leader and nobody waits for an election.
        node.membership().step_down().await;
        self.access.drain();
        self.doors.iter().for_each(|door| door.drain());
        self.services.clients.close_all(CloseReason::Draining);
        if self.registry.addr().send(Drain).await.is_err() {
            tracing::error!("streams and consumers could not be told to end: the registry has stopped");
        }
        tracing::info!("streams were told to end");
        // The streams get a moment to send their last line before connections are closed.
        actix_web::rt::time::sleep(Duration::from_millis(100)).await;
        // The clients leave the roll before the node does, so that others take over at once.
        self.services.roll.remove_leavers().await;
        self.listeners.drain();
        let graceful = is_healthy
            && tokio::select! {
                biased;
                () = signals.stop_now() => {
                    tracing::warn!("told to stop again: connections are closed at once");
                    false
                }
                () = self.wait_for_clients() => true,
            };
        self.wait_for_last_answers().await;
        self.listeners.stop(graceful).await;
        tracing::info!("listeners are closed");
        // The handler holds the node. A handler that lives on would keep the stores open.
        drop(self.call_handler);
        self.stop.cancel();
    }

    /// Waits a moment until connections have sent their last answer. A server that is stopped earlier checks such a
    /// connection again only after a second.
    async fn wait_for_last_answers(&self) {
        let until = clock::now() + LAST_ANSWERS_MAX;
        while clock::now() < until && self.listeners.open() > 0 {
            actix_web::rt::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Waits until clients have disconnected and their requests, also those over REST, have an outcome. The doors say
    /// how long the node waits.
    async fn wait_for_clients(&self) {
        let began = clock::now();
        let longest = self.doors.iter().map(|door| door.drain_timeout()).fold(DRAIN, Duration::max);
        loop {
            let time = clock::now().saturating_duration_since(began);
            let connected = self.doors.iter().any(|door| door.connections() > 0 && time < door.drain_timeout());
            let in_flight = self.services.router.in_flight() > 0 && time < longest;
            if !connected && !in_flight {
                return;
            }
            actix_web::rt::time::sleep(POLL_INTERVAL).await;
        }
    }
}
