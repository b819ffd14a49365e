//! Messages of this node to clients that are connected to other nodes.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use rollbook_cluster::node::Node;
use rollbook_core::error::Refusal;
use rollbook_core::service::Connection;
use tokio::sync::{oneshot, watch};

use super::frame::{Frame, decode_yes};
use super::live::{Call, ClientCommand, CloseClient, DoorMessage, KickClient, decode_outcome};
use crate::base::clock;
use crate::bus::call::survey::Wanted;
use crate::bus::call::types::{RemoteCaller, RemoteRequest};
use crate::bus::client::call::Outcome;
use crate::bus::client::clients::{ClientMessage, Clients, CloseReason, Command};
use crate::bus::error::Fault;

/// Longest wait for the list of clients of another node.
const SURVEY_MAX: Duration = Duration::from_secs(2);
/// Time that the peer link may take beyond the deadline of the request.
const LINK: Duration = Duration::from_millis(500);

/// The other nodes, as clients of this node need them. Clones share one link.
#[derive(Debug, Clone)]
pub struct PeerClient {
    /// Knows which nodes are up, and sends the messages.
    node: Node,
}

/// The result of a command of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// The client has acknowledged the command.
    Acknowledged,
    /// The client got the command and has not acknowledged it.
    Delivered,
    /// The client is not connected, or its queue is full.
    Failed,
    /// The client has no handler for the command.
    Unhandled,
}

impl Delivery {
    /// Name of the result, for the operator.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Unhandled => "unhandled",
        }
    }

    /// Number of the result in a message between nodes.
    pub(in crate::bus) const fn number(self) -> u32 {
        match self {
            Self::Failed => 0,
            Self::Delivered => 1,
            Self::Acknowledged => 2,
            Self::Unhandled => 3,
        }
    }

    const fn from_number(number: u32) -> Self {
        match number {
            1 => Self::Delivered,
            2 => Self::Acknowledged,
            3 => Self::Unhandled,
            _ => Self::Failed,
        }
    }
}

/// A command for a client.
#[derive(Debug, Clone)]
pub struct Order {
    /// Name of the command, without the prefix of a door.
    pub name: &'static str,
    /// Arguments: a JSON object.
    pub json: Bytes,
    /// How long to wait for the acknowledgement.
    pub wait: Duration,
}

/// The commands that exist. Names from other nodes are compared with this list.
const NAMES: [&str; 3] = ["restart", "shutdown", "ping"];

/// The command of this name.
pub(in crate::bus) fn command_name(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name)
}

/// Gives a command to a client of this node and waits for the acknowledgement.
pub(in crate::bus) async fn order_here(clients: Clients, serial: u64, order: Order) -> Delivery {
    let Some(client) = clients.find(serial) else { return Delivery::Failed };
    let (done, acknowledged) = oneshot::channel();
    if !client.tell(ClientMessage::Command(Command { name: order.name, json: order.json, done })) {
        return Delivery::Failed;
    }
    match tokio::time::timeout(order.wait, acknowledged).await {
        Ok(Ok(true)) => Delivery::Acknowledged,
        Ok(Ok(false)) => Delivery::Unhandled,
        // The client disconnected, as one does that restarts, or did not answer in time.
        Ok(Err(_)) | Err(_) => Delivery::Delivered,
    }
}

impl PeerClient {
    /// The other nodes of this node's cluster.
    #[must_use]
    pub const fn new(node: Node) -> Self {
        Self { node }
    }

    /// Closes the connection of a client of any node.
    pub fn close(&self, to: Connection, why: CloseReason, clients: &Clients) {
        self.close_at(CloseClient::new(to, why), || {
            clients.close(to.serial, why);
        });
    }

    /// Closes the connection of a client of any node, because another connection took its place.
    pub fn replace(&self, to: Connection, by: &str, clients: &Clients) {
        self.close_at(CloseClient::replaced(to, by), || clients.replace(to.serial, by));
    }

    /// Closes a client here, or through its node. Clients of an earlier life of this node are gone already.
    fn close_at(&self, close: CloseClient, here: impl FnOnce()) {
        let owner = close.to.owner;
        if owner == self.node.owner() {
            here();
        } else if owner.node != self.node.id() {
            self.send(owner.node, Frame::CloseClient(close));
        }
    }

    /// Sends a message that may be lost.
    fn send(&self, to: u64, frame: Frame) {
        let node = self.node.clone();
        tokio::spawn(async move {
            if let Err(refusal) = node.messages().tell(to, frame.into_bytes()).await {
                tracing::debug!(to, %refusal, "a live message was dropped");
            }
        });
    }

    /// Gives a command to a client of any node.
    pub async fn order(&self, to: Connection, order: Order, clients: &Clients) -> Delivery {
        if to.owner == self.node.owner() {
            return order_here(clients.clone(), to.serial, order).await;
        }
        let wait_ms = u64::try_from(order.wait.as_millis()).unwrap_or(u64::MAX);
        let frame = Frame::Order(ClientCommand { to, name: order.name.to_owned(), json: order.json, wait_ms });
        let answer = self.node.messages().ask(to.owner.node, frame.into_bytes(), order.wait + LINK).await;
        answer.map_or(Delivery::Failed, |bytes| Delivery::from_number(super::frame::parts::read_number(bytes)))
    }

    /// The clients of another node: JSON.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn survey(&self, node: u64, wanted: Wanted) -> Result<Bytes, Refusal> {
        self.node.messages().ask(node, Frame::Survey(wanted).into_bytes(), SURVEY_MAX).await
    }

    /// Closes a connection of another node. Returns `false` when there is no such connection.
    ///
    /// # Errors
    /// The node did not answer.
    pub async fn kick(&self, node: u64, serial: u64, id: &str) -> Result<bool, Refusal> {
        let kick = KickClient { serial, id: id.to_owned() };
        self.node.messages().ask(node, Frame::Kick(kick).into_bytes(), SURVEY_MAX).await.map(decode_yes)
    }

    /// Sends a notification that is in no log to the clients of all other nodes.
    pub fn notify(&self, record: Bytes) {
        for to in self.node.state().others_up() {
            self.send(to, Frame::Notify(record.clone()));
        }
    }

    /// Sends a message to the same door of another node and waits for the answer.
    ///
    /// # Errors
    /// It did not answer in time, or refused.
    pub async fn ask_door(&self, node: u64, door: &str, message: Bytes, within: Duration) -> Result<Bytes, Refusal> {
        let frame = Frame::Door(DoorMessage { door: door.to_owned(), message });
        self.node.messages().ask(node, frame.into_bytes(), within).await
    }

    /// The other nodes that are up.
    #[must_use]
    pub fn others_up(&self) -> Vec<u64> {
        self.node.state().others_up()
    }

    /// Follows the index up to which the replicated state is applied: the nodes that are up change with it.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<u64> {
        self.node.state().applied()
    }

    /// A message for the same door of another node, for [`PeerClient::tell_in_order`].
    #[must_use]
    pub fn door_message(door: &str, message: Bytes) -> Bytes {
        Frame::Door(DoorMessage { door: door.to_owned(), message }).into_bytes()
    }

    /// Sends a message to another node, behind those that the thread has sent before. It may be lost on its way.
    ///
    /// # Errors
    /// There is no connection, or [`Refusal::Overloaded`].
    pub async fn tell_in_order(&self, node: u64, message: Bytes) -> Result<(), Refusal> {
        self.node.messages().tell(node, message).await
    }

    /// Sends a message to the same door of another node. The message may be lost.
    pub fn tell_door(&self, node: u64, door: &str, message: Bytes) {
        self.send(node, Frame::Door(DoorMessage { door: door.to_owned(), message }));
    }
}

impl RemoteCaller for PeerClient {
    fn call(&self, remote_request: RemoteRequest, reply: Box<dyn FnOnce(Outcome) + Send>) -> oneshot::Sender<()> {
        let node = self.node.clone();
        let (abandon, abandoned) = oneshot::channel();
        tokio::spawn(async move {
            let (to, number) = (remote_request.to.owner.node, remote_request.number);
            let left = remote_request.request.deadline.saturating_duration_since(clock::now());
            let frame = Frame::Call(Call::new(&remote_request, left)).into_bytes();
            // The request is in the frame: its payload need not be kept twice.
            drop(remote_request);
            let asked = pin!(node.messages().ask(to, frame, left + LINK));
            let answer = match select(asked, abandoned).await {
                Either::Left((answer, _)) => answer,
                Either::Right((Err(_), asked)) => asked.await,
                Either::Right((Ok(()), _)) => {
                    // On the same connection, behind the request. If the message is lost, the other node waits until
                    // the deadline.
                    if let Err(refusal) = node.messages().tell(to, Frame::Abandon(number).into_bytes()).await {
                        tracing::debug!(to, %refusal, "a node is not told that nobody waits for a request any more");
                    }
                    return;
                }
            };
            reply(match answer {
                Ok(bytes) => decode_outcome(bytes),
                // The request was not sent.
                Err(Refusal::Overloaded(text)) => Err(Fault::overloaded(text)),
                // Nobody knows whether the provider got the request.
                Err(_) => Err(Fault::provider_lost()),
            });
        });
        abandon
    }
}
