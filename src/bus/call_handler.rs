//! The way in: what other nodes want of the clients that are connected to this one.

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
use super::relay::live::{Call, Kicked, Ordered, Through, encode_outcome};
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
    services: Services,
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

    /// From now on messages for doors go there. Only the first call counts.
    pub fn set_doors(&self, doors: HashMap<&'static str, Arc<dyn Live>>) {
        if self.doors.set(doors).is_err() {
            tracing::error!("the doors have their messages already");
        }
    }

    /// Numbers of clients begin anew with each process: a late message must not reach a stranger.
    fn is_of_this_life(&self, to: Connection) -> bool {
        to.owner == self.services.bus.node().owner()
    }

    fn door(&self, name: &str) -> Option<&Arc<dyn Live>> {
        self.doors.get()?.get(name)
    }

    /// Takes a message that is for a client or door; gives it back when it is not.
    pub(super) fn hear(&self, from: u64, frame: Frame) -> Result<(), Box<Frame>> {
        match frame {
            Frame::Dismiss(dismissed) => {
                let (clients, serial) = (&self.services.clients, dismissed.to.serial);
                match self.is_of_this_life(dismissed.to) {
                    true if dismissed.by.is_empty() => drop(clients.close(serial, dismissed.why())),
                    true => clients.replace(serial, &dismissed.by),
                    false => {}
                }
            }
            Frame::Notify(record) => {
                announcer::broadcast_unstored(&self.services.clients, record);
            }
            Frame::Abandon(number) => self.services.router.abandon(Requester::Node(from, number)),
            Frame::Door(Through { door, message }) => {
                if let Some(door) = self.door(&door) {
                    door.hear(from, message);
                }
            }
            other => return Err(Box::new(other)),
        }
        Ok(())
    }

    /// Answers a message that is for a client or door; gives it back when it is not.
    pub(super) fn answer(
        &self,
        from: u64,
        frame: Frame,
    ) -> Result<BoxFuture<'static, Result<Bytes, Refusal>>, Box<Frame>> {
        let ready = |bytes| std::future::ready(Ok(bytes)).boxed();
        Ok(match frame {
            Frame::Call(call) => self.call(from, call),
            Frame::Order(ordered) => self.order(ordered),
            Frame::Survey(wanted) => ready(self.services.survey(&wanted).into_json()),
            Frame::Kick(Kicked { serial, id }) => ready(frame::encode_yes(self.services.kick_here(serial, &id))),
            Frame::Door(Through { door, message }) => match self.door(&door) {
                Some(door) => door.answer(from, message),
                None => std::future::ready(Err(frame::malformed())).boxed(),
            },
            other => return Err(Box::new(other)),
        })
    }

    fn call(&self, from: u64, call: Call) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let (to, requester) = (call.to, Requester::Node(from, call.number));
        let router = &self.services.router;
        // The request ends with this future, which ends with the connection to the other node. Requests that say no
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

    fn order(&self, ordered: Ordered) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let Some(name) = command_name(&ordered.name) else {
            return std::future::ready(Err(frame::malformed())).boxed();
        };
        if !self.is_of_this_life(ordered.to) {
            return std::future::ready(Ok(frame::number(Delivery::Failed.number()))).boxed();
        }
        let wait = Duration::from_millis(ordered.wait_ms).min(WAIT_MAX);
        let order = Order { name, json: ordered.json, wait };
        let delivery = order_here(self.services.clients.clone(), ordered.to.serial, order);
        async move { Ok(frame::number(delivery.await.number())) }.boxed()
    }
}

/// Hands live messages of other nodes to whom they are for.
#[derive(Debug)]
pub struct Mailbox {
    /// For streams and consumers.
    pub relay: Addr<Relay>,
    /// For clients and doors, without a detour over an actor. Not its owner: the handler has the node that has this.
    pub call_handler: Weak<CallHandler>,
}

impl Live for Mailbox {
    fn hear(&self, from: u64, message: Bytes) {
        let Some(frame) = Frame::from_bytes(message) else { return };
        let Some(call_handler) = self.call_handler.upgrade() else { return };
        let Err(frame) = call_handler.hear(from, frame) else { return };
        // Live messages are at most once: a relay that is full drops them.
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
