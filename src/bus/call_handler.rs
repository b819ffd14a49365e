//! Handles messages of other nodes that concern the clients and doors of this node.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use actix::Addr;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rollbook_cluster::live::Live;
use rollbook_core::error::Refusal;
use rollbook_core::service::Connection;

use super::call::types::Requester;
use super::delivery::messages::stopping;
use super::error::Fault;
use super::relay::frame::{self, Frame};
use super::relay::live::{Call, ClientCommand, DoorMessage, KickClient, encode_outcome};
use super::relay::peer_client::{Delivery, Order, command_name, order_here};
use super::relay::{Incoming, Relay};
use super::roll::announcer;
use super::roll::services::Services;
use crate::base::actors::hint;
use crate::base::clock;

/// Longest wait for an acknowledgement that another node may ask for.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// Passes messages of other nodes on to clients and doors.
pub struct CallHandler {
    /// Clients, router and roll of this node.
    services: Services,
    /// The doors, by name. Set after the start, because the doors need this handler first.
    doors: OnceLock<HashMap<&'static str, Arc<dyn Live>>>,
}

impl std::fmt::Debug for CallHandler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallHandler").finish_non_exhaustive()
    }
}

impl CallHandler {
    /// The handler of this node.
    #[must_use]
    pub fn new(services: Services) -> Arc<Self> {
        Arc::new(Self { services, doors: OnceLock::new() })
    }

    /// Sets the receivers of messages for doors. Only the first call counts.
    pub fn set_doors(&self, doors: HashMap<&'static str, Arc<dyn Live>>) {
        if self.doors.set(doors).is_err() {
            tracing::error!("the doors have their messages already");
        }
    }

    /// Whether a connection belongs to this life of the node. Serial numbers begin anew with each process, so a late
    /// message could reach another client.
    fn is_of_this_life(&self, to: Connection) -> bool {
        to.owner == self.services.bus.node().owner()
    }

    /// The door of this name.
    fn door(&self, name: &str) -> Option<&Arc<dyn Live>> {
        self.doors.get()?.get(name)
    }

    /// Handles a message without an answer; gives it back when it concerns neither a client nor a door.
    pub(super) fn hear(&self, from: u64, frame: Frame) -> Result<(), Box<Frame>> {
        match frame {
            Frame::CloseClient(close) => {
                let (clients, serial) = (&self.services.clients, close.to.serial);
                match self.is_of_this_life(close.to) {
                    true if close.by.is_empty() => drop(clients.close(serial, close.why())),
                    true => clients.replace(serial, &close.by),
                    false => {}
                }
            }
            Frame::Notify(record) => {
                announcer::broadcast_unstored(&self.services.clients, record);
            }
            Frame::Abandon(number) => self.services.router.abandon(Requester::Node(from, number)),
            Frame::Door(DoorMessage { door, message }) => {
                if let Some(door) = self.door(&door) {
                    door.hear(from, message);
                }
            }
            other => return Err(Box::new(other)),
        }
        Ok(())
    }

    /// Answers a message; gives it back when it concerns neither a client nor a door.
    pub(super) fn answer(
        &self,
        from: u64,
        frame: Frame,
    ) -> Result<BoxFuture<'static, Result<Bytes, Refusal>>, Box<Frame>> {
        let ready = |bytes| std::future::ready(Ok(bytes)).boxed();
        Ok(match frame {
            Frame::Call(call) => self.call(from, call),
            Frame::Order(command) => self.order(command),
            Frame::Survey(wanted) => ready(self.services.survey(&wanted).into_json()),
            Frame::Kick(KickClient { serial, id }) => ready(frame::encode_yes(self.services.kick_here(serial, &id))),
            Frame::Door(DoorMessage { door, message }) => match self.door(&door) {
                Some(door) => door.answer(from, message),
                None => std::future::ready(Err(frame::malformed())).boxed(),
            },
            other => return Err(Box::new(other)),
        })
    }

    /// Gives a request of another node to a client of this node.
    fn call(&self, from: u64, call: Call) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let (to, requester) = (call.to, Requester::Node(from, call.number));
        let router = &self.services.router;
        // The request ends with this future, which ends with the connection to the other node. Requests without a
        // number cannot be told apart, so they stay until their deadline.
        let waiting = (call.number != 0).then(|| router.waiting(requester));
        let (request, payload) = call.into_request(clock::now(), router.config().timeout_max);
        let (reply, outcome) = tokio::sync::oneshot::channel();
        let reply = Box::new(move |outcome| hint(reply, outcome));
        router.call_here(to, requester, request, payload, reply);
        async move {
            let outcome = outcome.await;
            if let Some(waiting) = waiting {
                waiting.done();
            }
            Ok(encode_outcome(outcome.unwrap_or(Err(Fault::cancelled()))))
        }
        .boxed()
    }

    /// Gives a command of the operator to a client of this node.
    fn order(&self, command: ClientCommand) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let Some(name) = command_name(&command.name) else {
            return std::future::ready(Err(frame::malformed())).boxed();
        };
        if !self.is_of_this_life(command.to) {
            return std::future::ready(Ok(frame::parts::number(Delivery::Failed.number()))).boxed();
        }
        let wait = Duration::from_millis(command.wait_ms).min(WAIT_MAX);
        let order = Order { name, json: command.json, wait };
        let delivery = order_here(self.services.clients.clone(), command.to.serial, order);
        async move { Ok(frame::parts::number(delivery.await.number())) }.boxed()
    }
}

/// Receives the live messages of other nodes.
#[derive(Debug)]
pub struct Mailbox {
    /// Handles messages for streams and consumers.
    pub relay: Addr<Relay>,
    /// Handles messages for clients and doors, without a detour through an actor. A weak reference: the handler owns
    /// the node, and the node owns this.
    pub call_handler: Weak<CallHandler>,
}

impl Live for Mailbox {
    fn hear(&self, from: u64, message: Bytes) {
        let Some(frame) = Frame::from_bytes(message) else { return };
        let Some(call_handler) = self.call_handler.upgrade() else { return };
        let Err(frame) = call_handler.hear(from, frame) else { return };
        // Live messages are delivered at most once: a full relay drops them.
        hint(&self.relay, Incoming { from, frame: *frame });
    }

    fn answer(&self, from: u64, message: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let Some(frame) = Frame::from_bytes(message) else {
            return std::future::ready(Err(frame::malformed())).boxed();
        };
        let Some(call_handler) = self.call_handler.upgrade() else {
            return std::future::ready(Err(stopping(()))).boxed();
        };
        let frame = match call_handler.answer(from, frame) {
            Ok(answer) => return answer,
            Err(frame) => frame,
        };
        let answer = self.relay.send(Incoming { from, frame: *frame });
        async move { answer.await.map_err(stopping)? }.boxed()
    }
}
