//! The network of a simulation: in memory, on simulated time, and as unreliable as TCP lets a network be.
//!
//! A connection is a pair of memory streams with a pump for each direction. A pump carries bytes in order and with a
//! delay. While its direction is cut it holds them, as the kernel of the sender does: they arrive when the kernel
//! would send them again, which is up to as long again as the cut took. A connection on which nothing is acknowledged
//! for longer than the kernel was told to wait is reset.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::dice::Dice;
use crate::peer::transport::{Acceptor, Dialer, PeerStream};
use crate::timing::Timing;

/// Bytes on their way in one direction.
const ROOM: usize = 256 << 10;
/// Bytes that travel together.
const CHUNK_BYTES: usize = 64 << 10;
/// How often an idle connection is probed, as the keepalive of the kernel does.
const KEEPALIVE: Duration = Duration::from_secs(1);
/// The first retransmission; each next one waits twice as long, up to the longest.
const RETRANSMISSION: Duration = Duration::from_millis(200);
const RETRANSMISSION_MAX: Duration = Duration::from_secs(120);

/// All hosts and the wires between them.
pub(super) struct Net {
    dice: Arc<Dice>,
    timing: Timing,
    hosts: Mutex<Hosts>,
    changed: Notify,
    /// Messages that take long, of 1000.
    slow: AtomicU64,
    /// Milliseconds that every chunk takes at least.
    distance: AtomicU64,
}

#[derive(Default)]
struct Hosts {
    listeners: BTreeMap<u64, mpsc::Sender<DuplexStream>>,
    /// Directions that are cut.
    cuts: BTreeSet<(u64, u64)>,
    connections: Vec<Connection>,
}

struct Connection {
    ends: (u64, u64),
    reset: CancellationToken,
}

impl Net {
    pub(super) fn new(dice: Arc<Dice>, timing: Timing) -> Arc<Self> {
        let (slow, distance) = (AtomicU64::new(10), AtomicU64::new(0));
        Arc::new(Self { dice, timing, hosts: Mutex::default(), changed: Notify::new(), slow, distance })
    }

    /// The address of a node.
    pub(super) fn address(node: u64) -> String {
        format!("node-{node}:1")
    }

    fn node_of(address: &str) -> Option<u64> {
        address.strip_prefix("node-")?.strip_suffix(":1")?.parse().ok()
    }

    /// The way out of a node.
    pub(super) fn dialer(self: &Arc<Self>, from: u64) -> Box<dyn Dialer> {
        Box::new(SimDialer { net: Arc::clone(self), from })
    }

    /// A node listens from now on.
    pub(super) fn listen(&self, node: u64) -> Box<dyn Acceptor> {
        let (sender, dialed) = mpsc::channel(64);
        self.hosts.lock().unwrap().listeners.insert(node, sender);
        Box::new(SimAcceptor { dialed })
    }

    /// The process of a node has ended: its connections are reset, and nobody listens there.
    pub(super) fn kill(&self, node: u64) {
        let mut hosts = self.hosts.lock().unwrap();
        hosts.listeners.remove(&node);
        hosts.connections.retain(|connection| {
            let mine = connection.ends.0 == node || connection.ends.1 == node;
            if mine {
                connection.reset.cancel();
            }
            !mine
        });
    }

    pub(super) fn cut(&self, directions: impl IntoIterator<Item = (u64, u64)>) {
        self.hosts.lock().unwrap().cuts.extend(directions);
    }

    pub(super) fn heal(&self) {
        self.hosts.lock().unwrap().cuts.clear();
        self.slow.store(10, Ordering::Relaxed);
        self.distance.store(0, Ordering::Relaxed);
        self.changed.notify_waiters();
    }

    /// Every chunk takes that many milliseconds more, and so many of 1000 take long.
    pub(super) fn slow_down(&self, distance: u64, slow: u64) {
        self.distance.store(distance, Ordering::Relaxed);
        self.slow.store(slow, Ordering::Relaxed);
    }

    fn is_cut(&self, from: u64, to: u64) -> bool {
        self.hosts.lock().unwrap().cuts.contains(&(from, to))
    }

    async fn travel(&self) {
        let slow = self.dice.below(1000) < self.slow.load(Ordering::Relaxed);
        let millis = if slow { self.dice.below(400) } else { self.dice.below(8) };
        tokio::time::sleep(Duration::from_millis(millis + self.distance.load(Ordering::Relaxed))).await;
    }

    /// Resolves when a packet of that direction, or its acknowledgement, can pass again.
    async fn passable(&self, from: u64, to: u64) {
        loop {
            let changed = self.changed.notified();
            if !self.is_cut(from, to) && !self.is_cut(to, from) {
                return;
            }
            changed.await;
        }
    }

    /// Carries what was written, as the kernel does. An error when it gives up.
    async fn deliver(&self, from: u64, to: u64) -> io::Result<()> {
        self.travel().await;
        let mut again = RETRANSMISSION;
        let sent = Instant::now();
        let mut next = sent + again;
        while self.is_cut(from, to) || self.is_cut(to, from) {
            let healed = tokio::time::timeout_at(sent + self.timing.unacknowledged(), self.passable(from, to)).await;
            healed.map_err(|_| io::ErrorKind::TimedOut)?;
            while next < Instant::now() {
                again = (again * 2).min(RETRANSMISSION_MAX);
                next += again;
            }
            tokio::time::sleep_until(next).await;
        }
        Ok(())
    }

    fn connect(self: &Arc<Self>, from: u64, to: u64) -> (DuplexStream, DuplexStream) {
        let (near, near_wire) = tokio::io::duplex(ROOM);
        let (far, far_wire) = tokio::io::duplex(ROOM);
        let reset = CancellationToken::new();
        let mut hosts = self.hosts.lock().unwrap();
        hosts.connections.retain(|connection| !connection.reset.is_cancelled());
        hosts.connections.push(Connection { ends: (from, to), reset: reset.clone() });
        drop(hosts);
        let (near_reader, near_writer) = tokio::io::split(near_wire);
        let (far_reader, far_writer) = tokio::io::split(far_wire);
        tokio::spawn(Arc::clone(self).pump((from, to), near_reader, far_writer, reset.clone()));
        tokio::spawn(Arc::clone(self).pump((to, from), far_reader, near_writer, reset));
        (near, far)
    }

    async fn pump(
        self: Arc<Self>,
        (from, to): (u64, u64),
        mut reader: ReadHalf<DuplexStream>,
        mut writer: WriteHalf<DuplexStream>,
        reset: CancellationToken,
    ) {
        let carried = reset.run_until_cancelled(async {
            let mut buffer = Vec::with_capacity(CHUNK_BYTES);
            loop {
                buffer.clear();
                let read =
                    tokio::time::timeout(KEEPALIVE, async { (&mut reader).take(64 << 10).read_buf(&mut buffer).await });
                let ended = match read.await {
                    Ok(read) => read? == 0,
                    // Nothing is said: the kernel asks whether the other side is there.
                    Err(_) => {
                        self.deliver(from, to).await?;
                        continue;
                    }
                };
                self.deliver(from, to).await?;
                if ended {
                    writer.shutdown().await?;
                    return Ok::<_, io::Error>(());
                }
                writer.write_all(&buffer).await?;
            }
        });
        if !matches!(carried.await, Some(Ok(()))) {
            reset.cancel();
        }
    }
}

struct SimDialer {
    net: Arc<Net>,
    from: u64,
}

impl Dialer for SimDialer {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<PeerStream>> {
        let (net, from) = (Arc::clone(&self.net), self.from);
        let to = Net::node_of(address);
        Box::pin(async move {
            let to = to.ok_or(io::ErrorKind::NotFound)?;
            let connect = async {
                net.deliver(from, to).await?;
                let listener = net.hosts.lock().unwrap().listeners.get(&to).cloned();
                let listener = listener.ok_or(io::ErrorKind::ConnectionRefused)?;
                let (near, far) = net.connect(from, to);
                listener.try_send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
                net.deliver(to, from).await?;
                let near: PeerStream = Box::new(near);
                Ok(near)
            };
            let connected = tokio::time::timeout(net.timing.connect(), connect).await;
            connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
        })
    }
}

struct SimAcceptor {
    dialed: mpsc::Receiver<DuplexStream>,
}

impl Acceptor for SimAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(PeerStream, String)>> {
        Box::pin(async move {
            match self.dialed.recv().await {
                Some(stream) => {
                    let stream: PeerStream = Box::new(stream);
                    Ok((stream, "a host of the simulation".to_owned()))
                }
                None => std::future::pending().await,
            }
        })
    }
}
