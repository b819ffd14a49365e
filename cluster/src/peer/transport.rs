//! What carries bytes between nodes: TCP, or anything else that two nodes can reach each other by.
//!
//! [`super::link::Links`] dials and [`crate::replicate::server::Server`] accepts through these two traits and nothing
//! else. A test that gives both a pair of memory streams runs the whole transport without a socket, also on simulated
//! time.

use std::io;
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};

use super::thread_connections::{Movable, MovableTcp};
use crate::lab_faults::Bug;
use crate::timing::Timing;

/// A stream of bytes to or from another node.
pub(crate) type PeerStream = Box<dyn Movable>;

/// Opens connections.
pub(crate) trait Dialer: Send + Sync {
    /// Connects to an address. [`io::ErrorKind::ConnectionRefused`] means that no process listens there.
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<PeerStream>>;
}

/// Takes connections.
pub(crate) trait Acceptor: Send {
    /// The next connection, and where it comes from, for people. May be dropped before it resolves.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(PeerStream, String)>>;
}

/// TCP with the settings of links between nodes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tcp {
    pub(crate) timing: Timing,
}

/// Probes of a connection on which nothing is said; the times of the kernel are whole seconds.
const KEEPALIVE: Duration = Duration::from_secs(1);
const KEEPALIVE_PROBES: u32 = 3;

impl Tcp {
    /// Nothing waits for more bytes to send, and a connection whose other end is gone without a word ends by itself:
    /// TCP alone sends again for a quarter of an hour, at last every two minutes.
    fn prepare(self, tcp: &TcpStream) -> io::Result<()> {
        tcp.set_nodelay(true)?;
        if Bug::SilenceBelieved.is_on() {
            return Ok(());
        }
        sockopt::set_socket_keepalive(tcp, true)?;
        sockopt::set_tcp_keepidle(tcp, KEEPALIVE)?;
        sockopt::set_tcp_keepintvl(tcp, KEEPALIVE)?;
        sockopt::set_tcp_keepcnt(tcp, KEEPALIVE_PROBES)?;
        bound_silence(tcp, self.timing.unacknowledged())
    }
}

/// Ends a connection whose peer acknowledges nothing for that long, probes included.
fn bound_silence(tcp: &TcpStream, silence: Duration) -> io::Result<()> {
    let millis = u32::try_from(silence.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(tcp, millis).map_err(Into::into)
}

/// What a connection is for is known: a peer may take no bulk for a while and live.
pub(crate) fn configure(stream: &PeerStream, bulk: bool, timing: Timing) -> io::Result<()> {
    if Bug::SilenceBelieved.is_on() {
        return Ok(());
    }
    let silence = if bulk { timing.unacknowledged_bulk() } else { timing.unacknowledged() };
    stream.tcp().map_or(Ok(()), |tcp| bound_silence(tcp, silence))
}

impl Dialer for Tcp {
    fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<PeerStream>> {
        Box::pin(async move {
            let connected = tokio::time::timeout(self.timing.connect(), TcpStream::connect(address)).await;
            let tcp = connected.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "no answer in time"))??;
            self.prepare(&tcp)?;
            let stream: PeerStream = Box::new(MovableTcp::new(tcp));
            Ok(stream)
        })
    }
}

/// A TCP listener.
#[derive(Debug)]
pub(crate) struct TcpAcceptor {
    listener: TcpListener,
    tcp: Tcp,
}

impl TcpAcceptor {
    /// Takes over a bound listener, inside a runtime.
    pub(crate) fn new(listener: std::net::TcpListener, tcp: Tcp) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener: TcpListener::from_std(listener)?, tcp })
    }
}

impl Acceptor for TcpAcceptor {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<(PeerStream, String)>> {
        Box::pin(async move {
            loop {
                let (tcp, address) = self.listener.accept().await?;
                if let Err(error) = self.tcp.prepare(&tcp) {
                    tracing::debug!(%address, %error, "a connection ended before it began");
                    continue;
                }
                let stream: PeerStream = Box::new(MovableTcp::new(tcp));
                return Ok((stream, address.to_string()));
            }
        })
    }
}

#[cfg(test)]
pub(crate) mod memory {
    //! Nodes that reach each other in memory.

    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    use tokio::io::DuplexStream;
    use tokio::sync::mpsc;

    use super::*;

    /// Bytes on their way in one direction.
    const ROOM: usize = 256 << 10;

    impl Movable for DuplexStream {
        fn settle(&mut self) -> io::Result<()> {
            Ok(())
        }

        fn tcp(&self) -> Option<&TcpStream> {
            None
        }
    }

    /// Who listens, by address. Nobody else is there.
    #[derive(Clone, Default)]
    pub(crate) struct Memory {
        listeners: Arc<Mutex<HashMap<String, mpsc::Sender<DuplexStream>>>>,
    }

    impl Memory {
        pub(crate) fn listen(&self, address: &str) -> MemoryAcceptor {
            let (sender, dialed) = mpsc::channel(16);
            self.listeners.lock().unwrap().insert(address.to_owned(), sender);
            MemoryAcceptor { dialed }
        }
    }

    impl Dialer for Memory {
        fn dial<'a>(&'a self, address: &'a str) -> BoxFuture<'a, io::Result<PeerStream>> {
            let listener = self.listeners.lock().unwrap().get(address).cloned();
            Box::pin(async move {
                let (near, far) = tokio::io::duplex(ROOM);
                let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
                listener.ok_or_else(refused)?.send(far).await.map_err(|_| refused())?;
                let stream: PeerStream = Box::new(near);
                Ok(stream)
            })
        }
    }

    pub(crate) struct MemoryAcceptor {
        dialed: mpsc::Receiver<DuplexStream>,
    }

    impl Acceptor for MemoryAcceptor {
        fn accept(&mut self) -> BoxFuture<'_, io::Result<(PeerStream, String)>> {
            Box::pin(async move {
                let Some(stream) = self.dialed.recv().await else { return std::future::pending().await };
                let stream: PeerStream = Box::new(stream);
                Ok((stream, "memory".to_owned()))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::timing::HEARTBEAT;

    #[tokio::test]
    async fn both_ends_of_a_connection_end_when_the_other_host_is_gone() {
        let tcp = Tcp { timing: Timing::new(HEARTBEAT) };
        let mut acceptor = TcpAcceptor::new(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), tcp).unwrap();
        let address = acceptor.listener.local_addr().unwrap().to_string();
        let (near, far) = tokio::join!(tcp.dial(&address), acceptor.accept());
        let (near, (far, _)) = (near.unwrap(), far.unwrap());
        for end in [near, far] {
            let timing = tcp.timing;
            let tcp = end.tcp().unwrap();
            assert!(tcp.nodelay().unwrap() && sockopt::socket_keepalive(tcp).unwrap());
            assert_eq!(sockopt::tcp_keepidle(tcp).unwrap(), KEEPALIVE);
            assert_eq!(sockopt::tcp_user_timeout(tcp).unwrap(), 2500);
            configure(&end, true, timing).unwrap();
            assert_eq!(sockopt::tcp_user_timeout(tcp).unwrap(), 10_000);
        }
    }

    #[tokio::test]
    async fn nobody_there_is_a_refusal() {
        let tcp = Tcp { timing: Timing::new(HEARTBEAT) };
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
        assert_eq!(tcp.dial(&address).await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(memory::Memory::default().dial("a").await.err().unwrap().kind(), io::ErrorKind::ConnectionRefused);
    }
}
