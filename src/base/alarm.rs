//! One timer of an actor, set to the first of the times at which something is due.

use std::time::Instant;

use actix::prelude::{Actor, AsyncContext, Context, SpawnHandle};

use super::clock;

/// A timer that rings once. The timer ends with its actor.
#[derive(Debug, Default)]
pub struct Alarm {
    /// The timer, and when it rings.
    set: Option<(SpawnHandle, Instant)>,
}

impl Alarm {
    /// Rings at this time, or before: an alarm that is set to an earlier time stays. Whoever is woken says so by
    /// [`Alarm::rang`].
    pub fn ring_by<A>(&mut self, at: Instant, ctx: &mut Context<A>, wake: fn(&mut A, &mut Context<A>))
    where
        A: Actor<Context = Context<A>>,
    {
        if self.set.is_some_and(|(_, set)| set <= at) {
            return;
        }
        if let Some((timer, _)) = self.set.take() {
            ctx.cancel_future(timer);
        }
        let wait = at.saturating_duration_since(clock::now());
        self.set = Some((ctx.run_later(wait, wake), at));
    }

    /// The alarm has rung.
    pub const fn rang(&mut self) {
        self.set = None;
    }
}
