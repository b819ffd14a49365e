//! Registration of the clients of this node on the roll, and their removal.
//!
//! A registration is proposed, and the client gets the answer. A client that leaves gets no answer, but the removal
//! must not be lost: `PendingLeaves` keeps the client until the replicated state shows that the instance is gone,
//! across changes of the leader and also when a registration was still on its way. When the cluster had given this node
//! up and the node begins a new life, the clients that stayed connected are registered again.
//!
//! Removals, new registrations after a lost life, and heartbeats are three loops, none of which waits for another. Each
//! loop has many commands on their way at a time, which the node batches into few entries of the log.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
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
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::pending_leaves::{LeaveBatch, PendingLeaves};
use crate::base::clock;
use crate::base::process_name::ProcessName;
use crate::bus::client::clients::{Client, ClientMessage, Clients, CloseReason};
use crate::bus::error::Fault;
use crate::bus::relay::peer_client::PeerClient;
use crate::bus::write::proposer::Proposer;

/// How often heartbeats and pending removals are checked.
const LOOK: Duration = Duration::from_secs(1);
/// Most instances that one command removes, and most that are looked up under one lock of the machine.
const LEAVING_MAX: usize = rollbook_core::limits::ROLL_STEP_MAX;
/// Most such commands on their way at a time.
const LEAVES_MAX: usize = 8;
/// Most registrations on their way after a new life of the node, and most changes of health.
const IN_FLIGHT_MAX: usize = 256;
/// Most registered processes that wait until their docks are told.
const PROCESSES_MAX: usize = 1024;

/// Timeouts of registered instances.
#[derive(Debug, Clone)]
pub struct RollConfig {
    /// How long a service stays online after its last instance has left.
    pub grace: Duration,
    /// An instance without a heartbeat for this long gets no requests.
    pub heartbeat_timeout: Duration,
    /// An instance without a heartbeat for this long is disconnected.
    pub heartbeat_drop: Duration,
    /// Whether the timeouts also concern instances that have never sent a heartbeat.
    pub heartbeat_required: bool,
}

/// The shared state of all clones of [`Roll`].
#[derive(Debug)]
struct Inner {
    /// Reads the replicated roll; names this life of the node.
    node: Node,
    /// Proposes registrations and changes of health.
    proposer: Proposer,
    /// The connected clients.
    clients: Clients,
    /// Tells a client of another node that its instance was replaced.
    peers: PeerClient,
    /// Timeouts.
    config: RollConfig,
    /// Clients that left and are still to be removed.
    pending_leaves: Mutex<PendingLeaves>,
    /// Serializes the removals: a caller that waits for one pass waits for all clients that left before.
    removals: tokio::sync::Mutex<()>,
    /// Starts a pass when a client has left.
    wake: Notify,
    /// Where processes of docks go that have registered.
    processes: OnceLock<mpsc::Sender<ProcessName>>,
}

/// Registers and removes the clients of this node. Clones share one state.
#[derive(Debug, Clone)]
pub struct Roll {
    inner: Arc<Inner>,
}

impl Roll {
    /// The roll for the clients of this node. [`Roll::run`] must run for removals and heartbeats.
    #[must_use]
    pub fn new(node: Node, proposer: Proposer, clients: Clients, peers: PeerClient, config: RollConfig) -> Self {
        let (pending_leaves, removals, wake) = (Mutex::default(), tokio::sync::Mutex::default(), Notify::new());
        let processes = OnceLock::new();
        let inner = Inner { node, proposer, clients, peers, config, pending_leaves, removals, wake, processes };
        Self { inner: Arc::new(inner) }
    }

    /// The processes of docks that register at this node as services, from now on. To be called once.
    #[must_use]
    pub fn registered_processes(&self) -> mpsc::Receiver<ProcessName> {
        let (sender, receiver) = mpsc::channel(PROCESSES_MAX);
        if self.inner.processes.set(sender).is_err() {
            tracing::error!("registered processes are followed already");
        }
        receiver
    }

    fn pending_leaves(&self) -> MutexGuard<'_, PendingLeaves> {
        lock(&self.inner.pending_leaves)
    }

    /// The connection of a client of this node, as the roll names it.
    #[must_use]
    pub fn connection(&self, serial: u64) -> Connection {
        Connection { owner: self.inner.node.owner(), serial }
    }

    /// Registers a client as an instance. The connection and the grace are filled in here.
    ///
    /// # Errors
    /// The client may not offer that; any refusal, and after [`Refusal::OutcomeUnknown`] it may be registered.
    pub async fn register(&self, client: &Arc<Client>, register: InstanceRegister) -> Result<Registered, Fault> {
        if !client.about().accepted {
            client.identity().check_offer(&register)?;
        }
        self.enroll(client, register).await.map_err(|refusal| Fault::of_service(&refusal))
    }

    async fn enroll(&self, client: &Arc<Client>, mut register: InstanceRegister) -> Result<Registered, Refusal> {
        let connection = self.connection(client.serial);
        register.instance.connection = connection;
        register.instance.grace_ms = u64::try_from(self.inner.config.grace.as_millis()).unwrap_or(u64::MAX);
        let (service, instance) = (register.service.id.clone(), register.instance.id.clone());
        let frame = Command::InstanceRegister(Box::new(register.clone())).frame()?;
        // The client may have left as this instance a moment ago. A removal that was proposed is ahead of this
        // registration; no further removal may follow.
        self.pending_leaves().forget(&Leaving { service: service.clone(), instance: instance.clone(), connection });
        let became = self.inner.proposer.propose(frame.into()).await;
        if self.inner.clients.find(client.serial).is_none() {
            // The client left meanwhile.
            self.leave(client.serial, &service, &instance);
        }
        let Done::Registered(registered) = became? else {
            return Err(Refusal::Malformed("the answer is not that of a registration".to_owned()));
        };
        if let Some(process) = ProcessName::of_metadata(&register.instance.metadata)
            && let Some(Err(error)) = self.inner.processes.get().map(|to| to.try_send(process))
        {
            tracing::debug!(%error, "a dock is not told that its process has registered");
        }
        client.describe(|about| about.registration = Some(Box::new(register)));
        client.beats();
        client.set_unhealthy(false);
        if let Some(replaced) = registered.replaced {
            let by = format!("{} at node {}", client.about().address, connection.owner.node);
            self.inner.peers.replace(replaced, &by, &self.inner.clients);
        }
        Ok(registered)
    }

    /// Called when a client has disconnected, or has become another instance: the instance is removed from the roll.
    pub fn leave(&self, serial: u64, service: &str, instance: &str) {
        let leaving =
            Leaving { service: service.to_owned(), instance: instance.to_owned(), connection: self.connection(serial) };
        self.pending_leaves().add(leaving, clock::now());
        self.inner.wake.notify_one();
    }

    /// Runs the three loops until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.remove_all_leavers() => {}
            () = self.keep_registered() => {}
            () = self.watch_heartbeats() => {}
        }
    }

    /// Removes clients when one has left, and at every tick.
    async fn remove_all_leavers(&self) {
        let mut tick = ticks();
        loop {
            tokio::select! {
                () = self.inner.wake.notified() => {}
                _ = tick.tick() => {}
            }
            self.remove_leavers().await;
        }
    }

    /// Removes every client that left, as far as the cluster answers now.
    pub async fn remove_leavers(&self) {
        let _removals = self.inner.removals.lock().await;
        loop {
            self.look_up_leavers();
            let proposals: Vec<_> = std::iter::from_fn(|| self.propose_removals()).take(LEAVES_MAX).collect();
            if proposals.is_empty() {
                return;
            }
            let answers =
                join_all(proposals.into_iter().map(|(batch, reply)| async move { (batch, reply.await) })).await;
            let mut refused = false;
            for (batch, reply) in answers {
                let mut pending_leaves = self.pending_leaves();
                match reply {
                    // Instances that the rules left for the next step are still shown, and removed again.
                    Ok(done) => pending_leaves.proposed(&batch, done != Done::More, clock::now()),
                    Err(refusal) => {
                        tracing::debug!(%refusal, "those who left are still on the roll");
                        pending_leaves.not_proposed(batch);
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

    /// Proposes the next removals; `None` when there are none.
    fn propose_removals(&self) -> Option<(LeaveBatch, impl Future<Output = Reply> + use<>)> {
        // One lock for choosing and proposing: a client that registers again does so before both or behind both.
        let mut pending_leaves = self.pending_leaves();
        let batch = pending_leaves.next(self.inner.node.owner(), LEAVING_MAX);
        if batch.leaving.is_empty() {
            return None;
        }
        let leave = Command::InstanceLeave(InstanceLeave { leaving: batch.leaving.clone() });
        let begun = leave.frame().and_then(|frame| self.inner.node.proposals().propose(frame.into()));
        drop(pending_leaves);
        let reply = async move {
            let stopping = |_| Err(Refusal::OutcomeUnknown("node is stopping".to_owned()));
            begun?.await.unwrap_or_else(stopping)
        };
        Some((batch, reply))
    }

    /// Looks up which clients whose removal was proposed are still on the roll.
    fn look_up_leavers(&self) {
        loop {
            let due = self.pending_leaves().due(clock::now(), LEAVING_MAX);
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
            self.pending_leaves().looked_up(due, &shown, clock::now());
        }
    }

    /// Registers clients again after a new life of the node, and reminds services that have not registered.
    async fn keep_registered(&self) {
        let (mut owner, mut tick) = (self.inner.node.owner(), ticks());
        loop {
            tick.tick().await;
            owner = self.register_again(owner).await;
            self.remind();
        }
    }

    /// Registers the connected clients again when the cluster had given this node up. Returns the life of the node for
    /// which all are registered.
    async fn register_again(&self, before: Owner) -> Owner {
        let owner = self.inner.node.owner();
        if owner == before || self.inner.node.consensus().ready().is_err() || !self.inner.node.state().is_alive(owner) {
            return before;
        }
        let clients = self.inner.clients.all();
        let register = |client: Arc<Client>| async move {
            let Some(register) = client.about().registration else { return };
            if let Err(fault) = self.register(&client, *register).await {
                tracing::warn!(%fault, "a client could not be registered again; it must come anew");
                client.close(CloseReason::Draining);
            }
        };
        stream::iter(clients.iter().cloned()).for_each_concurrent(IN_FLIGHT_MAX, register).await;
        owner
    }

    /// Reminds services that connected and have not registered, for instance after a restart of the node.
    fn remind(&self) {
        let now = clock::now();
        for client in self.inner.clients.all().iter().filter(|client| client.takes_reminder(now)) {
            client.hint(ClientMessage::Remind);
        }
    }

    /// Checks heartbeats at every tick and marks the instances whose health changed.
    async fn watch_heartbeats(&self) {
        let mut tick = ticks();
        loop {
            tick.tick().await;
            let changed = self.check_heartbeats();
            let mark = |(client, unhealthy): (Arc<Client>, bool)| async move { self.mark(&client, unhealthy).await };
            stream::iter(changed).for_each_concurrent(IN_FLIGHT_MAX, mark).await;
        }
    }

    /// Disconnects instances that were silent for too long. Returns the instances whose health changed, and their new
    /// health.
    fn check_heartbeats(&self) -> Vec<(Arc<Client>, bool)> {
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

    /// Stores the health of an instance in the replicated roll.
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

/// The interval of the loops.
fn ticks() -> tokio::time::Interval {
    let mut tick = tokio::time::interval(LOOK);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    tick
}
