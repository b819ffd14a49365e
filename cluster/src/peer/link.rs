//! Links to the other nodes: where they are, how they are called, and the connections that are open.
//!
//! A connection is dialed in a task of its own, with a time limit of its own. A caller that wants to use the connection
//! waits no longer than for an answer, and the next caller finds the same dial still running.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Shared;
use prost::Message as _;
use rollbook_core::level::FeatureLevel;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::conn::{CallError, Conn, Reader, Writer, start_writer};
use super::frame::{self, Frame, HELLO_BYTES_MAX, Kind};
use super::hello::{self, Hello, HelloRefusal, HelloRefused, VERSION, Welcome};
use super::identity::Identity;
use super::thread_connections;
use super::transport::{self, Dialer};
use crate::lock::lock;
use crate::state::state::State;
use crate::timing::Timing;
use crate::tls::Tls;

/// The purpose of a connection. Each purpose has its own connection, so that no purpose waits behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Heartbeats, votes, read index, membership. The end of this connection is a sign that the peer died.
    Control = 1,
    /// Append-entries.
    Log = 2,
    /// Snapshots.
    Snapshot = 3,
    /// Forwarded writes.
    Relay = 4,
    /// Live messages. Threads that wait for their answers have connections of their own.
    Live = 5,
}

/// Why a node could not be called.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    /// No process listens at the address: the node has ended.
    #[error("{0}: connection refused")]
    Gone(String),
    /// The node may be there: nothing is known.
    #[error("{0}")]
    Failed(String),
    /// The node is there and refuses the hello of this node.
    #[error("{}", .0.text)]
    HelloRefused(HelloRefused),
}

/// The result of a dial, shared by all callers that wait for it.
type Outcome = Shared<oneshot::Receiver<Result<Arc<Conn>, CallError>>>;

/// Whether a dial is running.
#[derive(Default)]
enum Dialing {
    #[default]
    Idle,
    Going(Outcome),
    /// The last dial failed just now, and the next one would fail too.
    Failed(Instant, CallError),
}

/// The slot that holds the connection of a purpose.
#[derive(Default)]
struct Place {
    conn: Mutex<Option<Arc<Conn>>>,
    dialing: Mutex<Dialing>,
}

impl Place {
    /// The connection, when one is open now. Never waits for a dial.
    fn present(&self) -> Option<Arc<Conn>> {
        lock(&self.conn).as_ref().filter(|conn| !conn.is_closed()).cloned()
    }

    fn keep(&self, conn: Conn) -> Arc<Conn> {
        let conn = Arc::new(conn);
        *lock(&self.conn) = Some(Arc::clone(&conn));
        conn
    }
}

/// A dial that is running. However the dial ends, the next one can begin.
struct Dial {
    place: Arc<Place>,
    end: Dialing,
}

impl Drop for Dial {
    fn drop(&mut self) {
        *lock(&self.place.dialing) = std::mem::take(&mut self.end);
    }
}

/// All links of a node.
pub(crate) struct Links {
    identity: Arc<Identity>,
    state: Arc<State>,
    tls: Option<Tls>,
    dialer: Box<dyn Dialer>,
    timing: Timing,
    /// The runtime of connections that no thread has for itself.
    runtime: Handle,
    closed: CancellationToken,
    /// The addresses that nodes gave in their hello, and that the membership has.
    addresses: Mutex<BTreeMap<u64, String>>,
    /// The process of each node that was called last, and the feature level that the process knows.
    levels: Mutex<BTreeMap<u64, (u64, FeatureLevel)>>,
    /// The slots of connections, by node, purpose and lane.
    places: Mutex<HashMap<(u64, Purpose, u64), Arc<Place>>>,
}

/// Splits a stream for frames.
pub(crate) fn halves(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> (Reader, Writer) {
    let (reader, writer) = tokio::io::split(stream);
    (BufReader::with_capacity(64 << 10, Box::new(reader)), Box::new(writer))
}

impl Links {
    /// Must be called inside the runtime that the connections are to run on.
    pub(crate) fn new(
        identity: Arc<Identity>,
        state: Arc<State>,
        tls: Option<Tls>,
        dialer: Box<dyn Dialer>,
        timing: Timing,
    ) -> Self {
        let (runtime, closed) = (Handle::current(), CancellationToken::new());
        let (addresses, levels, places) = Default::default();
        Self { identity, state, tls, dialer, timing, runtime, closed, addresses, levels, places }
    }

    pub(crate) const fn timing(&self) -> Timing {
        self.timing
    }

    /// Notes the address that a node gave in its hello, or that the membership has.
    pub(crate) fn learn(&self, node: u64, address: &str) {
        if !address.is_empty() {
            lock(&self.addresses).insert(node, address.to_owned());
        }
    }

    /// The addresses at which a node may be, the likeliest first.
    fn addresses(&self, node: u64) -> Vec<String> {
        let recorded = self.state.machine().node(node).map(|node| node.address.clone());
        let founder = self.identity.founders.get(&node).cloned();
        let hello = lock(&self.addresses).get(&node).cloned();
        let member = self.state.system().1.membership().get_node(&node).map(|node| node.addr.clone());
        let mut addresses = Vec::new();
        for address in [hello, recorded, founder, member].into_iter().flatten() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Calls a node on a new connection, at one of its addresses.
    pub(crate) async fn dial(&self, node: u64, purpose: Purpose) -> Result<Conn, DialError> {
        let mut failed = DialError::Failed(format!("the address of node {node} is not known"));
        for address in self.addresses(node) {
            let error = match self.dial_at(node, purpose, &address, self.timing.dial()).await {
                Ok(conn) => return Ok(conn),
                Err(error) => error,
            };
            // An answer at one address counts more than silence at another.
            if !matches!(failed, DialError::HelloRefused(_)) {
                failed = error;
            }
        }
        if let DialError::HelloRefused(no) = &failed
            && no.why().ends_the_caller()
        {
            self.identity.fail(no.text.clone());
        }
        Err(failed)
    }

    /// Calls a node on a new connection, at this address.
    pub(crate) async fn dial_at(
        &self,
        node: u64,
        purpose: Purpose,
        address: &str,
        within: Duration,
    ) -> Result<Conn, DialError> {
        let late = || Err(DialError::Failed(format!("{address}: no answer in time")));
        tokio::time::timeout(within, self.greet(node, purpose, address)).await.unwrap_or_else(|_| late())
    }

    async fn greet(&self, node: u64, purpose: Purpose, address: &str) -> Result<Conn, DialError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused => DialError::Gone(address.to_owned()),
            _ => DialError::Failed(format!("{address}: {error}")),
        };
        let stream = self.dialer.dial(address).await.map_err(failed)?;
        // A name may stand for several addresses: this is the one that was reached.
        let reached = stream.tcp().and_then(|tcp| tcp.peer_addr().ok());
        let reached = reached.map_or_else(|| address.to_owned(), |reached| reached.to_string());
        transport::configure(&stream, purpose.is_bulk(), self.timing).map_err(failed)?;
        let (mut reader, writer) = match &self.tls {
            None => halves(stream),
            Some(tls) => halves(tls.connect(stream, node).await.map_err(failed)?),
        };
        let sender = start_writer(writer);
        let owner = self.identity.owner();
        let hello = Hello {
            version: VERSION,
            cluster_id: self.identity.cluster_id(),
            purpose: u32::from(purpose.number()),
            from: owner.node,
            to: node,
            incarnation: owner.incarnation,
            process: self.identity.process,
            address: self.identity.address.clone(),
            level: self.identity.level.get(),
            founded: !self.state.machine().cluster_id().is_empty(),
        };
        let lost = |_| DialError::Failed(format!("{address}: the connection was closed"));
        sender.send(Frame::new(Kind::Hello, 0, hello.encode_to_vec())).await.map_err(lost)?;
        let answer = frame::read(&mut reader, HELLO_BYTES_MAX).await.map_err(failed)?;
        let strange = || DialError::Failed(format!("{address}: not a rollbook peer listener"));
        match answer.ok_or_else(|| lost(CallError::Lost))? {
            Frame { kind: Kind::Welcome, body, .. } => {
                let welcome = Welcome::decode(body).map_err(|_| strange())?;
                let (known, needed) = (hello::level(welcome.level), self.state.machine().level());
                if known < needed {
                    return Err(DialError::Failed(hello::too_low(node, known, needed)));
                }
                lock(&self.levels).insert(node, (welcome.process, known));
                Ok(Conn::start(reader, sender, welcome.process, reached).taking_in_order(welcome.in_order))
            }
            Frame { kind: Kind::HelloRefused, body, .. } => {
                let no = HelloRefused::decode(body).map_err(|_| strange())?;
                // While the hello was on its way, this node began its next life, or the cluster was founded: the
                // reason of the refusal no longer holds.
                let outdated = match no.why() {
                    HelloRefusal::OldLife => self.identity.owner() != owner,
                    HelloRefusal::LostData => self.identity.cluster_id() != hello.cluster_id,
                    _ => false,
                };
                if outdated {
                    return Err(DialError::Failed(format!("{address}: this node has changed since it called")));
                }
                Err(DialError::HelloRefused(no))
            }
            _ => Err(strange()),
        }
    }

    fn place(&self, node: u64, purpose: Purpose) -> Arc<Place> {
        let lane = if purpose == Purpose::Live { thread_connections::lane() } else { 0 };
        Arc::clone(lock(&self.places).entry((node, purpose, lane)).or_default())
    }

    /// The open connection to a node, or a new one when that is there in time.
    pub(crate) async fn conn(
        self: &Arc<Self>,
        node: u64,
        purpose: Purpose,
        within: Duration,
    ) -> Result<Arc<Conn>, CallError> {
        let place = self.place(node, purpose);
        // The usual case needs no timer.
        if let Some(conn) = place.present() {
            return Ok(conn);
        }
        let dialed = self.dialed(node, purpose, &place)?;
        let unreachable = |text: &str| CallError::Unreachable(text.to_owned());
        let dialed = tokio::time::timeout(within, dialed).await.map_err(|_| unreachable("no connection in time"))?;
        dialed.map_err(|_| unreachable("the dial was given up"))?
    }

    /// The dial that is on its way, or a new one.
    fn dialed(self: &Arc<Self>, node: u64, purpose: Purpose, place: &Arc<Place>) -> Result<Outcome, CallError> {
        let mut dialing = lock(&place.dialing);
        match &*dialing {
            Dialing::Going(outcome) => return Ok(outcome.clone()),
            Dialing::Failed(at, error) if at.elapsed() < self.timing.heartbeat() / 2 => return Err(error.clone()),
            Dialing::Idle | Dialing::Failed(..) => {}
        }
        let (sender, outcome) = oneshot::channel();
        let outcome = outcome.shared();
        if let Some(conn) = place.present() {
            // Another dial has ended meanwhile.
            sender.send(Ok(conn)).ok();
            return Ok(outcome);
        }
        *dialing = Dialing::Going(outcome.clone());
        let mut dial = Dial { place: Arc::clone(place), end: Dialing::Idle };
        let links = Arc::clone(self);
        let task = async move {
            let dialed = tokio::select! {
                () = links.closed.cancelled() => Err(CallError::Unreachable("node is stopping".to_owned())),
                dialed = links.dial(node, purpose) => match dialed {
                    Ok(conn) => Ok(dial.place.keep(conn)),
                    Err(error) => Err(CallError::Unreachable(error.to_string())),
                },
            };
            if let Err(error) = &dialed {
                dial.end = Dialing::Failed(Instant::now(), error.clone());
            }
            drop(dial);
            // The callers may have gone.
            sender.send(dialed).ok();
        };
        // A runtime that is shutting down drops the task at once, and with the task the dial, whose drop takes this
        // lock.
        drop(dialing);
        // A thread that has connections of its own keeps them to itself.
        if purpose == Purpose::Live && thread_connections::lane() > 0 {
            tokio::spawn(task);
        } else {
            self.runtime.spawn(task);
        }
        Ok(outcome)
    }

    /// The open connection to a node, when there is one now.
    pub(crate) fn present(&self, node: u64, purpose: Purpose) -> Option<Arc<Conn>> {
        self.place(node, purpose).present()
    }

    /// The feature level that a node knows, when that node is connected now.
    pub(crate) fn level_of(&self, node: u64) -> Option<FeatureLevel> {
        let conn = self.present(node, Purpose::Control)?;
        let (process, level) = lock(&self.levels).get(&node).copied()?;
        (process == conn.process).then_some(level)
    }

    /// Puts a connection into its slot.
    pub(crate) fn keep(&self, node: u64, purpose: Purpose, conn: Conn) -> Arc<Conn> {
        self.place(node, purpose).keep(conn)
    }

    /// Sends a request to a node and waits for the answer.
    pub(crate) async fn call(
        self: &Arc<Self>,
        node: u64,
        purpose: Purpose,
        kind: Kind,
        body: bytes::Bytes,
        within: Duration,
    ) -> Result<bytes::Bytes, CallError> {
        if let Some(conn) = self.present(node, purpose) {
            return conn.call(kind, body, within).await;
        }
        let until = Instant::now() + within;
        let conn = self.conn(node, purpose, within).await?;
        conn.call(kind, body, until.saturating_duration_since(Instant::now())).await
    }

    /// Ends all connections to a node whose control connection has ended, so that new ones are dialed. The other
    /// connections may be dead too, without a sign of that yet.
    pub(crate) fn cut(&self, node: u64) {
        let places = lock(&self.places);
        for place in places.iter().filter_map(|((to, ..), place)| (*to == node).then_some(place)) {
            if let Some(conn) = place.present() {
                conn.close();
            }
        }
    }

    /// Ends all connections and all dials.
    pub(crate) fn close(&self) {
        self.closed.cancel();
        lock(&self.places).clear();
    }
}

impl Purpose {
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Control => 1,
            Self::Log => 2,
            Self::Snapshot => 3,
            Self::Relay => 4,
            Self::Live => 5,
        }
    }

    /// Whether so much may come at once that a receiver takes nothing for a while.
    pub(crate) const fn is_bulk(self) -> bool {
        !matches!(self, Self::Control)
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        let all = [Self::Control, Self::Log, Self::Snapshot, Self::Relay, Self::Live];
        all.into_iter().find(|purpose| u32::from(purpose.number()) == number)
    }
}

#[cfg(test)]
pub(crate) mod tests;
