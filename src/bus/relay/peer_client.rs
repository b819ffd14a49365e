//! The way out: what this node wants of clients that are connected to others.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use rollbook_cluster::node::Node;
use rollbook_core::error::Refusal;
use rollbook_core::service::Connection;
use tokio::sync::oneshot;

use super::frame::{Frame, decode_yes};
use super::live::{Call, Dismissed, Kicked, Ordered, Through, decode_outcome};
use crate::base::clock;
use crate::bus::call::survey::Wanted;
use crate::bus::call::types::{RemoteCaller, Sent};
use crate::bus::client::call::Outcome;
use crate::bus::client::clients::{ClientMessage, Clients, CloseReason, Command};
use crate::bus::error::Fault;

/// How long another node may take to say who is connected to it.
const SURVEY_MAX: Duration = Duration::from_secs(2);
/// What the peer link may take beyond the time of what it carries.
const LINK: Duration = Duration::from_millis(500);

/// The other nodes, as this one's clients need them. Clones share it.
#[derive(Debug, Clone)]
pub struct PeerClient {
    node: Node,
}

/// What became of a command of the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delivery {
    /// Its client has acknowledged it.
    Acknowledged,
    /// It was handed to its client, who has not acknowledged.
    Delivered,
    /// Its client is not there, or takes nothing more.
    Failed,
    /// Its client says that nothing there takes such a command.
    Unhandled,
}

impl Delivery {
    /// Short name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Unhandled => "unhandled",
        }
    }

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
    /// Its name, without the prefix of a door.
    pub name: &'static str,
    /// A JSON object.
    pub json: Bytes,
    /// How long its acknowledgement is waited for.
    pub wait: Duration,
}

/// The commands there are: names come from other nodes too.
const NAMES: [&str; 3] = ["restart", "shutdown", "ping"];

/// The command of that name.
pub(in crate::bus) fn command_name(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name)
}

/// Gives a command to a client of this node and waits for its acknowledgement.
pub(in crate::bus) async fn order_here(clients: Clients, serial: u64, order: Order) -> Delivery {
    let Some(client) = clients.find(serial) else { return Delivery::Failed };
    let (done, acknowledged) = oneshot::channel();
    if !client.tell(ClientMessage::Command(Command { name: order.name, json: order.json, done })) {
        return Delivery::Failed;
    }
    match tokio::time::timeout(order.wait, acknowledged).await {
        Ok(Ok(true)) => Delivery::Acknowledged,
        Ok(Ok(false)) => Delivery::Unhandled,
        // Gone: a program that restarts has heard it. Or it took its time.
        Ok(Err(_)) | Err(_) => Delivery::Delivered,
    }
}

impl PeerClient {
    /// The others of this node.
    #[must_use]
    pub const fn new(node: Node) -> Self {
        Self { node }
    }

    /// Tells a client, wherever it is, to go.
    pub fn close(&self, to: Connection, why: CloseReason, clients: &Clients) {
        self.dismiss(Dismissed::new(to, why), || {
            clients.close(to.serial, why);
        });
    }

    /// Tells a client, wherever it is, that another connection has its place.
    pub fn replace(&self, to: Connection, by: &str, clients: &Clients) {
        self.dismiss(Dismissed::replaced(to, by), || clients.replace(to.serial, by));
    }

    /// Sends a client away: here, or by its node. A client of an earlier life of this node is gone already.
    fn dismiss(&self, dismissed: Dismissed, here: impl FnOnce()) {
        let owner = dismissed.to.owner;
        if owner == self.node.owner() {
            here();
        } else if owner.node != self.node.id() {
            self.tell(owner.node, Frame::Dismiss(dismissed));
        }
    }

    fn tell(&self, to: u64, frame: Frame) {
        let node = self.node.clone();
        tokio::spawn(async move {
            if let Err(refusal) = node.messages().tell(to, frame.into_bytes()).await {
                tracing::debug!(to, %refusal, "a live message was dropped");
            }
        });
    }

    /// Gives a command to a client, wherever it is.
    pub async fn order(&self, to: Connection, order: Order, clients: &Clients) -> Delivery {
        if to.owner == self.node.owner() {
            return order_here(clients.clone(), to.serial, order).await;
        }
        let wait_ms = u64::try_from(order.wait.as_millis()).unwrap_or(u64::MAX);
        let frame = Frame::Order(Ordered { to, name: order.name.to_owned(), json: order.json, wait_ms });
        let answer = self.node.messages().ask(to.owner.node, frame.into_bytes(), order.wait + LINK).await;
        answer.map_or(Delivery::Failed, |bytes| Delivery::from_number(super::frame::read_number(bytes)))
    }

    /// What another node says of its clients: JSON.
    ///
    /// # Errors
    /// It did not answer.
    pub async fn survey(&self, node: u64, wanted: Wanted) -> Result<Bytes, Refusal> {
        self.node.messages().ask(node, Frame::Survey(wanted).into_bytes(), SURVEY_MAX).await
    }

    /// Tells a connection of another node to go, whatever it is; `false` when it is not there.
    ///
    /// # Errors
    /// The node did not answer.
    pub async fn kick(&self, node: u64, serial: u64, id: &str) -> Result<bool, Refusal> {
        let kicked = Kicked { serial, id: id.to_owned() };
        self.node.messages().ask(node, Frame::Kick(kicked).into_bytes(), SURVEY_MAX).await.map(decode_yes)
    }

    /// A notification that is in no log, for the clients of all other nodes.
    pub fn notify(&self, record: Bytes) {
        for to in self.node.state().others_up() {
            self.tell(to, Frame::Notify(record.clone()));
        }
    }

    /// Asks the same door of another node.
    ///
    /// # Errors
    /// It did not answer in time, or refused.
    pub async fn ask_door(&self, node: u64, door: &str, message: Bytes, within: Duration) -> Result<Bytes, Refusal> {
        let frame = Frame::Door(Through { door: door.to_owned(), message });
        self.node.messages().ask(node, frame.into_bytes(), within).await
    }

    /// Tells the same door of another node.
    pub fn tell_door(&self, node: u64, door: &str, message: Bytes) {
        self.tell(node, Frame::Door(Through { door: door.to_owned(), message }));
    }
}

impl RemoteCaller for PeerClient {
    fn call(&self, sent: Sent, reply: Box<dyn FnOnce(Outcome) + Send>) -> oneshot::Sender<()> {
        let node = self.node.clone();
        let (abandon, abandoned) = oneshot::channel();
        tokio::spawn(async move {
            let (to, number) = (sent.to.owner.node, sent.number);
            let left = sent.request.deadline.saturating_duration_since(clock::now());
            let frame = Frame::Call(Call::new(&sent, left)).into_bytes();
            // What was asked is in the frame.
            drop(sent);
            let asked = pin!(node.messages().ask(to, frame, left + LINK));
            let answer = match select(asked, abandoned).await {
                Either::Left((answer, _)) => answer,
                Either::Right((Err(_), asked)) => asked.await,
                Either::Right((Ok(()), _)) => {
                    // Behind the request, on the same connection. A node that does not hear it waits until the deadline.
                    if let Err(refusal) = node.messages().tell(to, Frame::Abandon(number).into_bytes()).await {
                        tracing::debug!(to, %refusal, "a node is not told that nobody waits for a request any more");
                    }
                    return;
                }
            };
            reply(match answer {
                Ok(bytes) => decode_outcome(bytes),
                // It has gone to nobody.
                Err(Refusal::Overloaded(text)) => Err(Fault::overloaded(text)),
                // Nobody knows whether the provider has got it.
                Err(_) => Err(Fault::provider_lost()),
            });
        });
        abandon
    }
}
