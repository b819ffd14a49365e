//! A member of a durable consumer that is connected to another node: it stands in for it here.

use std::time::Duration;

use actix::prelude::{Actor, ActorContext, AsyncContext, Context, Handler, Recipient, ResponseFuture};
use rollbook_cluster::node::Node;
use rollbook_core::error::Refusal;

use super::frame::{Closing, Delivery, Frame, Seat, decode_written};
use super::reach::Reach;
use crate::bus::message::{Acknowledged, Deliver, Leave, Tell, Written};
use crate::bus::window::Departure;

/// How long the other node may take to say that its client has taken events, or that it has not yet.
const DELIVER_MAX: Duration = Duration::from_secs(30);
/// How often it is looked whether the other node is there.
const LOOK: Duration = Duration::from_millis(500);
/// After this many looks in vain the member has left.
pub(super) const MISSED_MAX: u32 = 3;

/// The actor.
pub(super) struct Guest {
    pub(super) node: Node,
    /// Where the client is.
    pub(super) at: u64,
    pub(super) seat: Seat,
    pub(super) leave: Recipient<Leave>,
    pub(super) reach: Reach,
}

impl Guest {
    fn depart(&self) {
        let Seat { namespace, consumer, member } = self.seat.clone();
        // A lost link is no failure of the client.
        let departure = Departure::Returned;
        // A consumer that is gone has no members to remove.
        self.leave.try_send(Leave { namespace, consumer, member, departure }).ok();
    }
}

impl Actor for Guest {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.run_interval(LOOK, |act, ctx| {
            if act.reach.is_lost() {
                act.depart();
                ctx.stop();
            }
        });
    }
}

impl Handler<Deliver> for Guest {
    type Result = ResponseFuture<Written>;

    fn handle(&mut self, deliver: Deliver, _: &mut Context<Self>) -> Self::Result {
        let (node, at, member) = (self.node.clone(), self.at, self.seat.member);
        Box::pin(async move {
            let mut message = Frame::Deliver(Delivery::new(member, &deliver.items)).into_bytes();
            drop(deliver);
            loop {
                match node.ask(at, message, DELIVER_MAX).await.map(decode_written) {
                    Ok(Some(written)) => return written,
                    // Its client reads slowly, or sleeps. It has its events and is waited for.
                    Ok(None) => message = Frame::Deliver(Delivery::new(member, &[])).into_bytes(),
                    Err(_) => return Written::Gone,
                }
            }
        })
    }
}

impl Handler<Tell> for Guest {
    type Result = ResponseFuture<Result<Acknowledged, Refusal>>;

    fn handle(&mut self, tell: Tell, ctx: &mut Context<Self>) -> Self::Result {
        let Tell::Close(reason) = tell else {
            return Box::pin(std::future::ready(Ok(Acknowledged::NotInFlight)));
        };
        // The registry would bring it back with its consumer otherwise: nobody else says that it has left.
        self.depart();
        let (node, at) = (self.node.clone(), self.at);
        let message = Frame::Close(Closing::new(self.seat.member, reason)).into_bytes();
        ctx.stop();
        Box::pin(async move { node.tell(at, message).await.map(|()| Acknowledged::NotInFlight) })
    }
}
