//! The way onto the roll and off it, for the clients of this node.
//!
//! A registration is proposed and answered. A client that leaves needs no answer, but must not be forgotten:
//! it stays on a list until the cluster shows that it is gone, through changes of the leader and also when its
//! registration was still on its way. When the node begins a new life because the cluster had given it up, the
//! clients that it kept are registered anew.
//!
//! Leaving, coming again and missing heartbeats are three loops: none waits for another. Each has many commands on
//! their way at a time, which the node puts into few entries of the log.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream;
use rollbook_cluster::lock::lock;
use rollbook_cluster::node::Node;
use rollbook_core::command::{Command, Done, Reply};
use rollbook_core::error::Refusal;
use rollbook_core::node::Owner;
use rollbook_core::service::{Connection, InstanceLeave, InstanceMark, InstanceRegister, Leaving, Registered};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pending_leaves::{Asked, PendingLeaves};
use crate::base::clock;
use crate::bus::client::clients::{Client, ClientMessage, Clients, CloseReason};
use crate::bus::relay::peer_client::PeerClient;
use crate::bus::write::proposer::Proposer;

/// How often heartbeats and the list of those who left are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Most that leave in one command, and most that are looked for while the rules are held.
const LEAVING_MAX: usize = rollbook_core::limits::ROLL_STEP_MAX;
/// Most such commands on their way at a time.
const LEAVES_MAX: usize = 8;
/// Most registrations on their way after the cluster had given the node up, and most changes of health.
const IN_FLIGHT_MAX: usize = 256;

/// What is expected of instances.
#[derive(Debug, Clone)]
pub struct Config {
    /// How long a service stays online after its last instance left.
    pub grace: Duration,
    /// An instance without a heartbeat for this long gets no requests.
    pub heartbeat_timeout: Duration,
    /// One without a heartbeat for this long is disconnected.
    pub heartbeat_drop: Duration,
    /// Whether that also concerns instances that have never sent one.
    pub heartbeat_required: bool,
}

#[derive(Debug)]
struct Inner {
    node: Node,
    proposer: Proposer,
    clients: Clients,
    peers: PeerClient,
    config: Config,
    leavers: Mutex<PendingLeaves>,
    /// One at a time takes clients off the roll, so that whoever waits for that waits for all of them.
    taking: tokio::sync::Mutex<()>,
    wake: Notify,
}

/// The handle. Clones share it.
#[derive(Debug, Clone)]
pub struct Roll {
    inner: Arc<Inner>,
}

impl Roll {
    /// The roll as this node's clients reach it; [`Roll::run`] keeps it true.
    #[must_use]
    pub fn new(node: Node, proposer: Proposer, clients: Clients, peers: PeerClient, config: Config) -> Self {
        let (leavers, taking, wake) = (Mutex::default(), tokio::sync::Mutex::default(), Notify::new());
        Self { inner: Arc::new(Inner { node, proposer, clients, peers, config, leavers, taking, wake }) }
    }

    fn leavers(&self) -> MutexGuard<'_, PendingLeaves> {
        lock(&self.inner.leavers)
    }

    /// The connection that a client of this node is.
    #[must_use]
    pub fn connection(&self, serial: u64) -> Connection {
        Connection { owner: self.inner.node.owner(), serial }
    }

    /// Registers a client as an instance. The connection and the grace are filled in here.
    ///
    /// # Errors
    /// Any [`Refusal`]; after [`Refusal::OutcomeUnknown`] it may be registered.
    pub async fn register(&self, client: &Arc<Client>, mut register: InstanceRegister) -> Result<Registered, Refusal> {
        let connection = self.connection(client.serial);
        register.instance.connection = connection;
        register.instance.grace_ms = u64::try_from(self.inner.config.grace.as_millis()).unwrap_or(u64::MAX);
        let (service, instance) = (register.service.id.clone(), register.instance.id.clone());
        let frame = Command::InstanceRegister(Box::new(register.clone())).frame()?;
        // It may have left as that instance a moment ago: what was asked then is ahead of this, nothing more is asked.
        self.leavers().forget(&Leaving { service: service.clone(), instance: instance.clone(), connection });
        let became = self.inner.proposer.propose(frame.into()).await;
        if self.inner.clients.find(client.serial).is_none() {
            // It left meanwhile.
            self.leave(client.serial, &service, &instance);
        }
        let Done::Registered(registered) = became? else {
            return Err(Refusal::Malformed("the answer is not that of a registration".to_owned()));
        };
        client.describe(|about| about.registration = Some(Box::new(register)));
        client.beats();
        client.set_unhealthy(false);
        if let Some(replaced) = registered.replaced {
            let by = format!("{} at node {}", client.about().address, connection.owner.node);
            self.inner.peers.replace(replaced, &by, &self.inner.clients);
        }
        Ok(registered)
    }

    /// A client is gone, or another instance from now on.
    pub fn leave(&self, serial: u64, service: &str, instance: &str) {
        let leaving =
            Leaving { service: service.to_owned(), instance: instance.to_owned(), connection: self.connection(serial) };
        self.leavers().add(leaving, clock::now());
        self.inner.wake.notify_one();
    }

    /// Keeps the roll true until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.take_off_all() => {}
            () = self.bring_back_all() => {}
            () = self.watch_heartbeats() => {}
        }
    }

    async fn take_off_all(&self) {
        let mut tick = ticks();
        loop {
            tokio::select! {
                () = self.inner.wake.notified() => {}
                _ = tick.tick() => {}
            }
            self.take_off().await;
        }
    }

    /// Takes everybody off who left, as far as the cluster can do it now.
    pub async fn take_off(&self) {
        let _taking = self.inner.taking.lock().await;
        loop {
            self.look_for_leavers();
            let asks: Vec<_> = std::iter::from_fn(|| self.ask_to_leave()).take(LEAVES_MAX).collect();
            if asks.is_empty() {
                return;
            }
            let answers = join_all(asks.into_iter().map(|(asked, reply)| async move { (asked, reply.await) })).await;
            let mut refused = false;
            for (asked, reply) in answers {
                let mut leavers = self.leavers();
                match reply {
                    // Those that the rules left for the next step are still shown, and asked for again.
                    Ok(done) => leavers.asked(&asked, done != Done::More, clock::now()),
                    Err(refusal) => {
                        tracing::debug!(%refusal, "those who left are still on the roll");
                        leavers.not_asked(asked);
                        refused = true;
                    }
                }
            }
            if refused {
                // The next look tries again.
                return;
            }
        }
    }

    /// Asks the cluster to take the next ones off; `None` when there are none.
    fn ask_to_leave(&self) -> Option<(Asked, impl Future<Output = Reply> + use<>)> {
        // Under one lock: whoever registers anew does it before, or behind what is asked here.
        let mut leavers = self.leavers();
        let asked = leavers.next(self.inner.node.owner(), LEAVING_MAX);
        if asked.leaving.is_empty() {
            return None;
        }
        let leave = Command::InstanceLeave(InstanceLeave { leaving: asked.leaving.clone() });
        let begun = leave.frame().and_then(|frame| self.inner.node.proposals().propose(frame.into()));
        drop(leavers);
        let reply = async move {
            let stopping = |_| Err(Refusal::OutcomeUnknown("node is stopping".to_owned()));
            begun?.await.unwrap_or_else(stopping)
        };
        Some((asked, reply))
    }

    /// Looks who of those that the cluster was asked for is still there.
    fn look_for_leavers(&self) {
        loop {
            let due = self.leavers().due(clock::now(), LEAVING_MAX);
            if due.leaving.is_empty() {
                return;
            }
            let shown: Vec<bool> = self.inner.node.state().with_machine(|machine| {
                let shown = |leaving: &Leaving| {
                    let present = machine.instance(&leaving.service, &leaving.instance);
                    present.is_some_and(|present| present.connection == leaving.connection)
                };
                due.leaving.iter().map(shown).collect()
            });
            self.leavers().looked(due, &shown, clock::now());
        }
    }

    async fn bring_back_all(&self) {
        let (mut owner, mut tick) = (self.inner.node.owner(), ticks());
        loop {
            tick.tick().await;
            owner = self.return_after(owner).await;
            self.remind();
        }
    }

    /// Registers those again that were kept while the cluster had given this node up.
    async fn return_after(&self, before: Owner) -> Owner {
        let owner = self.inner.node.owner();
        if owner == before || self.inner.node.consensus().ready().is_err() || !self.inner.node.state().is_alive(owner) {
            return before;
        }
        let clients = self.inner.clients.all();
        let register = |client: Arc<Client>| async move {
            let Some(register) = client.about().registration else { return };
            if let Err(refusal) = self.register(&client, *register).await {
                tracing::warn!(%refusal, "a client could not be registered again; it must come anew");
                client.close(CloseReason::Draining);
            }
        };
        stream::iter(clients.iter().cloned()).for_each_concurrent(IN_FLIGHT_MAX, register).await;
        owner
    }

    /// Services that came back, after a restart of the node perhaps, and have not registered.
    fn remind(&self) {
        let now = clock::now();
        for client in self.inner.clients.all().iter().filter(|client| client.takes_reminder(now)) {
            client.hint(ClientMessage::Remind);
        }
    }

    async fn watch_heartbeats(&self) {
        let mut tick = ticks();
        loop {
            tick.tick().await;
            let changed = self.miss_heartbeats();
            let mark = |(client, unhealthy): (Arc<Client>, bool)| async move { self.mark(&client, unhealthy).await };
            stream::iter(changed).for_each_concurrent(IN_FLIGHT_MAX, mark).await;
        }
    }

    /// Sends away those whose heartbeats were missing for too long; gives those whose health has changed, and what it
    /// is now.
    fn miss_heartbeats(&self) -> Vec<(Arc<Client>, bool)> {
        let (now, config) = (clock::now(), &self.inner.config);
        let mut changed = Vec::new();
        for client in self.inner.clients.all().iter().filter(|client| client.is_registered()) {
            if !client.sends_heartbeats() && !config.heartbeat_required {
                continue;
            }
            let silent = now.saturating_duration_since(client.beat());
            if silent >= config.heartbeat_drop {
                tracing::info!(client = client.serial, ?silent, "an instance without heartbeats is disconnected");
                client.close(CloseReason::Unresponsive);
                continue;
            }
            let unhealthy = silent >= config.heartbeat_timeout;
            if unhealthy != client.is_unhealthy() {
                changed.push((Arc::clone(client), unhealthy));
            }
        }
        changed
    }

    async fn mark(&self, client: &Client, unhealthy: bool) {
        let Some(register) = client.about().registration else { return };
        let mark = InstanceMark {
            service: register.service.id,
            instance: register.instance.id,
            draining: None,
            unhealthy: Some(unhealthy),
            connection: Some(self.connection(client.serial)),
        };
        match self.inner.proposer.command(Command::InstanceMark(mark)).await {
            Ok(_) | Err(Refusal::InstanceNotFound(_) | Refusal::ServiceNotFound(_)) => client.set_unhealthy(unhealthy),
            Err(refusal) => tracing::debug!(%refusal, "the health of an instance could not be noted"),
        }
    }
}

/// When the loops look.
fn ticks() -> tokio::time::Interval {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick
}
