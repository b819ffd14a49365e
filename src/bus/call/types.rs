//! The words of the router: its bounds, its way to other nodes, what an answer is and does.

use std::sync::Arc;
use std::time::Duration;

use rollbook_core::service::Connection;
use tokio::sync::oneshot;

use super::choice::Strategies;
use crate::bus::client::call::{Outcome, Payload, Request};

/// A client may have this part of what the node may have in flight, and all HTTP callers together that one.
pub(super) const CLIENT_SHARE: usize = 8;
pub(super) const HTTP_SHARE: usize = 2;

/// Bounds of the router.
#[derive(Debug, Clone)]
pub struct RouterConfig {
    /// How long a request may take that does not say so.
    pub timeout: Duration,
    /// How long one may take that does.
    pub timeout_max: Duration,
    /// Most requests in flight at this node. One client has at most an eighth of it, all HTTP callers together half.
    pub in_flight_max: usize,
    /// Most bytes of them that the node keeps, payloads included; the same shares.
    pub in_flight_bytes_max: usize,
    /// Most requests that one instance has at a time, as far as this node knows.
    pub in_flight_per_instance: u32,
    /// How providers are chosen.
    pub strategies: Strategies,
}

/// Who waits for the outcome of a request, which ends without one when whoever waits has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Requester {
    /// A client of this node, by its serial.
    Client(u64),
    /// Somebody who asks over HTTP, by a number of the router.
    Http(u64),
    /// Another node, by its number, and the number that the request has there.
    Node(u64, u64),
}

/// A request that goes to a client of another node.
#[derive(Debug)]
pub struct Sent {
    /// The client.
    pub to: Connection,
    /// The number of the request here.
    pub number: u64,
    /// What is asked.
    pub request: Arc<Request>,
    /// With what.
    pub payload: Payload,
}

/// The way of a request to another node.
pub trait RemoteCaller: Send + Sync + 'static {
    /// Asks a client of another node; the outcome comes by `reply`, unless `()` is sent first: nobody waits for it then,
    /// and the other node is told.
    fn call(&self, sent: Sent, reply: Box<dyn FnOnce(Outcome) + Send>) -> oneshot::Sender<()>;
}

/// Under what name a provider answers.
#[derive(Debug, Clone, Copy)]
pub enum Key<'a> {
    /// The id that it was handed.
    Id(&'a str),
    /// The number that it was handed.
    Number(u64),
}

/// What became of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// It is on its way to the caller.
    Yes,
    /// The caller had been told before that there is none.
    Late,
    /// Nobody waits for it, as the request said.
    NotAwaited,
    /// The caller has left.
    CallerGone,
    /// This client was not asked that.
    Unknown,
}

/// The load of an instance as one node sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadView {
    /// Requests it has now.
    pub in_flight: u32,
    /// Requests that ended with an answer.
    pub answered: u64,
    /// Requests that ended without one.
    pub failed: u64,
    /// Time of all of them together.
    pub busy: Duration,
    /// By capability.
    pub breakers: Vec<BreakerView>,
}

/// A breaker as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BreakerView {
    /// The capability.
    pub capability: String,
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Failures in the present minute.
    pub failures: u32,
}
