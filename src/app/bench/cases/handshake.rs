//! `bench handshake`: how many TLS connections the server accepts in a second, with full handshakes and with resumed
//! sessions. A handshake is measured from the connect to its end; of a resumed one, to the arrival of the next ticket.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rollbook_cluster::lock::lock;
use rustls::client::{
    ClientSessionMemoryCache, ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue,
};
use rustls::pki_types::ServerName;
use rustls::{HandshakeKind, NamedGroup};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::load::Stop;
use crate::app::bench::args::HandshakeArgs;
use crate::app::bench::client::http::Target;
use crate::app::bench::client::stream::Tls;
use crate::app::bench::context::{Context, progress_line};
use crate::app::bench::figures::{Case, Figures, Latency, Report, latency, plural, record};
use crate::app::bench::units::{Clock, float, nanos, per_second};

/// Longest wait for a handshake with its ticket.
const PATIENCE: Duration = Duration::from_secs(5);
/// Sessions of one worker. A server gives two tickets or a few more for each connection.
const SESSIONS_MAX: usize = 16;

/// Runs `handshake` for each number of connections at the same time.
pub(in crate::app::bench) async fn run(context: &Context, args: &HandshakeArgs) -> Result<Report> {
    let tls = context.target.tls().context("a handshake needs TLS: give --url https://HOST:PORT")?;
    let mut report = Report { bench: "handshake", cases: Vec::new(), first_error: None };
    for &connections in &args.connections {
        ensure!(connections > 0, "--connections must be at least 1");
        for resumed in [false, true] {
            let what = if resumed { "resumed" } else { "full" };
            let mut case = Case::new(format!("{what}, {} at a time", plural(connections, "connection")));
            for run in 1..=context.runs {
                let line = progress_line(format!("handshake: {}, run {run} of {}", case.name, context.runs));
                case.runs.push(once(context, tls, connections, resumed).await?);
                line.finish_and_clear();
            }
            report.cases.push(case);
        }
    }
    Ok(report)
}

#[derive(Debug)]
struct Shared {
    target: Target,
    clock: Clock,
    until: u64,
    budget: u64,
    started: AtomicU64,
    done: AtomicU64,
    resumed: AtomicU64,
    latency: Mutex<Latency>,
}

async fn once(context: &Context, tls: &Tls, connections: usize, resumed: bool) -> Result<Figures> {
    let (time, budget) = match context.stop() {
        Stop::After(time) => (time, u64::MAX),
        Stop::Count(n) => (Duration::from_secs(u64::from(u32::MAX)), n),
    };
    // The first connection of each worker gets the first tickets, and is not measured.
    let mut workers = Vec::with_capacity(connections);
    for _ in 0..connections {
        let worker = Worker::new(tls, resumed);
        worker.connect(&context.target).await?;
        workers.push(worker);
    }
    let cpu = context.meter.cpu_seconds().await;
    let clock = Clock::start();
    let shared = Arc::new(Shared {
        target: context.target.clone(),
        clock,
        until: clock.now().saturating_add(nanos(time)),
        budget,
        started: AtomicU64::new(0),
        done: AtomicU64::new(0),
        resumed: AtomicU64::new(0),
        latency: Mutex::new(latency()?),
    });
    let mut running = JoinSet::new();
    for worker in workers {
        running.spawn(worker.work(Arc::clone(&shared)));
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let (elapsed, done) = (Duration::from_nanos(clock.now()), shared.done.load(Ordering::Relaxed));
    let after = context.meter.cpu_seconds().await;
    let mut figures = Figures::default();
    figures.set("handshakes_per_s", per_second(done, elapsed));
    figures.set_latency(&lock(&shared.latency));
    figures.set("resumed_percent", float(shared.resumed.load(Ordering::Relaxed)) * 100.0 / float(done.max(1)));
    let each = |before: Option<f64>, after: Option<f64>| Some((after? - before?) * 1e6 / float(done.max(1)));
    figures.set_known("server_cpu_us", each(cpu, after));
    Ok(figures)
}

/// Makes one connection after the other, with sessions of its own.
#[derive(Debug)]
struct Worker {
    tls: Tls,
    /// `None` makes each handshake a full one.
    sessions: Option<Arc<Sessions>>,
}

impl Worker {
    fn new(tls: &Tls, resumed: bool) -> Self {
        let sessions = resumed.then(|| Arc::new(Sessions::default()));
        let mut config = (*tls.config).clone();
        config.resumption = match &sessions {
            Some(sessions) => Resumption::store(Arc::<Sessions>::clone(sessions)),
            None => Resumption::disabled(),
        };
        Self { tls: Tls { config: Arc::new(config), name: tls.name.clone() }, sessions }
    }

    async fn work(self, shared: Arc<Shared>) -> Result<()> {
        while shared.clock.now() < shared.until && shared.started.fetch_add(1, Ordering::Relaxed) < shared.budget {
            let begun = shared.clock.now();
            let kind = self.connect(&shared.target).await?;
            record(&shared.latency, shared.clock.now().saturating_sub(begun));
            shared.done.fetch_add(1, Ordering::Relaxed);
            if kind == Some(HandshakeKind::Resumed) {
                shared.resumed.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Makes a connection and drops it.
    async fn connect(&self, target: &Target) -> Result<Option<HandshakeKind>> {
        let connected = timeout(PATIENCE, async {
            let before = self.sessions.as_ref().map_or(0, |sessions| sessions.count());
            let mut stream = self.tls.handshake(target.socket().await?).await?;
            if let Some(sessions) = &self.sessions {
                sessions.more_than(before, &mut stream).await?;
            }
            Ok(stream.get_ref().1.handshake_kind())
        });
        let reason = match self.sessions {
            Some(_) => "no handshake with a ticket for the next one in 5 s; does the server resume sessions?",
            None => "no handshake in 5 s",
        };
        connected.await.context(reason)?
    }
}

/// The sessions of one worker, which tell when the next one has arrived.
#[derive(Debug)]
struct Sessions {
    cache: ClientSessionMemoryCache,
    arrived: AtomicU64,
    news: Notify,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { cache: ClientSessionMemoryCache::new(SESSIONS_MAX), arrived: AtomicU64::new(0), news: Notify::new() }
    }
}

impl Sessions {
    fn count(&self) -> u64 {
        self.arrived.load(Ordering::Acquire)
    }

    fn add(&self) {
        self.arrived.fetch_add(1, Ordering::Release);
        self.news.notify_one();
    }

    /// Reads from the connection until more than `before` sessions have arrived in all.
    async fn more_than(&self, before: u64, stream: &mut (impl AsyncRead + Unpin)) -> Result<()> {
        let mut byte = [0];
        while self.count() <= before {
            tokio::select! {
                () = self.news.notified() => {}
                read = stream.read(&mut byte) => {
                    ensure!(read? > 0, "the server closed the connection before it gave a ticket");
                }
            }
        }
        Ok(())
    }
}

impl ClientSessionStore for Sessions {
    fn set_kx_hint(&self, server_name: ServerName<'static>, group: NamedGroup) {
        self.cache.set_kx_hint(server_name, group);
    }

    fn kx_hint(&self, server_name: &ServerName<'_>) -> Option<NamedGroup> {
        self.cache.kx_hint(server_name)
    }

    fn set_tls12_session(&self, server_name: ServerName<'static>, value: Tls12ClientSessionValue) {
        self.cache.set_tls12_session(server_name, value);
        self.add();
    }

    fn tls12_session(&self, server_name: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        self.cache.tls12_session(server_name)
    }

    fn remove_tls12_session(&self, server_name: &ServerName<'static>) {
        self.cache.remove_tls12_session(server_name);
    }

    fn insert_tls13_ticket(&self, server_name: ServerName<'static>, value: Tls13ClientSessionValue) {
        self.cache.insert_tls13_ticket(server_name, value);
        self.add();
    }

    fn take_tls13_ticket(&self, server_name: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.cache.take_tls13_ticket(server_name)
    }
}

#[cfg(test)]
mod tests {
    use reqwest::Url;
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;
    use tokio_rustls::TlsAcceptor;

    use super::*;
    use crate::app::bench::client::http::Connection;
    use crate::app::bench::meter::Meter;
    use crate::app::cli::access::resolve::Access;
    use crate::app::cli::access::test_ca::TestCa;
    use crate::app::cli::access::tls::TlsFiles;

    /// A server over TLS that answers every request with 202.
    async fn context(dir: &tempfile::TempDir) -> Context {
        let ca = TestCa::new(dir.path());
        let acceptor = TlsAcceptor::from(Arc::new(ca.server(false)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    // A client that only shakes hands leaves in the middle of it.
                    let Ok(mut stream) = acceptor.accept(socket).await else { return };
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {
                        if stream.write_all(b"HTTP/1.1 202 Ok\r\ncontent-length: 0\r\n\r\n").await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        let access = Access::given(&url, TlsFiles { ca: Some(ca.file), ..TlsFiles::default() }, None);
        let target = Target::resolve(&Url::parse(&url).unwrap(), &access).await.unwrap();
        let (web, meter, subject, duration) = (None, Meter::Unknown, None, None);
        Context { target, web, meter, subject, size: 200, duration, n: Some(20), runs: 1 }
    }

    #[tokio::test]
    async fn full_handshakes_are_full_and_resumed_ones_are_resumed() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(&dir).await;
        let report = run(&context, &HandshakeArgs { connections: vec![2] }).await.unwrap();
        let resumed: Vec<_> = report.cases.iter().map(|case| case.median().get("resumed_percent")).collect();
        assert_eq!(resumed, [Some(0.0), Some(100.0)], "{:#}", report.json());
    }

    #[tokio::test]
    async fn requests_go_over_tls_and_connections_resume_their_session() {
        let dir = tempfile::tempdir().unwrap();
        let context = context(&dir).await;
        for _ in 0..3 {
            let mut connection = Connection::open(&context.target).await.unwrap();
            for _ in 0..2 {
                assert_eq!(connection.ask(&context.target.get("/", "*/*")).await.unwrap().status, 202);
            }
        }
        let last = context.target.connect().await.unwrap();
        let crate::app::bench::client::stream::Stream::Tls(last) = last else { panic!("not over TLS") };
        assert_eq!(last.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }

    #[tokio::test]
    async fn without_tls_there_is_no_handshake() {
        let dir = tempfile::tempdir().unwrap();
        let context = Context { target: Target::plain("127.0.0.1:1".parse().unwrap()), ..context(&dir).await };
        let told = run(&context, &HandshakeArgs { connections: vec![1] }).await.unwrap_err().to_string();
        assert!(told.contains("give --url https://"), "{told}");
    }
}
