//! Nodes of a cluster in this process, each behind a wire that a test can make slow, or cut without a word.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rollbook_cluster::node::Node;
use rollbook_cluster::running::{NodeConfig, Running};
use rollbook_cluster::timing::HEARTBEAT;
use rollbook_cluster::tls::{TlsFiles, node_name};
use rollbook_core::command::{Command, NamespaceCreate, Reply};
use rollbook_core::level::FeatureLevel;
use rollbook_core::namespace::Retention;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};

/// What a wire does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    /// Takes no byte and says nothing.
    cut: bool,
    /// How often the wire was cut. A connection that was there then never carries a byte again: TCP would send after
    /// a time as long as the cut, which nobody can wait for.
    cuts: u32,
    delay: Duration,
}

/// A TCP forwarder in front of a node.
pub(crate) struct Wire {
    pub(crate) address: String,
    state: watch::Sender<State>,
}

impl Wire {
    fn start(to: SocketAddr, delay: Duration) -> Self {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = watch::Sender::new(State { cut: false, cuts: 0, delay });
        let states = state.clone();
        tokio::spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let state = states.subscribe();
                tokio::spawn(async move {
                    near.set_nodelay(true).unwrap();
                    if state.borrow().cut {
                        // Nobody answers, and nobody refuses.
                        dead().await;
                    }
                    // Without a node behind the wire the connection ends.
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    far.set_nodelay(true).unwrap();
                    let (near_in, near_out) = near.into_split();
                    let (far_in, far_out) = far.into_split();
                    tokio::spawn(carry(near_in, far_out, state.clone()));
                    tokio::spawn(carry(far_in, near_out, state));
                });
            }
        });
        Self { address, state }
    }

    /// Packets are lost from now on.
    pub(crate) fn cut(&self) {
        self.state.send_modify(|state| (state.cut, state.cuts) = (true, state.cuts + 1));
    }

    pub(crate) fn heal(&self) {
        self.state.send_modify(|state| state.cut = false);
    }
}

async fn dead() {
    std::future::pending::<()>().await;
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut state: watch::Receiver<State>) {
    let cuts = state.borrow().cuts;
    let (sender, mut arrived) = mpsc::channel::<(tokio::time::Instant, Vec<u8>)>(1024);
    let delays = state.clone();
    let read = async move {
        loop {
            let mut bytes = vec![0; 64 << 10];
            let count = from.read(&mut bytes).await.unwrap_or(0);
            bytes.truncate(count);
            let at = tokio::time::Instant::now() + delays.borrow().delay;
            if sender.send((at, bytes)).await.is_err() || count == 0 {
                return;
            }
        }
    };
    let write = async move {
        while let Some((at, bytes)) = arrived.recv().await {
            tokio::time::sleep_until(at).await;
            if bytes.is_empty() || to.write_all(&bytes).await.is_err() {
                break;
            }
        }
        to.shutdown().await.ok();
    };
    let mut both = std::pin::pin!(async { tokio::join!(read, write) });
    let cut = async { rollbook_cluster::wait::wait_until(&mut state, |state| state.cuts != cuts).await.is_ok() };
    tokio::select! {
        _ = &mut both => return,
        _ = cut => {}
    }
    // Both ends stay open, and carry nothing.
    dead().await;
}

/// What all nodes of a trial are started with.
#[derive(Clone)]
pub(crate) struct Plan {
    pub(crate) nodes: u64,
    pub(crate) delay: Duration,
    pub(crate) tls: bool,
}

/// A cluster.
pub(crate) struct Trial {
    pub(crate) wires: BTreeMap<u64, Wire>,
    running: BTreeMap<u64, Running>,
    ports: BTreeMap<u64, SocketAddr>,
    files: BTreeMap<u64, TlsFiles>,
    directory: tempfile::TempDir,
    runtime: tokio::runtime::Runtime,
    names: AtomicU32,
    /// One cluster at a time: tests look at the clock.
    _turn: MutexGuard<'static, ()>,
}

static TURN: Mutex<()> = Mutex::new(());

impl Trial {
    /// Starts all nodes; they may not have found each other yet.
    pub(crate) fn start(plan: &Plan) -> Self {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let listeners: BTreeMap<u64, StdListener> =
            (1..=plan.nodes).map(|id| (id, StdListener::bind("127.0.0.1:0").unwrap())).collect();
        let ports: BTreeMap<u64, SocketAddr> =
            listeners.iter().map(|(id, listener)| (*id, listener.local_addr().unwrap())).collect();
        let wires = {
            let _inside = runtime.enter();
            ports.iter().map(|(id, port)| (*id, Wire::start(*port, plan.delay))).collect()
        };
        let files = if plan.tls { certificates(directory.path(), plan.nodes) } else { BTreeMap::new() };
        let (running, names) = (BTreeMap::new(), AtomicU32::new(0));
        let mut trial = Self { wires, running, ports, files, directory, runtime, names, _turn: turn };
        for (id, listener) in listeners {
            trial.run(id, listener);
        }
        trial
    }

    /// The same, with a leader that all know.
    pub(crate) fn ready(plan: &Plan) -> Self {
        let trial = Self::start(plan);
        trial.wait("all nodes are ready", Duration::from_secs(30), || trial.all_ready());
        trial
    }

    fn run(&mut self, id: u64, listener: StdListener) {
        let config = NodeConfig {
            id,
            data: self.directory.path().join(id.to_string()),
            listener: Some(listener),
            address: self.wires[&id].address.clone(),
            founders: self.wires.iter().map(|(id, wire)| (*id, wire.address.clone())).collect(),
            tls: self.files.get(&id).cloned(),
            timeout: Duration::from_secs(10),
            node_timeout: Duration::from_secs(5),
            heartbeat: HEARTBEAT,
            log_keep_bytes: 64 << 20,
            level: FeatureLevel::LATEST,
            accept_lost_mark: false,
        };
        self.running.insert(id, Running::start(config).unwrap());
    }

    pub(crate) fn stop(&mut self, id: u64) {
        self.running.remove(&id).unwrap().stop().unwrap();
    }

    pub(crate) fn restart(&mut self, id: u64) {
        let port = self.ports[&id];
        let until = Instant::now() + Duration::from_secs(10);
        let listener = loop {
            match StdListener::bind(port) {
                Ok(listener) => break listener,
                Err(error) => assert!(Instant::now() < until, "{port}: {error}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        self.run(id, listener);
    }

    pub(crate) fn node(&self, id: u64) -> Node {
        self.running[&id].node()
    }

    pub(crate) fn ids(&self) -> Vec<u64> {
        self.running.keys().copied().collect()
    }

    pub(crate) fn all_ready(&self) -> Option<()> {
        self.running.values().all(|running| running.node().consensus().ready().is_ok()).then_some(())
    }

    /// The leader that all running nodes name.
    pub(crate) fn leader(&self) -> Option<u64> {
        let named: Vec<Option<u64>> =
            self.running.values().map(|running| running.node().consensus().status().leader).collect();
        let first = named.first().copied().flatten()?;
        named.iter().all(|leader| *leader == Some(first)).then_some(first)
    }

    /// Waits until there is what is looked for; gives how long that took.
    pub(crate) fn wait<T>(&self, what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> (T, Duration) {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return (found, began.elapsed());
            }
            if began.elapsed() > within {
                let seen: Vec<String> = self
                    .running
                    .values()
                    .map(|running| {
                        format!("{:?} {:?}", running.node().consensus().ready(), running.node().consensus().status())
                    })
                    .collect();
                panic!("after {within:?} not yet: {what}\n{}", seen.join("\n"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Begins to create a namespace of a new name through a node.
    pub(crate) fn begin(&self, through: u64) -> (String, tokio::task::JoinHandle<Reply>) {
        let name = format!("n{}", self.names.fetch_add(1, Ordering::Relaxed));
        let create = NamespaceCreate { name: name.clone(), retention: Retention::default() };
        let node = self.node(through);
        (name, self.runtime.spawn(async move { node.proposals().command(Command::NamespaceCreate(create)).await }))
    }

    pub(crate) fn end(&self, begun: tokio::task::JoinHandle<Reply>) -> Reply {
        self.runtime.block_on(begun).unwrap()
    }

    /// Creates a namespace of a new name through a node.
    pub(crate) fn write(&self, through: u64) -> String {
        let (name, begun) = self.begin(through);
        self.end(begun).unwrap();
        name
    }
}

/// Also of a test that failed: RocksDB aborts a process that ends before it is closed.
impl Drop for Trial {
    fn drop(&mut self) {
        for (_, running) in std::mem::take(&mut self.running) {
            if let Err(error) = running.stop() {
                eprintln!("a node did not stop well: {error}");
            }
        }
    }
}

fn certificates(directory: &Path, nodes: u64) -> BTreeMap<u64, TlsFiles> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = Arc::new(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap());
    let ca = directory.join("ca.pem");
    std::fs::write(&ca, issuer.pem()).unwrap();
    let issue = |id: u64| {
        let key = KeyPair::generate().unwrap();
        let files = TlsFiles {
            ca: ca.clone(),
            certificate: directory.join(format!("{id}.pem")),
            key: directory.join(format!("{id}.key")),
        };
        let certificate = CertificateParams::new(vec![node_name(id)]).unwrap().signed_by(&key, &issuer).unwrap();
        std::fs::write(&files.certificate, certificate.pem()).unwrap();
        std::fs::write(&files.key, key.serialize_pem()).unwrap();
        (id, files)
    };
    (1..=nodes).map(issue).collect()
}
