//! The progress that a consumer saves in the replicated state: ack floor, done ranges, delivery counts and dead
//! letters.

use std::sync::Arc;

use actix::prelude::{ActorContext, ActorFuture, ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures_util::FutureExt as _;
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::consumer::{Attempts, Range};
use rollbook_core::error::Refusal;
use rollbook_core::limits::{CONSUMER_ATTEMPTS_MAX, CONSUMER_RANGES_MAX};

use super::{Consumer, RETRY_MAX, SAVE_INTERVAL};
use crate::bus::consume::cursor::{Cursor, CursorUpdate};
use crate::bus::consume::dead_letter::DeadLetter;
use crate::bus::delivery::window::{GivenUp, Member};
use crate::bus::handle::Bus;
use crate::bus::read::stored_event::StoredEvent;

impl Consumer {
    /// Saves the delivery counts that changed, then calls `then` with whether they are durable.
    pub(super) fn save_counts(
        &mut self,
        ctx: &mut Context<Self>,
        then: impl FnOnce(bool, &mut Self, &mut Context<Self>) + 'static,
    ) {
        let Some(serving) = &self.serving else { return };
        let update = CursorUpdate { floor: serving.floor, done: Vec::new(), attempts: self.new_counts() };
        if update.attempts.is_empty() {
            return then(true, self, ctx);
        }
        self.advance(update, ctx, |durable, act, ctx| then(durable.is_ok(), act, ctx));
    }

    /// Delivery counts that the replicated state does not have, lowest positions first, at most as many as a row holds.
    fn new_counts(&self) -> Vec<Attempts> {
        let Some(serving) = self.serving.as_ref().filter(|serving| serving.cursor.counts()) else { return Vec::new() };
        let (now, saved) = (self.window.counts(), &serving.counts);
        let changed = now.iter().filter(|(sequence, count)| saved.get(sequence) != Some(count));
        let gone = saved.keys().filter(|sequence| !now.contains_key(sequence)).map(|sequence| (sequence, &0));
        let new = changed.chain(gone).take(CONSUMER_ATTEMPTS_MAX);
        new.map(|(sequence, count)| Attempts { sequence: *sequence, count: *count }).collect()
    }

    /// Proposes an update of the cursor. When it is durable, this consumer remembers it as saved.
    fn advance(
        &mut self,
        update: CursorUpdate,
        ctx: &mut Context<Self>,
        then: impl FnOnce(Result<(), Refusal>, &mut Self, &mut Context<Self>) + 'static,
    ) {
        let Some(serving) = &self.serving else { return };
        let (cursor, sent) = (serving.cursor.clone(), update.clone());
        // Proposed now, not when the future is looked at: what a later start reads must have it.
        let mut advance = Box::pin(async move { cursor.advance(sent).await });
        let begun = (&mut advance).now_or_never();
        let advance = async move {
            match begun {
                Some(answer) => answer,
                None => advance.await,
            }
        };
        let advanced = self.await_before_stop(advance, move |answer, act, ctx| {
            if answer.is_ok() {
                act.apply_saved(update);
            }
            then(answer, act, ctx);
        });
        ctx.spawn(advanced);
    }

    /// Remembers what the replicated state has now.
    pub(super) fn apply_saved(&mut self, update: CursorUpdate) {
        let Some(serving) = &mut self.serving else { return };
        serving.floor = serving.floor.max(update.floor);
        if !update.done.is_empty() {
            serving.done = update.done;
        }
        serving.counts.extend(update.attempts.iter().map(|of| (of.sequence, of.count)));
        let floor = serving.floor;
        serving.counts.retain(|sequence, count| *sequence > floor && *count > 0);
    }

    /// The ack floor as of now.
    pub(super) fn present_floor(&mut self) -> u64 {
        let Some(serving) = &self.serving else { return 0 };
        let considered = serving.progress.considered();
        if self.spec.manual { self.window.floor(considered) } else { self.shares.floor(considered) }
    }

    /// Saves the progress that is not saved yet, unless a save is under way.
    pub(super) fn save_progress(&mut self, ctx: &mut Context<Self>) {
        if self.is_saving {
            return;
        }
        let floor = self.present_floor();
        let Some(serving) = &self.serving else { return };
        let mut done = self.window.done();
        done.truncate(CONSUMER_RANGES_MAX);
        let update = CursorUpdate { floor: floor.max(serving.floor), done, attempts: self.new_counts() };
        let is_known = |range: &Range| serving.done.iter().any(|of| of.first <= range.first && range.last <= of.last);
        let more = !update.attempts.is_empty() || (serving.cursor.counts() && !update.done.iter().all(is_known));
        if !(more || floor > serving.floor) {
            return;
        }
        self.is_saving = true;
        self.unsaved = 0;
        let ahead = self.shares.ahead();
        self.advance(update, ctx, move |saved, act, ctx| {
            act.is_saving = false;
            match saved {
                Ok(()) => {
                    act.shares.saved(ahead);
                    act.pump(ctx);
                    if !act.spec.manual || act.members.is_empty() {
                        act.save_progress(ctx);
                    } else if act.unsaved > 0 {
                        act.save_soon(0, ctx);
                    }
                }
                Err(refusal) => tracing::debug!(consumer = %act.spec.name, %refusal, "what is new is noted later"),
            }
        });
    }

    /// Wraps a future so that the consumer does not stop before it ends. `then` receives the output.
    pub(super) fn await_before_stop<F, N, T>(
        &mut self,
        future: F,
        then: N,
    ) -> impl ActorFuture<Self, Output = T> + use<F, N, T>
    where
        F: Future + 'static,
        N: FnOnce(F::Output, &mut Self, &mut Context<Self>) -> T + 'static,
        T: 'static,
    {
        self.pending_answers = self.pending_answers.saturating_add(1);
        future.into_actor(self).map(move |output, act, ctx| {
            act.pending_answers = act.pending_answers.saturating_sub(1);
            let output = then(output, act, ctx);
            act.stop_if_idle(ctx);
            output
        })
    }

    /// Stops the consumer when the last member has left and no answer is awaited. The next member starts from what is
    /// saved.
    pub(super) fn stop_if_idle(&mut self, ctx: &mut Context<Self>) {
        if self.members.is_empty() && self.pending_answers == 0 {
            ctx.stop();
        }
    }

    /// Called when members have left. The progress must be saved before the consumer stops.
    pub(super) fn member_left(&mut self, ctx: &mut Context<Self>) {
        self.save_counts(ctx, |_, _, _| {});
        if self.members.is_empty() {
            self.save_progress(ctx);
            ctx.run_later(RETRY_MAX, |act, ctx| {
                if act.members.is_empty() {
                    ctx.stop();
                }
            });
        }
        self.pump(ctx);
        self.stop_if_idle(ctx);
    }

    /// Stores a dead letter, as long as this start serves the consumer.
    pub(super) fn store_dead_letter(
        &mut self,
        (member, item): (Member, Arc<StoredEvent>),
        (deliveries, why): (u32, GivenUp),
        ctx: &mut Context<Self>,
    ) {
        if !self.check_serving(ctx) {
            return;
        }
        let Some(serving) = &self.serving else { return };
        let handle = self.members.get(&member);
        let named = handle.and_then(|handle| handle.join.name.clone());
        let letter = DeadLetter {
            item: Arc::clone(&item),
            consumer_id: handle.map(|handle| handle.join.consumer_id.clone()),
            consumer: if self.spec.group { named } else { Some(self.spec.name.clone()) },
            group: self.spec.group.then(|| self.spec.name.clone()),
            deliveries,
            why,
            once: Some(serving.cursor.unique(item.sequence())),
            to: handle.map_or_else(|| self.dead_letter.clone(), |handle| handle.join.policy.dead_letter.clone()),
        };
        let (bus, cursor) = (self.bus.clone(), serving.cursor.clone());
        let store_dead_letter =
            async move { letter.store_while(&bus, async || still_serves(&bus, &cursor).await).await };
        let dead_letter_done = self.await_before_stop(store_dead_letter, move |stored, act, ctx| {
            if !stored {
                // The event belongs to the start that serves the consumer now.
                act.check_serving(ctx);
                return;
            }
            act.window.dead_letter_done(item.sequence());
            act.save_progress(ctx);
            act.pump(ctx);
        });
        ctx.spawn(dead_letter_done);
    }
}

/// Whether this start still serves the consumer, according to the leader: a node that was isolated may not have seen
/// yet that another node took over.
async fn still_serves(bus: &Bus, cursor: &Cursor) -> bool {
    while cursor.holds() {
        match bus.node().consensus().read_barrier(Consistency::Leader).await {
            Ok(_) => return cursor.holds(),
            Err(refusal) => tracing::debug!(%refusal, "an event is given up later"),
        }
        tokio::time::sleep(SAVE_INTERVAL).await;
    }
    false
}
