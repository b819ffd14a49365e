//! The bus of one node and of two, without doors: which actors live, and which are left behind when members come and
//! go.

mod members;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::{Actor, AsyncContext as _, Context, Handler, MessageResult, Recipient};
use futures_util::future::join_all;
use rollbook_cluster::running::{NodeConfig, Running};
use rollbook_core::command::{Command, ConsumerDelete, ConsumerSet};
use rollbook_core::error::Refusal;
use rollbook_core::event::Event;
use rollbook_core::level::FeatureLevel;
use rollbook_core::node::Owner;
use rollbook_core::subjects::pattern::Pattern;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::access::Access;
use super::access::enabled::Enabled;
use super::call::types::RouterConfig;
use super::call_handler::{CallHandler, Mailbox};
use super::consume::registry::{EndConsumers, EndStreams, ListMembers, Registry};
use super::delivery::acknowledgement::Acknowledged;
use super::delivery::filter::HeaderFilter;
use super::delivery::messages::{ConsumerSpec, Deliver, EndReason, Join, StreamCommand, WriteResult};
use super::delivery::policy::DeliveryPolicy;
use super::delivery::window::Departure;
use super::handle::Bus;
use super::read::feed::Feed;
use super::read::pieces::{Piece, split};
use super::relay::{JoinElsewhere, Relay};
use super::roll::roll::RollConfig;
use super::roll::services::Services;
use super::security::authority::{Authority, SecurityConfig};
use super::security::identity::Identity;
use super::subscribe::membership::Membership;
use super::subscribe::request::{Durable, Start, Subscribe};
use super::subscribe::subscription::Subscription;
use super::write::draft::{self, Parsed, Publish};
use super::write::proposer::{self, Proposer};
use crate::base::actors::{Belongs, Kind, Owned, must_tell};
use crate::base::metrics::Metrics;
use crate::net::byte_queue::Body;

/// Longest wait for something that must happen.
const SOON: Duration = Duration::from_secs(20);
const GROUP: &str = "g";

/// Longest time of a test. A longer test is stuck, perhaps on a lock, which no timer of its runtime would notice.
const TEST_MAX: Duration = Duration::from_secs(120);

/// Ends the process when the test that holds this does not end.
struct Watchdog(#[expect(dead_code, reason = "what counts is that it is dropped")] std::sync::mpsc::Sender<()>);

impl Watchdog {
    fn start() -> Self {
        let (held, ends) = std::sync::mpsc::channel();
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        std::thread::spawn(move || {
            if ends.recv_timeout(TEST_MAX) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                eprintln!("{test} is stuck after {TEST_MAX:?}; look at its threads with gdb");
                std::process::abort();
            }
        });
        Self(held)
    }
}

/// A node and its bus.
struct TestNode {
    bus: Bus,
    registry: Owned<Registry>,
    relay: Option<Owned<Relay>>,
    access: Access,
    call_handler: Arc<CallHandler>,
    running: Option<Running>,
    stop: CancellationToken,
    /// Removed when the node has stopped.
    data: Option<TempDir>,
    _watchdog: Watchdog,
}

impl TestNode {
    fn build(config: NodeConfig, data: TempDir) -> Self {
        let path = config.data.clone();
        // It brings a runtime of its own.
        let running = std::thread::spawn(move || Running::start(config).expect("a node")).join().expect("no panic");
        let (node, stop, metrics) = (running.node(), CancellationToken::new(), Metrics::default());
        let writes =
            proposer::Config { data: path, reserve_bytes: 0, pending_bytes_max: 1 << 20, receiving_bytes_max: 1 << 20 };
        let proposer = Proposer::new((node.proposals().clone(), node.disk().clone()), writes, metrics.clone());
        let feed = Feed::new(node.state().clone());
        let (running_feed, feed_stop) = (Arc::clone(&feed), stop.clone());
        std::thread::spawn(move || running_feed.run(&feed_stop));
        let authority = Authority::new(node.clone(), SecurityConfig::default(), &metrics).expect("an authority");
        let bus = Bus::new((node, authority), feed, proposer, metrics);
        let registry = Owned::start(&bus.metrics().actors, Registry::new(&bus));
        let relay = Owned::start(&bus.metrics().actors, Relay::new(&bus, registry.addr().clone()));
        let access = Access::new(bus.clone(), registry.addr().clone(), relay.addr().clone(), Enabled::Any);
        let access = access.of(Identity::everything("test"));
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        let roll =
            RollConfig { grace: second, heartbeat_timeout: minute, heartbeat_drop: minute, heartbeat_required: false };
        let calls = RouterConfig {
            timeout: second,
            timeout_max: minute,
            in_flight_max: 10,
            in_flight_bytes_max: 1 << 20,
            in_flight_per_instance: 10,
            strategies: Default::default(),
        };
        let call_handler = CallHandler::new(Services::new(&bus, roll, calls));
        Self {
            bus,
            registry,
            relay: Some(relay),
            access,
            call_handler,
            running: Some(running),
            stop,
            data: Some(data),
            _watchdog: Watchdog::start(),
        }
    }

    /// From now on other nodes get answers.
    fn listen(&self) {
        let relay = self.relay.as_ref().expect("a relay").addr().clone();
        self.bus
            .node()
            .messages()
            .set_handler(Arc::new(Mailbox { relay, call_handler: Arc::downgrade(&self.call_handler) }));
    }

    async fn ready(&self) {
        until("the node is ready", || self.bus.node().consensus().ready().is_ok()).await;
    }

    fn alive(&self, kind: Kind) -> i64 {
        self.bus.metrics().actors.alive(kind)
    }

    async fn publish(&self, count: usize) {
        let event = Event { subject: "app.x", payload: Some(b"1"), ..Event::default() };
        let frame = draft::frame("app", &vec![event; count], None).expect("a frame");
        let publish = Publish { namespace: "app".to_owned(), frame, single: None };
        self.access.publish(Parsed::Publish(publish)).await.expect("stored");
    }

    /// Opens a stream of a member of the group. The client acknowledges unless `policy` is `None`.
    async fn follow(&self, policy: Option<DeliveryPolicy>) -> Body {
        let durable = Durable { name: GROUP.to_owned(), group: true, member: None };
        let wanted = Subscribe {
            pattern: pattern(),
            start: Start::Oldest,
            manual: policy,
            consumer_id: None,
            durable: Some(durable),
            filter: HeaderFilter::default(),
            order_by: None,
            batch: None,
        };
        self.access.follow(wanted).await.expect("a stream").1
    }

    /// Adds a member without a stream. The member leaves when it is dropped.
    async fn join(&self, owner: Owner, number: u64, manual: bool) -> Result<Member, Refusal> {
        let here = owner == self.bus.node().owner();
        let (registry, relay) = (self.registry.addr(), self.relay.as_ref().expect("a relay").addr());
        let ctx = Context::<Subscription>::new();
        let (acknowledge, leave, finish) = match here {
            true => (registry.clone().recipient(), registry.clone().recipient(), registry.clone().recipient()),
            false => (relay.clone().recipient(), relay.clone().recipient(), relay.clone().recipient()),
        };
        let (namespace, consumer) = ("app".to_owned(), GROUP.to_owned());
        let place = Membership {
            namespace,
            consumer,
            member: number,
            manual,
            many: false,
            departure: Departure::Gone,
            acknowledge,
            leave,
            finish,
        };
        let join = join(number, manual, ctx.address().recipient(), ctx.address().recipient());
        let joined = match here {
            true => registry.send(join).await,
            false => relay.send(JoinElsewhere { owner, join }).await,
        };
        joined.expect("an actor that lives").map(|()| Member { _place: place, _ctx: ctx })
    }

    async fn members(&self) -> usize {
        let who = ListMembers { namespace: "app".to_owned(), consumer: GROUP.to_owned() };
        self.registry.addr().send(who).await.expect("a registry").len()
    }

    /// Stops the node: a process that ends while a store is open aborts.
    async fn end(mut self) {
        let (running, data) = (self.running.take().expect("it runs"), self.data.take());
        // Its actors go with it, and with them what they have of the node.
        drop(self);
        tokio::time::sleep(Duration::from_millis(50)).await;
        let stopped = tokio::task::spawn_blocking(move || running.stop()).await;
        stopped.expect("no panic").expect("a clean stop");
        drop(data);
    }

    /// Waits until every actor of a stream or member is gone.
    async fn deserted(&self) {
        let kinds = [Kind::Consumer, Kind::RemoteMember, Kind::Subscription];
        let counts = || kinds.map(|kind| self.alive(kind));
        until(&format!("{:?} of node {}", kinds, self.bus.node().id()), || counts() == [0; 3]).await;
        assert_eq!(self.bus.metrics().subscriptions.get(), 0, "those that others find by their id");
    }
}

impl Drop for TestNode {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(running) = self.running.take() {
            let data = self.data.take();
            // Of a test that failed: its runtime must not end on a thread of ours.
            std::thread::spawn(move || {
                drop(running);
                drop(data);
            });
        }
    }
}

struct Member {
    _place: Membership,
    _ctx: Context<Subscription>,
}

fn pattern() -> Pattern {
    Pattern::parse("app.x").expect("a pattern")
}

fn join(number: u64, manual: bool, deliver: Recipient<Deliver>, commands: Recipient<StreamCommand>) -> Join {
    let (name, filter) = (GROUP.to_owned(), HeaderFilter::default());
    let spec = ConsumerSpec { name, pattern: pattern(), group: true, manual, filter, order_by: None };
    let (consumer_id, policy) = (format!("c_{number}"), DeliveryPolicy::default());
    Join { spec, member: number, consumer_id, name: None, policy, deliver, commands }
}

async fn until(what: &str, mut there: impl FnMut() -> bool) {
    let wait = async {
        while !there() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}

fn config(id: u64, data: &TempDir, listener: Option<TcpListener>, founders: BTreeMap<u64, String>) -> NodeConfig {
    NodeConfig {
        id,
        data: data.path().join("data"),
        address: founders.get(&id).cloned().unwrap_or_else(|| "none".to_owned()),
        listener,
        founders,
        tls: None,
        timeout: Duration::from_secs(5),
        node_timeout: Duration::from_secs(5),
        heartbeat: Duration::from_millis(100),
        log_keep_bytes: 64 << 20,
        level: FeatureLevel::LATEST,
        accept_lost_mark: false,
    }
}

async fn alone() -> TestNode {
    let data = TempDir::with_prefix("rollbook-bus-").expect("a directory");
    let node = TestNode::build(config(1, &data, None, BTreeMap::new()), data);
    node.ready().await;
    node
}

/// Two nodes of one cluster. The second one answers other nodes, the first one does not yet.
async fn pair() -> (TestNode, TestNode) {
    let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let founders: BTreeMap<u64, String> =
        (1..).zip(&listeners).map(|(id, at)| (id, at.local_addr().expect("its address").to_string())).collect();
    let mut nodes = (1..).zip(listeners).map(|(id, listener)| {
        let data = TempDir::with_prefix("rollbook-bus-").expect("a directory");
        TestNode::build(config(id, &data, Some(listener), founders.clone()), data)
    });
    let (one, two) = (nodes.next().expect("one"), nodes.next().expect("two"));
    one.ready().await;
    two.ready().await;
    until("both are up", || one.bus.node().state().others_up() == [2] && two.bus.node().state().others_up() == [1])
        .await;
    two.listen();
    (one, two)
}

/// The next event of a stream; `None` at its end.
async fn event(body: &mut Body) -> Option<Piece> {
    let chunk = tokio::time::timeout(SOON, body.next()).await.expect("something in time")?;
    split(chunk).next()
}

fn policy(millis: u64, count_max: u32) -> Option<DeliveryPolicy> {
    Some(DeliveryPolicy { redelivery: Duration::from_millis(millis), count_max, ..DeliveryPolicy::default() })
}
