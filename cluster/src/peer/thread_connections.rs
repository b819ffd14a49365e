//! Assigns connections between nodes to threads.
//!
//! Live messages go from one client to another, and the client that waits for a message lives on a thread of the floor
//! above. A thread that registers here has its own connections to other nodes and takes their connections, so that a
//! live message wakes no other thread on its way.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio_rustls::server::TlsStream;

use crate::lock::lock;

thread_local! {
    static LANE: Cell<u64> = const { Cell::new(0) };
}

/// The connections for live messages that this thread uses: those of its own, or 0, which all other threads share.
pub(crate) fn lane() -> u64 {
    LANE.get()
}

/// The threads that take connections for live messages.
#[derive(Debug, Default)]
pub(crate) struct ThreadConnections {
    threads: Mutex<Vec<Handle>>,
    turn: AtomicUsize,
}

impl ThreadConnections {
    /// The calling thread, which runs a runtime of its own, is one of them.
    pub(crate) fn add_this_thread(&self) {
        static LANES: AtomicU64 = AtomicU64::new(1);
        if lane() != 0 {
            return;
        }
        LANE.set(LANES.fetch_add(1, Ordering::Relaxed));
        lock(&self.threads).push(Handle::current());
    }

    /// Runs what serves a connection on one of these threads, or here when there is none.
    pub(crate) async fn run<F: Future<Output = io::Result<()>> + Send + 'static>(&self, serve: F) -> io::Result<()> {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let thread = {
            let threads = lock(&self.threads);
            turn.checked_rem(threads.len()).and_then(|at| threads.get(at).cloned())
        };
        match thread {
            // A thread that has ended drops the connection, and with it its peer's: that calls again.
            Some(thread) => thread.spawn(serve).await.unwrap_or_else(|error| Err(io::Error::other(error))),
            None => serve.await,
        }
    }
}

/// A TCP connection that can move to another runtime.
#[derive(Debug)]
pub(crate) struct MovableTcp(Option<TcpStream>);

impl MovableTcp {
    pub(crate) const fn new(tcp: TcpStream) -> Self {
        Self(Some(tcp))
    }

    fn socket(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.0.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsyncRead for MovableTcp {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.socket() {
            Ok(tcp) => tcp.poll_read(cx, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncWrite for MovableTcp {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.socket() {
            Ok(tcp) => tcp.poll_write(cx, buf),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket() {
            Ok(tcp) => tcp.poll_flush(cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket() {
            Ok(tcp) => tcp.poll_shutdown(cx),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

/// A connection, plain or secure, that can move to another runtime.
pub(crate) trait Movable: AsyncRead + AsyncWrite + Send + Unpin {
    /// Belongs to the runtime of the caller from now on.
    fn settle(&mut self) -> io::Result<()>;

    /// The socket that carries it, unless it is carried in memory.
    fn tcp(&self) -> Option<&TcpStream>;
}

impl Movable for MovableTcp {
    fn settle(&mut self) -> io::Result<()> {
        if let Some(tcp) = self.0.take() {
            self.0 = Some(TcpStream::from_std(tcp.into_std()?)?);
        }
        Ok(())
    }

    fn tcp(&self) -> Option<&TcpStream> {
        self.0.as_ref()
    }
}

impl<S: Movable> Movable for TlsStream<S> {
    fn settle(&mut self) -> io::Result<()> {
        self.get_mut().0.settle()
    }

    fn tcp(&self) -> Option<&TcpStream> {
        self.get_ref().0.tcp()
    }
}

impl Movable for Box<dyn Movable> {
    fn settle(&mut self) -> io::Result<()> {
        self.as_mut().settle()
    }

    fn tcp(&self) -> Option<&TcpStream> {
        self.as_ref().tcp()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_connection_goes_on_in_the_runtime_of_the_thread_that_takes_it() {
        let threads = std::sync::Arc::new(ThreadConnections::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let mut far = MovableTcp::new(listener.accept().await.unwrap().0);
        near.write_all(b"a").await.unwrap();
        assert_eq!(far.read_u8().await.unwrap(), b'a');
        let (ready, wait) = std::sync::mpsc::channel();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let other = std::thread::spawn({
            let threads = std::sync::Arc::clone(&threads);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(async {
                    threads.add_this_thread();
                    ready.send(std::thread::current().id()).unwrap();
                    stopped.await.ok();
                });
            }
        });
        let thread = wait.recv().unwrap();
        near.write_all(b"b").await.unwrap();
        let serve = async move {
            assert_eq!((std::thread::current().id(), lane() > 0), (thread, true));
            far.settle()?;
            assert_eq!(far.read_u8().await?, b'b');
            far.write_all(b"c").await
        };
        threads.run(serve).await.unwrap();
        assert_eq!((near.read_u8().await.unwrap(), lane()), (b'c', 0));
        stop.send(()).ok();
        other.join().unwrap();
        let lost = threads.run(async { Ok(()) }).await;
        assert!(lost.is_err(), "a thread that has ended serves nobody");
    }
}
