//! Restarts an actor that died: a factory, checks at intervals, and growing pauses.
//!
//! The supervisor of actix keeps the old value and does not restart after a panic. Here a factory builds each child
//! anew. A child that dies again and again is given up. The child stops when its [`Supervised`] is dropped.

use std::time::{Duration, Instant};

use actix::Addr;

use super::actors::{Actors, Belongs, Owned};

/// Pause before the first restart. Each further pause is twice as long, up to [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// Longest pause before a restart.
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// After this many restarts in a row a child is given up.
const RESTARTS_MAX: u32 = 10;
/// A child that lived this long counts as healthy again.
const HEALTHY: Duration = Duration::from_secs(30);

/// The result of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The child lives.
    Alive,
    /// The child died and waits for its restart.
    Waiting,
    /// The child was restarted just now.
    Restarted,
    /// The child died too often.
    GivenUp,
}

/// One supervised child.
pub struct Supervised<A: Belongs> {
    /// Counts the child.
    actors: Actors,
    /// Builds a child.
    factory: Box<dyn Fn() -> A>,
    /// The present child.
    child: Owned<A>,
    /// When the present child was started, to see whether it became healthy.
    started: Instant,
    /// Restarts in a row.
    restarts: u32,
    /// When the next restart is due.
    due: Option<Instant>,
}

impl<A: Belongs> std::fmt::Debug for Supervised<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Supervised").field("restarts", &self.restarts).finish_non_exhaustive()
    }
}

impl<A: Belongs> Supervised<A> {
    /// Starts the first child.
    #[must_use]
    pub fn start(actors: &Actors, now: Instant, factory: impl Fn() -> A + 'static) -> Self {
        let child = Owned::start(actors, factory());
        Self { actors: actors.clone(), factory: Box::new(factory), child, started: now, restarts: 0, due: None }
    }

    /// The present child. It may be dead until the next check.
    #[must_use]
    pub const fn child(&self) -> &Addr<A> {
        self.child.addr()
    }

    /// Checks the child, and restarts it when its pause is over.
    pub fn check(&mut self, now: Instant) -> Health {
        if self.child.addr().connected() {
            if now.saturating_duration_since(self.started) >= HEALTHY {
                self.restarts = 0;
            }
            return Health::Alive;
        }
        if self.restarts >= RESTARTS_MAX {
            return Health::GivenUp;
        }
        let backoff = BACKOFF_MIN.saturating_mul(1 << self.restarts.min(16)).min(BACKOFF_MAX);
        let due = *self.due.get_or_insert(now + backoff);
        if now < due {
            return Health::Waiting;
        }
        self.due = None;
        self.restarts += 1;
        self.started = now;
        self.child = Owned::start(&self.actors, (self.factory)());
        Health::Restarted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::actors::Kind;
    use actix::{Actor, ActorContext, AsyncContext, Context};

    /// An actor that dies at once.
    struct Mayfly;

    impl Actor for Mayfly {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.run_later(Duration::ZERO, |_, ctx| ctx.stop());
        }
    }

    impl Belongs for Mayfly {
        const KIND: Kind = Kind::Consumer;
    }

    #[actix_web::test]
    async fn a_child_that_dies_is_built_anew_later_and_later_and_given_up_in_the_end() {
        let mut now = Instant::now();
        let actors = Actors::default();
        let mut supervised = Supervised::start(&actors, now, || Mayfly);
        assert_eq!(supervised.check(now), Health::Alive);
        let mut waits = Vec::new();
        loop {
            actix_web::rt::time::sleep(Duration::from_millis(20)).await;
            let began = now;
            let health = loop {
                match supervised.check(now) {
                    Health::Waiting => now += Duration::from_millis(10),
                    health => break health,
                }
            };
            waits.push(now - began);
            match health {
                Health::Restarted => {}
                other => {
                    assert_eq!(other, Health::GivenUp);
                    break;
                }
            }
        }
        assert_eq!(waits.len(), 11, "ten restarts, then no more: {waits:?}");
        assert!(waits[0] <= Duration::from_millis(60) && waits[5] > waits[0], "{waits:?}");
    }
}
