//! The way onto the roll and off it, for the clients of this node.
//!
//! A registration is proposed and answered. A client that leaves needs no answer, but must not be forgotten:
//! it stays on a list until the cluster shows that it is gone, through changes of the leader and also when its
//! registration was still on its way. When the node begins a new life because the cluster had given it up, the
//! clients that it kept are registered anew.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rollbook_cluster::lock::lock;
use rollbook_cluster::node::Node;
use rollbook_core::command::{Command, Done};
use rollbook_core::error::Refusal;
use rollbook_core::node::Owner;
use rollbook_core::service::{Connection, InstanceLeave, InstanceMark, InstanceRegister, Leaving, Registered};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::client::{Client, Clients, Farewell, Told};
use super::clock;
use super::proposer::Proposer;
use super::relay::away::Peers;

/// How often heartbeats and the list of those who left are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// How long one who left is looked for: longer than a registration may be on its way.
const LINGER: Duration = Duration::from_secs(60);
/// Most that leave in one command.
const LEAVING_MAX: usize = rollbook_core::limits::ROLL_STEP_MAX;

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
struct Gone {
    leaving: Leaving,
    asked: bool,
    until: Instant,
}

#[derive(Debug)]
struct Inner {
    node: Node,
    proposer: Proposer,
    clients: Clients,
    peers: Peers,
    config: Config,
    gone: Mutex<Vec<Gone>>,
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
    pub fn new(node: Node, proposer: Proposer, clients: Clients, peers: Peers, config: Config) -> Self {
        let inner = Inner { node, proposer, clients, peers, config, gone: Mutex::default(), wake: Notify::new() };
        Self { inner: Arc::new(inner) }
    }

    fn gone(&self) -> MutexGuard<'_, Vec<Gone>> {
        lock(&self.inner.gone)
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
        let command = Command::InstanceRegister(Box::new(register.clone()));
        let Done::Registered(registered) = self.inner.proposer.command(command).await? else {
            return Err(Refusal::Malformed("the answer is not that of a registration".to_owned()));
        };
        client.describe(|about| about.registration = Some(Box::new(register)));
        client.beats();
        client.set_unhealthy(false);
        if let Some(replaced) = registered.replaced {
            self.inner.peers.close(replaced, Farewell::Replaced, &self.inner.clients);
        }
        Ok(registered)
    }

    /// A client is gone, or another instance from now on.
    pub fn leave(&self, serial: u64, service: &str, instance: &str) {
        let leaving =
            Leaving { service: service.to_owned(), instance: instance.to_owned(), connection: self.connection(serial) };
        self.gone().push(Gone { leaving, asked: false, until: clock::now() + LINGER });
        self.inner.wake.notify_one();
    }

    /// Keeps the roll true until cancelled.
    pub async fn run(self, stop: CancellationToken) {
        let mut owner = self.inner.node.owner();
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let looks = tokio::select! {
                () = stop.cancelled() => return,
                () = self.inner.wake.notified() => false,
                _ = tick.tick() => true,
            };
            self.take_off().await;
            if looks {
                owner = self.return_after(owner).await;
                self.remind();
                self.miss_heartbeats().await;
            }
        }
    }

    /// Takes everybody off who left, as far as the cluster can do it now.
    pub async fn take_off(&self) {
        let owner = self.inner.node.owner();
        loop {
            let leaving = self.still_there(owner);
            if leaving.is_empty() {
                return;
            }
            let leave = InstanceLeave { leaving: leaving.clone() };
            match self.inner.proposer.command(Command::InstanceLeave(leave)).await {
                // Those that the rules left for the next step are still shown, and asked for again.
                Ok(_) => self.asked(&leaving),
                // The next look tries again.
                Err(refusal) => return tracing::debug!(%refusal, "those who left are still on the roll"),
            }
        }
    }

    fn still_there(&self, owner: Owner) -> Vec<Leaving> {
        self.inner.node.with_machine(|machine| {
            let now = clock::now();
            let shown = |leaving: &Leaving| {
                let present = machine.instance(&leaving.service, &leaving.instance);
                present.is_some_and(|present| present.connection == leaving.connection)
            };
            let mut gone = self.gone();
            // An earlier life of this node was taken off as a whole.
            gone.retain(|gone| gone.leaving.connection.owner == owner && (!gone.asked || now < gone.until));
            let wanted = gone.iter().filter(|gone| !gone.asked || shown(&gone.leaving));
            wanted.take(LEAVING_MAX).map(|gone| gone.leaving.clone()).collect()
        })
    }

    fn asked(&self, leaving: &[Leaving]) {
        let key = |one: &Leaving| (one.connection.serial, one.service.clone(), one.instance.clone());
        let asked: std::collections::HashSet<_> = leaving.iter().map(key).collect();
        for gone in self.gone().iter_mut().filter(|gone| asked.contains(&key(&gone.leaving))) {
            gone.asked = true;
        }
    }

    /// Registers those again that were kept while the cluster had given this node up.
    async fn return_after(&self, before: Owner) -> Owner {
        let owner = self.inner.node.owner();
        if owner == before || self.inner.node.ready().is_err() || !self.inner.node.is_alive(owner) {
            return before;
        }
        for client in self.inner.clients.all().iter() {
            let Some(register) = client.about().registration else { continue };
            if let Err(refusal) = self.register(client, *register).await {
                tracing::warn!(%refusal, "a client could not be registered again; it must come anew");
                client.close(Farewell::Draining);
            }
        }
        owner
    }

    /// Services that came back, after a restart of the node perhaps, and have not registered.
    fn remind(&self) {
        let now = clock::now();
        for client in self.inner.clients.all().iter().filter(|client| client.takes_reminder(now)) {
            client.tell(Told::Remind);
        }
    }

    async fn miss_heartbeats(&self) {
        let (now, config) = (clock::now(), &self.inner.config);
        for client in self.inner.clients.all().iter().filter(|client| client.is_registered()) {
            if !client.sends_heartbeats() && !config.heartbeat_required {
                continue;
            }
            let silent = now.saturating_duration_since(client.beat());
            if silent >= config.heartbeat_drop {
                tracing::info!(client = client.serial, ?silent, "an instance without heartbeats is disconnected");
                client.close(Farewell::Unresponsive);
                continue;
            }
            let unhealthy = silent >= config.heartbeat_timeout;
            if unhealthy != client.is_unhealthy() {
                self.mark(client, unhealthy).await;
            }
        }
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
