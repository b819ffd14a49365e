//! Links to the other nodes: where they are, how they are called, and the connections that are open.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message as _;
use rollbook_core::level::FeatureLevel;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;

use super::conn::{CallError, Conn, Reader, Writer, start_writer};
use super::frame::{self, Frame, HELLO_BYTES_MAX, Kind};
use super::hello::{self, Hello, Unwelcome, VERSION, Welcome};
use super::home;
use super::identity::Identity;
use crate::lock::lock;
use crate::state::State;
use crate::tls::Tls;

/// What a connection is for. Each has its own, so that none waits behind another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Heartbeats, votes, read index, membership. Its end is a sign that the peer died.
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
    /// Nobody listens there: the process is gone.
    #[error("{0}: connection refused")]
    Gone(String),
    /// It may be there.
    #[error("{0}")]
    Failed(String),
    /// It is there and does not want this node.
    #[error("{}", .0.text)]
    Unwelcome(Unwelcome),
}

/// Where the connection of a purpose is.
#[derive(Default)]
struct Place {
    conn: Mutex<Option<Arc<Conn>>>,
    /// Held by whoever dials.
    dialing: tokio::sync::Mutex<()>,
}

impl Place {
    /// The connection, when it is open now. Never waits for who dials.
    fn present(&self) -> Option<Arc<Conn>> {
        lock(&self.conn).as_ref().filter(|conn| !conn.is_closed()).cloned()
    }

    fn keep(&self, conn: Conn) -> Arc<Conn> {
        let conn = Arc::new(conn);
        *lock(&self.conn) = Some(Arc::clone(&conn));
        conn
    }
}

/// All links of a node.
pub(crate) struct Links {
    identity: Arc<Identity>,
    state: Arc<State>,
    tls: Option<Tls>,
    /// What callers said of themselves, and what the membership says.
    told: Mutex<BTreeMap<u64, String>>,
    /// The process of each node that was called last, and the feature level that it knows.
    levels: Mutex<BTreeMap<u64, (u64, FeatureLevel)>>,
    /// By node, purpose and lane.
    places: Mutex<HashMap<(u64, Purpose, u64), Arc<Place>>>,
}

/// Splits a stream for frames.
pub(crate) fn halves(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> (Reader, Writer) {
    let (reader, writer) = tokio::io::split(stream);
    (BufReader::with_capacity(64 << 10, Box::new(reader)), Box::new(writer))
}

impl Links {
    pub(crate) fn new(identity: Arc<Identity>, state: Arc<State>, tls: Option<Tls>) -> Self {
        Self { identity, state, tls, told: Mutex::default(), levels: Mutex::default(), places: Mutex::default() }
    }

    /// Somebody says where a node is.
    pub(crate) fn learn(&self, node: u64, address: &str) {
        if !address.is_empty() {
            lock(&self.told).insert(node, address.to_owned());
        }
    }

    /// Where a node may be, the likeliest first.
    fn addresses(&self, node: u64) -> Vec<String> {
        let recorded = self.state.machine().node(node).map(|node| node.address.clone());
        let founder = self.identity.founders.get(&node).cloned();
        let told = lock(&self.told).get(&node).cloned();
        let member = self.state.system().1.membership().get_node(&node).map(|node| node.addr.clone());
        let mut addresses = Vec::new();
        for address in [told, recorded, founder, member].into_iter().flatten() {
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        addresses
    }

    /// Calls a node on a new connection.
    pub(crate) async fn dial(&self, node: u64, purpose: Purpose, within: Duration) -> Result<Conn, DialError> {
        let mut failed = DialError::Failed(format!("the address of node {node} is not known"));
        for address in self.addresses(node) {
            let dialed = tokio::time::timeout(within, self.dial_address(node, purpose, &address)).await;
            failed = match dialed {
                Ok(Ok(conn)) => return Ok(conn),
                Ok(Err(error)) => error,
                Err(_) => DialError::Failed(format!("{address}: no answer in time")),
            };
        }
        if let DialError::Unwelcome(no) = &failed
            && no.why().ends_the_caller()
        {
            self.identity.fail(no.text.clone());
        }
        Err(failed)
    }

    async fn dial_address(&self, node: u64, purpose: Purpose, address: &str) -> Result<Conn, DialError> {
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::ConnectionRefused => DialError::Gone(address.to_owned()),
            _ => DialError::Failed(format!("{address}: {error}")),
        };
        let tcp = TcpStream::connect(address).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let (mut reader, writer) = match &self.tls {
            None => halves(tcp),
            Some(tls) => halves(tls.connect(tcp, node).await.map_err(failed)?),
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
                Ok(Conn::start(reader, sender, welcome.process).taking_in_order(welcome.in_order))
            }
            Frame { kind: Kind::Unwelcome, body, .. } => {
                Err(DialError::Unwelcome(Unwelcome::decode(body).map_err(|_| strange())?))
            }
            _ => Err(strange()),
        }
    }

    fn place(&self, node: u64, purpose: Purpose) -> Arc<Place> {
        let lane = if purpose == Purpose::Live { home::lane() } else { 0 };
        Arc::clone(lock(&self.places).entry((node, purpose, lane)).or_default())
    }

    /// The open connection to a node, or a new one.
    pub(crate) async fn conn(&self, node: u64, purpose: Purpose, within: Duration) -> Result<Arc<Conn>, CallError> {
        let place = self.place(node, purpose);
        // The usual case needs no timer.
        if let Some(conn) = place.present() {
            return Ok(conn);
        }
        // Boxed: to dial takes much room, which every call would carry.
        let connect = Box::pin(async {
            let _dialing = place.dialing.lock().await;
            if let Some(conn) = place.present() {
                return Ok(conn);
            }
            let dialed = self.dial(node, purpose, within).await;
            Ok(place.keep(dialed.map_err(|error| CallError::Unreachable(error.to_string()))?))
        });
        let late = || Err(CallError::Unreachable("no connection in time".to_owned()));
        tokio::time::timeout(within.saturating_mul(2), connect).await.unwrap_or_else(|_| late())
    }

    /// The open connection to a node, when there is one now.
    pub(crate) fn present(&self, node: u64, purpose: Purpose) -> Option<Arc<Conn>> {
        self.place(node, purpose).present()
    }

    /// The feature level that a node knows which is connected now.
    pub(crate) fn level_of(&self, node: u64) -> Option<FeatureLevel> {
        let conn = self.present(node, Purpose::Control)?;
        let (process, level) = lock(&self.levels).get(&node).copied()?;
        (process == conn.process).then_some(level)
    }

    /// Puts a connection into its place.
    pub(crate) fn keep(&self, node: u64, purpose: Purpose, conn: Conn) -> Arc<Conn> {
        self.place(node, purpose).keep(conn)
    }

    /// Asks a node and waits for its answer.
    pub(crate) async fn call(
        &self,
        node: u64,
        purpose: Purpose,
        kind: Kind,
        body: bytes::Bytes,
        within: Duration,
    ) -> Result<bytes::Bytes, CallError> {
        self.conn(node, purpose, within).await?.call(kind, body, within).await
    }

    /// Ends all connections.
    pub(crate) fn close(&self) {
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_is_seen_also_while_somebody_dials_until_it_ends() {
        let (near, far) = tokio::io::duplex(64);
        let (reader, writer) = halves(near);
        let place = Place::default();
        assert!(place.present().is_none());
        let conn = place.keep(Conn::start(reader, start_writer(writer), 7));
        let _dialing = place.dialing.lock().await;
        assert!(place.present().is_some());
        drop(far);
        conn.closed().await;
        assert!(place.present().is_none());
    }
}
