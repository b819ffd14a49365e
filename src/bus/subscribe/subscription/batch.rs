//! A stream that is a batch: it ends by itself, and its member outlives the answer.
//!
//! The client acknowledges when it has read the answer. So the actor, which otherwise ends with the answer, keeps itself
//! until every event is acknowledged, or until no acknowledgement can come in time any more.

use std::time::Duration;

use actix::prelude::{ActorContext, AsyncContext, Context};

use super::{SELF, State, Subscription};
use crate::base::clock;
use crate::bus::delivery::acknowledgement::{Acknowledged, Outcome};

impl Subscription {
    /// The answer of a batch begins, if this is one: it ends when no event came within its wait.
    pub(super) fn begin_pull(&self, ctx: &mut Context<Self>) {
        let Some(pull) = &self.pull else { return };
        ctx.run_later(pull.wait, |act, ctx| {
            if act.pull.as_ref().is_some_and(|pull| pull.wrote.is_none()) {
                act.end_pull(ctx);
            }
        });
    }

    /// Events were written: a batch that is complete ends, and any other one soon.
    pub(super) fn pulled(&mut self, events: usize, ctx: &mut Context<Self>) {
        let Some(pull) = self.pull.as_mut().filter(|pull| !pull.over) else { return };
        let events = u32::try_from(events).unwrap_or(u32::MAX);
        pull.left = pull.left.saturating_sub(events);
        pull.written = pull.written.saturating_add(events);
        let now = clock::now();
        let first = pull.wrote.map(|(first, _)| first);
        pull.wrote = Some((first.unwrap_or(now), now));
        if pull.left == 0 {
            self.end_pull(ctx);
        } else if first.is_none() {
            self.gather(ctx);
        }
    }

    /// Ends the answer when no more events are waited for.
    fn gather(&mut self, ctx: &mut Context<Self>) {
        match self.pull.as_ref().and_then(|pull| pull.gathers(clock::now())) {
            Some(left) => drop(ctx.run_later(left, Self::gather)),
            None => self.end_pull(ctx),
        }
    }

    /// Ends the answer. What the client has not acknowledged stays with the member.
    fn end_pull(&mut self, ctx: &mut Context<Self>) {
        let Some(pull) = self.pull.as_mut().filter(|pull| !pull.over) else { return };
        pull.over = true;
        match &mut self.state {
            State::Streaming => {}
            State::Manual(manual) => manual.window.finish(SELF),
            State::Member(membership) => membership.finish(),
        }
        self.outlet.end();
        let Some(lease) = pull.lease else { return };
        if pull.is_concluded() {
            return ctx.stop();
        }
        pull.heard = clock::now();
        pull.hold = self.outlet.release_hold();
        self.rest(lease, ctx);
    }

    /// Ends the actor when its client was not heard of for so long.
    fn rest(&self, wait: Duration, ctx: &mut Context<Self>) {
        ctx.run_later(wait, |act, ctx| {
            let Some(pull) = &act.pull else { return };
            let silent = clock::now().saturating_duration_since(pull.heard);
            match pull.lease.and_then(|lease| lease.checked_sub(silent)).filter(|left| !left.is_zero()) {
                Some(left) => act.rest(left, ctx),
                None => act.rest_ends(ctx),
            }
        });
    }

    /// The actor keeps itself no more.
    fn rest_ends(&mut self, ctx: &mut Context<Self>) {
        drop(self.pull.as_mut().and_then(|pull| pull.hold.take()));
        ctx.stop();
    }

    /// A client was heard of. When nothing is left to acknowledge, the actor of a batch ends.
    pub(super) fn heard(&mut self, outcome: &Outcome, acknowledged: &Acknowledged, ctx: &mut Context<Self>) {
        let Some(pull) = &mut self.pull else { return };
        pull.heard = clock::now();
        if *outcome != Outcome::InProgress {
            pull.concluded = pull.concluded.saturating_add(acknowledged.count);
        }
        if pull.over && pull.is_concluded() {
            self.rest_ends(ctx);
        }
    }
}
