//! The listeners of a node: bound before anything is opened, served by the doors, closed together.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix_http::{Request, Response};
use actix_server::{Server, ServerBuilder};
use actix_service::{IntoServiceFactory, ServiceFactory};
use actix_web::Error;
use actix_web::body::MessageBody;
use actix_web::dev::{AppConfig, ServerHandle};
use tokio_util::sync::CancellationToken;

use super::connects::Connects;
use super::limits::ListenerLimits;
use super::settings::ListenerSettings;
use super::tcp::{self, Connection};
use crate::base::metrics::Metrics;
use crate::net::http::hosts::Hosts;
use crate::net::http::server;
use crate::net::http::settings::{HttpListener, HttpSettings};
use crate::net::tls::certificates::{Certificates, Policy, ServerTls};
use crate::net::tls::settings::ListenerTls;

/// Connections that the system keeps for a listener until a thread takes them.
const BACKLOG: u32 = 4096;

/// A listener that is served.
#[derive(Debug)]
struct Served {
    url: String,
    limits: Arc<ListenerLimits>,
    server: ServerHandle,
}

/// What all listeners of a node share.
#[derive(Debug)]
pub struct Shared {
    /// Names under which the node may be asked over HTTP.
    pub hosts: Hosts,
    /// The counters.
    pub metrics: Metrics,
    /// The certificate of the listeners; none: no listener speaks TLS.
    pub certificates: Option<Arc<Certificates>>,
    /// How often an address may connect.
    pub connects: Connects,
}

/// The listeners of a node.
pub struct Listeners {
    bound: Vec<(&'static str, TcpListener)>,
    served: Vec<Served>,
    hosts: Hosts,
    metrics: Metrics,
    certificates: Option<Arc<Certificates>>,
    connects: Arc<Connects>,
    threads: usize,
    drain_timeout: Duration,
    stopping: CancellationToken,
}

impl Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listeners").field("served", &self.served).finish_non_exhaustive()
    }
}

impl Listeners {
    /// Listeners on these sockets, by name. They are served by `threads` unless a door asks for another number. When
    /// they are stopped, requests may take `drain_timeout`.
    #[must_use]
    pub fn new(
        bound: Vec<(&'static str, TcpListener)>,
        shared: Shared,
        threads: usize,
        drain_timeout: Duration,
    ) -> Self {
        let (served, stopping) = (Vec::new(), CancellationToken::new());
        let Shared { hosts, metrics, certificates, connects } = shared;
        let connects = Arc::new(connects);
        Self { bound, served, hosts, metrics, certificates, connects, threads, drain_timeout, stopping }
    }

    /// Names under which the node may be asked over HTTP.
    #[must_use]
    pub const fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// Threads that serve a listener of a door.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.threads
    }

    /// Serves HTTP on the socket of that name, with an application that each of so many threads builds. Nothing
    /// happens when the socket is not there: the settings close it.
    ///
    /// # Errors
    /// The socket or the CA of clients cannot be used.
    pub fn http<I, S, B>(
        &mut self,
        threads: usize,
        listener: (ListenerSettings, HttpSettings),
        application: impl Fn() -> I + Send + Clone + 'static,
    ) -> io::Result<()>
    where
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig, Error: Into<Error>, InitError: Debug, Service: 'static>
            + 'static,
        S::Response: Into<Response<B>> + 'static,
        B: MessageBody + 'static,
    {
        let (settings, http) = listener;
        let Some((socket, limits)) = self.take(settings, true)? else { return Ok(()) };
        let (address, stopping) = (socket.local_addr()?, self.stopping.clone());
        let scheme = if limits.tls().is_some() { "https" } else { "http" };
        let listener = Arc::new(HttpListener { settings: http, limits: Arc::clone(&limits) });
        let server = server::listen(self.builder(threads), socket, listener, stopping, application)?;
        self.serve(limits, (scheme, address), server);
        Ok(())
    }

    /// Serves a protocol of its own on the socket of that name: `serve` has each connection until it ends, and has to
    /// end it soon after [`Connection::stopping`] is cancelled. A connection that finds no room is sent `refusal`.
    /// Nothing happens when the socket is not there: the settings close it.
    ///
    /// # Errors
    /// The socket or the CA of clients cannot be used.
    pub fn tcp<F: Future<Output = ()> + 'static>(
        &mut self,
        settings: ListenerSettings,
        refusal: &'static [u8],
        serve: impl Fn(Connection) -> F + Send + Clone + 'static,
    ) -> io::Result<()> {
        let Some((socket, limits)) = self.take(settings, false)? else { return Ok(()) };
        let (address, stopping) = (socket.local_addr()?, self.stopping.clone());
        let scheme = if limits.tls().is_some() { "tls" } else { "tcp" };
        let builder = self.builder(self.threads);
        let server = tcp::listen(builder, socket, (Arc::clone(&limits), refusal), stopping, serve)?;
        self.serve(limits, (scheme, address), server);
        Ok(())
    }

    /// The socket of that name and the bounds of its listener. `None`: the settings close the listener.
    fn take(
        &mut self,
        settings: ListenerSettings,
        http: bool,
    ) -> io::Result<Option<(TcpListener, Arc<ListenerLimits>)>> {
        let Some(place) = self.bound.iter().position(|(name, _)| *name == settings.name) else { return Ok(None) };
        let tls = self.tls(&settings, http)?;
        let (_, socket) = self.bound.swap_remove(place);
        let loopback = socket.local_addr()?.ip().is_loopback();
        let limits = ListenerLimits::new((settings, loopback), self.metrics.clone(), tls, Arc::clone(&self.connects));
        Ok(Some((socket, limits)))
    }

    /// The configuration of TLS of a listener, if it speaks TLS.
    fn tls(&self, settings: &ListenerSettings, http: bool) -> io::Result<Option<Arc<ServerTls>>> {
        let Some(certificates) = &self.certificates else { return Ok(None) };
        if !certificates.settings().serves(settings.tls) {
            return Ok(None);
        }
        let (client_certificates, client_ca) = (certificates.settings().asks(settings.tls), settings.client_ca.clone());
        let policy = Policy { client_certificates, client_ca, http };
        certificates.listener(settings.name, policy).map(Some).map_err(io::Error::other)
    }

    fn builder(&self, threads: usize) -> ServerBuilder {
        Server::build()
            .workers(threads)
            .backlog(BACKLOG)
            // The listener counts for itself, so that whoever finds no room is told.
            .max_concurrent_connections(usize::MAX)
            .shutdown_timeout(self.drain_timeout.as_secs())
            .disable_signals()
    }

    fn serve(&mut self, limits: Arc<ListenerLimits>, (scheme, address): (&str, SocketAddr), server: Server) {
        let url = format!("{scheme}://{address}/");
        self.served.push(Served { url, limits, server: server.handle() });
        actix_web::rt::spawn(server);
    }

    /// The address of the socket of that name, before it is served.
    ///
    /// # Errors
    /// The system does not say it.
    pub fn address(&self, name: &str) -> io::Result<Option<SocketAddr>> {
        let socket = self.bound.iter().find(|(known, _)| *known == name);
        socket.map(|(_, socket)| socket.local_addr()).transpose()
    }

    /// Whether a listener with these settings speaks TLS.
    #[must_use]
    pub fn speaks_tls(&self, settings: ListenerTls) -> bool {
        self.certificates.as_ref().is_some_and(|certificates| certificates.settings().serves(settings))
    }

    /// Names of the sockets that nobody serves: their clients would wait for ever.
    pub fn unserved(&self) -> impl Iterator<Item = &'static str> {
        self.bound.iter().map(|(name, _)| *name)
    }

    /// Name and address of every listener that is served, in the order in which they were opened.
    pub fn urls(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.served.iter().map(|served| (served.limits.settings.name, &*served.url))
    }

    /// Ends idle connections, and those that are served with their next answer.
    pub fn drain(&self) {
        self.stopping.cancel();
    }

    /// How many connections are open, those that carry a stream or a WebSocket not counted.
    #[must_use]
    pub fn open(&self) -> usize {
        self.served.iter().map(|served| served.limits.open()).sum()
    }

    /// Closes every listener. When `graceful`, connections may take as long as the drain timeout.
    pub async fn stop(&self, graceful: bool) {
        futures_util::future::join_all(self.served.iter().map(|served| served.server.stop(graceful))).await;
    }
}
