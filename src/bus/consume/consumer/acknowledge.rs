//! What members say of their events, and when that is saved.

use std::time::Duration;

use actix::fut;
use actix::prelude::{AsyncContext, Context, Handler, ResponseActFuture};
use rollbook_core::error::Refusal;

use super::Consumer;
use crate::base::clock;
use crate::bus::consume::cursor::CursorUpdate;
use crate::bus::delivery::acknowledgement::{Acknowledged, Outcome};
use crate::bus::delivery::messages::MemberAck;

/// What clients have acknowledged is saved after this many events, or this time: so many may be delivered again when the
/// node dies, beside those in flight.
const UNSAVED_MAX: u32 = 256;
/// See [`UNSAVED_MAX`].
const UNSAVED_TIME: Duration = Duration::from_millis(50);

impl Handler<MemberAck> for Consumer {
    type Result = ResponseActFuture<Self, Result<Acknowledged, Refusal>>;

    fn handle(&mut self, ack: MemberAck, ctx: &mut Context<Self>) -> Self::Result {
        let (acknowledged, steps) = self.window.acknowledge(ack.member, &ack.said, clock::now());
        self.run_steps(steps, ctx);
        if !acknowledged.is_any() {
            return Box::pin(fut::ready(Ok(acknowledged)));
        }
        if ack.said.outcome == Outcome::Ack {
            self.bus.metrics().acks.inc_by(acknowledged.count.into());
        }
        let one = self.members.get(&ack.member).is_none_or(|handle| handle.join.policy.in_flight_max == 1);
        let floor = self.present_floor();
        self.pump(ctx);
        if !one {
            self.save_soon(acknowledged.count, ctx);
            return Box::pin(fut::ready(Ok(acknowledged)));
        }
        let Some(serving) = self.serving.as_ref().filter(|serving| floor > serving.floor) else {
            return Box::pin(fut::ready(Ok(acknowledged)));
        };
        let (cursor, update) = (serving.cursor.clone(), CursorUpdate { floor, ..CursorUpdate::default() });
        let sent = update.clone();
        let durable = async move { cursor.advance(sent).await };
        Box::pin(self.await_before_stop(durable, |durable, act, _| {
            durable.map(|()| {
                act.apply_saved(update);
                acknowledged
            })
        }))
    }
}

impl Consumer {
    /// So many more events are acknowledged: they are saved with others, see [`UNSAVED_MAX`].
    pub(super) fn save_soon(&mut self, count: u32, ctx: &mut Context<Self>) {
        self.unsaved = self.unsaved.saturating_add(count);
        if self.unsaved >= UNSAVED_MAX {
            self.save_progress(ctx);
        } else if !std::mem::replace(&mut self.save_is_due, true) {
            ctx.run_later(UNSAVED_TIME, |act, ctx| {
                act.save_is_due = false;
                act.save_progress(ctx);
            });
        }
    }
}
