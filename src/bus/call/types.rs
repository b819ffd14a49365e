//! The types that the router shares with its callers: bounds, requesters, the call to another node, and the result of
//! an answer.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::service::Connection;
use tokio::sync::oneshot;

use super::choice::Strategies;
use crate::bus::client::call::{Outcome, Payload, Request};

/// One client may have one part in this many of the requests in flight; all HTTP callers together one part in
/// [`HTTP_SHARE`].
pub(super) const CLIENT_SHARE: usize = 8;
/// See [`CLIENT_SHARE`].
pub(super) const HTTP_SHARE: usize = 2;

/// Bounds of the router.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// Timeout of requests that name none.
    pub timeout: Duration,
    /// Longest timeout that a request may name.
    pub timeout_max: Duration,
    /// Most requests in flight at this node. One client has at most an eighth of them, all HTTP callers together half.
    pub in_flight_max: usize,
    /// Most bytes that the node keeps for requests in flight, payloads included; the same shares.
    pub in_flight_bytes_max: usize,
    /// Most requests in flight to one instance, as far as this node knows.
    pub in_flight_per_instance: u32,
    /// How providers are chosen.
    pub strategies: Strategies,
}

/// Who waits for the outcome of a request. When the requester leaves, its requests end without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Requester {
    /// A client of this node, by its serial number.
    Client(u64),
    /// An HTTP caller, by a number of the router.
    Http(u64),
    /// Another node, by its number, and the number that the request has there.
    Node(u64, u64),
}

/// A request to a client of another node.
#[derive(Debug)]
pub struct RemoteRequest {
    /// The client.
    pub to: Connection,
    /// The number of the request at this node.
    pub number: u64,
    /// The request.
    pub request: Arc<Request>,
    /// Its payload.
    pub payload: Payload,
}

/// Sends requests to clients of other nodes.
pub trait RemoteCaller: Send + Sync + 'static {
    /// Sends a request; `reply` receives the outcome. When `()` is sent through the returned sender first, no caller
    /// waits any more and the other node is told so.
    fn call(&self, sent: RemoteRequest, reply: Box<dyn FnOnce(Outcome) + Send>) -> oneshot::Sender<()>;
}

/// How a provider names the request that it answers.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    /// By the id that it got with the request.
    Id(&'a str),
    /// By the number that it got with the request.
    Number(u64),
}

/// The result of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The answer goes to the caller.
    Yes,
    /// The request had ended before; the caller was told that there is no answer.
    Late,
    /// The request said that no answer is awaited.
    NotAwaited,
    /// The caller has left.
    CallerGone,
    /// This client has no such request.
    Unknown,
}

/// The load of an instance, as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadView {
    /// Requests in flight.
    pub in_flight: u32,
    /// Requests that ended with an answer.
    pub answered: u64,
    /// Requests that ended without an answer.
    pub failed: u64,
    /// Total time of all ended requests.
    pub busy: Duration,
    /// The circuit breakers of its capabilities.
    pub breakers: Vec<BreakerView>,
}

/// A circuit breaker, as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerView {
    /// The capability.
    pub capability: String,
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Failures in the present window.
    pub failures: u32,
}
