//! The way in: what other nodes want of the clients that are connected to this one.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rollbook_cluster::live::Live;
use rollbook_core::error::Refusal;

use super::away::{Order, command_name, order_here};
use super::frame::{self, Frame};
use super::live::{Call, Ordered, Through, encode_outcome};
use crate::bus::announcer;
use crate::bus::call::CallError;
use crate::bus::client::{Clients, Farewell};
use crate::bus::clock;
use crate::bus::item::Item;
use crate::bus::router::Router;
use crate::bus::survey;

/// Longest wait for an acknowledgement that another node may ask for.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// What the desk passes messages on to.
pub struct Desk {
    clients: Clients,
    router: Router,
    node: u64,
    doors: OnceLock<HashMap<&'static str, Arc<dyn Live>>>,
}

impl std::fmt::Debug for Desk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Desk").finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk of this node.
    #[must_use]
    pub fn new(node: u64, clients: Clients, router: Router) -> Arc<Self> {
        Arc::new(Self { clients, router, node, doors: OnceLock::new() })
    }

    /// From now on messages for doors go there. Only the first call counts.
    pub fn set_doors(&self, doors: HashMap<&'static str, Arc<dyn Live>>) {
        if self.doors.set(doors).is_err() {
            tracing::error!("the doors have their messages already");
        }
    }

    fn door(&self, name: &str) -> Option<&Arc<dyn Live>> {
        self.doors.get()?.get(name)
    }

    /// Takes a message that is for a client or door; gives it back when it is not.
    pub(super) fn hear(&self, from: u64, frame: Frame) -> Result<(), Box<Frame>> {
        match frame {
            Frame::Dismiss(dismissed) => {
                if let Some(client) = self.clients.find(dismissed.to.serial) {
                    client.close(dismissed.why());
                }
            }
            Frame::Notify(record) => announcer::spread(&self.clients, &Arc::new(Item::unstored(record))),
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
            Frame::Call(call) => self.call(call),
            Frame::Order(ordered) => self.order(ordered),
            Frame::Survey(_) => ready(survey::of(self.node, &self.clients, &self.router).into_json()),
            Frame::Kick(serial) => {
                let client = self.clients.find(serial);
                ready(frame::encode_yes(client.is_some_and(|client| client.close(Farewell::Removed))))
            }
            Frame::Door(Through { door, message }) => match self.door(&door) {
                Some(door) => door.answer(from, message),
                None => std::future::ready(Err(frame::malformed())).boxed(),
            },
            other => return Err(Box::new(other)),
        })
    }

    fn call(&self, call: Call) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let to = call.to;
        let request = call.into_request(clock::now(), self.router.config().timeout_max);
        let (reply, outcome) = tokio::sync::oneshot::channel();
        // Nobody listens any more when the other node is gone.
        self.router.call_here(to, request, Box::new(move |outcome| drop(reply.send(outcome))));
        async move { Ok(encode_outcome(outcome.await.unwrap_or(Err(CallError::Cancelled)))) }.boxed()
    }

    fn order(&self, ordered: Ordered) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        let Some(name) = command_name(&ordered.name) else {
            return std::future::ready(Err(frame::malformed())).boxed();
        };
        let wait = Duration::from_millis(ordered.wait_ms).min(WAIT_MAX);
        let order = Order { name, json: ordered.json, wait };
        let delivery = order_here(self.clients.clone(), ordered.to.serial, order);
        async move { Ok(frame::number(delivery.await.number())) }.boxed()
    }
}
