//! What a consumer makes durable: its floor, what is done with behind it, how often events were delivered, and dead
//! letters.

use std::sync::Arc;

use actix::prelude::{ActorContext, ActorFuture, ActorFutureExt, AsyncContext, Context, WrapFuture};
use futures_util::FutureExt as _;
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::consumer::{Attempts, Range};
use rollbook_core::error::Refusal;
use rollbook_core::limits::{CONSUMER_ATTEMPTS_MAX, CONSUMER_RANGES_MAX};

use super::{Consumer, NOTE, TRY_MAX};
use crate::bus::consume::cursor::{Cursor, CursorUpdate};
use crate::bus::consume::dead_letter::DeadLetter;
use crate::bus::delivery::window::Member;
use crate::bus::handle::Bus;
use crate::bus::read::stored_event::StoredEvent;

impl Consumer {
    /// Makes the counts durable that are new.
    pub(super) fn tell_counts(
        &mut self,
        ctx: &mut Context<Self>,
        then: impl FnOnce(bool, &mut Self, &mut Context<Self>) + 'static,
    ) {
        let Some(serving) = &self.serving else { return };
        let news = CursorUpdate { floor: serving.floor, done: Vec::new(), attempts: self.new_counts() };
        if news.attempts.is_empty() {
            return then(true, self, ctx);
        }
        self.advance(news, ctx, |told, act, ctx| then(told.is_ok(), act, ctx));
    }

    /// Counts that the replicated state does not have, the lowest positions first, as many as a row holds.
    fn new_counts(&self) -> Vec<Attempts> {
        let Some(serving) = self.serving.as_ref().filter(|serving| serving.cursor.counts()) else { return Vec::new() };
        let (now, known) = (self.window.counts(), &serving.counts);
        let changed = now.iter().filter(|(sequence, count)| known.get(sequence) != Some(count));
        let gone = known.keys().filter(|sequence| !now.contains_key(sequence)).map(|sequence| (sequence, &0));
        let told = changed.chain(gone).take(CONSUMER_ATTEMPTS_MAX);
        told.map(|(sequence, count)| Attempts { sequence: *sequence, count: *count }).collect()
    }

    /// Proposes what is new, and takes in that it is durable.
    fn advance(
        &mut self,
        news: CursorUpdate,
        ctx: &mut Context<Self>,
        then: impl FnOnce(Result<(), Refusal>, &mut Self, &mut Context<Self>) + 'static,
    ) {
        let Some(serving) = &self.serving else { return };
        let (cursor, told) = (serving.cursor.clone(), news.clone());
        // Proposed now, not when the future is looked at: what a later start reads must have it.
        let mut advance = Box::pin(async move { cursor.advance(told).await });
        let begun = (&mut advance).now_or_never();
        let advance = async move {
            match begun {
                Some(answer) => answer,
                None => advance.await,
            }
        };
        let advanced = self.awaiting(advance, move |answer, act, ctx| {
            if answer.is_ok() {
                act.known(news);
            }
            then(answer, act, ctx);
        });
        ctx.spawn(advanced);
    }

    /// Takes in what the replicated state has now.
    pub(super) fn known(&mut self, news: CursorUpdate) {
        let Some(serving) = &mut self.serving else { return };
        serving.floor = serving.floor.max(news.floor);
        if !news.done.is_empty() {
            serving.done = news.done;
        }
        serving.counts.extend(news.attempts.iter().map(|of| (of.sequence, of.count)));
        let floor = serving.floor;
        serving.counts.retain(|sequence, count| *sequence > floor && *count > 0);
    }

    /// How far everything is done with now.
    pub(super) fn present_floor(&mut self) -> u64 {
        let Some(serving) = &self.serving else { return 0 };
        let considered = serving.place.considered();
        if self.terms.manual { self.window.floor(considered) } else { self.shares.floor(considered) }
    }

    /// Makes durable what is new, unless that is under way.
    pub(super) fn note(&mut self, ctx: &mut Context<Self>) {
        if self.noting {
            return;
        }
        let floor = self.present_floor();
        let Some(serving) = &self.serving else { return };
        let mut done = self.window.done();
        done.truncate(CONSUMER_RANGES_MAX);
        let news = CursorUpdate { floor: floor.max(serving.floor), done, attempts: self.new_counts() };
        let is_known = |range: &Range| serving.done.iter().any(|of| of.first <= range.first && range.last <= of.last);
        let more = !news.attempts.is_empty() || (serving.cursor.counts() && !news.done.iter().all(is_known));
        if !(more || floor > serving.floor) {
            return;
        }
        self.noting = true;
        let ahead = self.shares.ahead();
        self.advance(news, ctx, move |noted, act, ctx| {
            act.noting = false;
            match noted {
                Ok(()) => {
                    act.shares.noted(ahead);
                    act.pump(ctx);
                    if !act.terms.manual || act.handles.is_empty() {
                        act.note(ctx);
                    }
                }
                Err(refusal) => tracing::debug!(consumer = %act.terms.name, %refusal, "what is new is noted later"),
            }
        });
    }

    /// A future that the consumer does not stop before; `then` takes in what came of it.
    pub(super) fn awaiting<F, N, T>(&mut self, future: F, then: N) -> impl ActorFuture<Self, Output = T> + use<F, N, T>
    where
        F: Future + 'static,
        N: FnOnce(F::Output, &mut Self, &mut Context<Self>) -> T + 'static,
        T: 'static,
    {
        self.awaited = self.awaited.saturating_add(1);
        future.into_actor(self).map(move |output, act, ctx| {
            act.awaited = act.awaited.saturating_sub(1);
            let told = then(output, act, ctx);
            act.rest(ctx);
            told
        })
    }

    /// Stops when the last member has left and nothing is awaited; the next member starts from what is durable.
    pub(super) fn rest(&mut self, ctx: &mut Context<Self>) {
        if self.handles.is_empty() && self.awaited == 0 {
            ctx.stop();
        }
    }

    /// Called when members have left: what is known now must be durable before the consumer stops.
    pub(super) fn left(&mut self, ctx: &mut Context<Self>) {
        self.tell_counts(ctx, |_, _, _| {});
        if self.handles.is_empty() {
            self.note(ctx);
            ctx.run_later(TRY_MAX, |act, ctx| {
                if act.handles.is_empty() {
                    ctx.stop();
                }
            });
        }
        self.pump(ctx);
        self.rest(ctx);
    }

    /// Stores a dead letter, as long as this start serves the consumer.
    pub(super) fn bury(&mut self, member: Member, item: Arc<StoredEvent>, deliveries: u32, ctx: &mut Context<Self>) {
        if !self.look(ctx) {
            return;
        }
        let Some(serving) = &self.serving else { return };
        let handle = self.handles.get(&member);
        let named = handle.and_then(|handle| handle.join.name.clone());
        let letter = DeadLetter {
            item: Arc::clone(&item),
            consumer_id: handle.map(|handle| handle.join.consumer_id.clone()),
            consumer: if self.terms.group { named } else { Some(self.terms.name.clone()) },
            group: self.terms.group.then(|| self.terms.name.clone()),
            deliveries,
            once: Some(serving.cursor.unique(item.sequence())),
        };
        let (bus, cursor) = (self.bus.clone(), serving.cursor.clone());
        let bury = async move { letter.store_while(&bus, async || still_serves(&bus, &cursor).await).await };
        let buried = self.awaiting(bury, move |stored, act, ctx| {
            if !stored {
                // It is still the event of whoever serves the consumer now.
                act.look(ctx);
                return;
            }
            act.window.buried(item.sequence());
            act.note(ctx);
            act.pump(ctx);
        });
        ctx.spawn(buried);
    }
}

/// Whether this start still serves the consumer, as the whole cluster has it now: a node that was alone may not have
/// seen yet that another one took over.
async fn still_serves(bus: &Bus, cursor: &Cursor) -> bool {
    while cursor.holds() {
        match bus.node().consensus().read_barrier(Consistency::Leader).await {
            Ok(_) => return cursor.holds(),
            Err(refusal) => tracing::debug!(%refusal, "an event is given up later"),
        }
        tokio::time::sleep(NOTE).await;
    }
    false
}
