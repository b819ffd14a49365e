//! What other actors ask of a stream.

use std::sync::Arc;

use actix::fut;
use actix::prelude::{ActorFutureExt, Context, Handler, ResponseActFuture, WrapFuture};
use rollbook_core::error::Refusal;

use super::{SELF, State, Subscription};
use crate::base::clock;
use crate::bus::delivery::acknowledgement::{Acknowledged, Outcome};
use crate::bus::delivery::messages::{MemberAck, StreamCommand};

/// Which events were in flight; or why nobody knows.
type Answer = Result<Acknowledged, Refusal>;

impl Handler<StreamCommand> for Subscription {
    type Result = ResponseActFuture<Self, Answer>;

    fn handle(&mut self, command: StreamCommand, ctx: &mut Context<Self>) -> Self::Result {
        let said = match command {
            StreamCommand::Acknowledge(said) => said,
            StreamCommand::Close(reason) => {
                self.close(reason, ctx);
                return Box::pin(fut::ready(Ok(Acknowledged::default())));
            }
        };
        // Behind the answer: an actor that has stopped answers nothing.
        let of = Arc::clone(&said);
        let heard = move |answer: Answer, act: &mut Self, ctx: &mut Context<Self>| {
            if let Ok(acknowledged) = &answer {
                act.heard(&of.outcome, acknowledged, ctx);
            }
            answer
        };
        match &mut self.state {
            State::Streaming => Box::pin(fut::ready(Ok(Acknowledged::nothing(&said)))),
            State::Manual(manual) => {
                let (acknowledged, steps) = manual.window.acknowledge(SELF, &said, clock::now());
                if said.outcome == Outcome::Ack {
                    self.bus.metrics().acks.inc_by(acknowledged.count.into());
                }
                self.carry_out(steps, ctx);
                if acknowledged.is_any() {
                    self.pump(ctx);
                }
                Box::pin(fut::ready(Ok(acknowledged)).map(heard))
            }
            State::Member(membership) => {
                let sent = membership.acknowledge.send(MemberAck {
                    namespace: membership.namespace.clone(),
                    consumer: membership.consumer.clone(),
                    member: self.serial,
                    said,
                });
                let gone = |_| Refusal::Unavailable("the consumer is being restarted".to_owned());
                let answer = async move { sent.await.map_err(gone)? };
                Box::pin(answer.into_actor(self).map(heard))
            }
        }
    }
}
