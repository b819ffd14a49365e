//! Keeps an actor alive: a factory, a look at intervals, and patience that grows.
//!
//! actix's own supervisor keeps the old value and does not restart after a panic, so a
//! child is built anew by its factory here. A child that dies again and again is given up. The child stops when its
//! [`Supervised`] is dropped.

use std::time::{Duration, Instant};

use actix::Addr;

use super::actors::{Actors, Belongs, Owned};

/// Wait before the first restart; doubles with each until [`BACKOFF_MAX`].
const BACKOFF_MIN: Duration = Duration::from_millis(50);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Restarts in a row after which a child is given up.
const RESTARTS_MAX: u32 = 10;
/// A child that lived this long is healthy again.
const HEALTHY: Duration = Duration::from_secs(30);

/// What a look at a child found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It lives.
    Alive,
    /// It died and waits for its restart.
    Waiting,
    /// It was started again just now.
    Restarted,
    /// It died too often.
    GivenUp,
}

/// One supervised child.
pub struct Supervised<A: Belongs> {
    actors: Actors,
    factory: Box<dyn Fn() -> A>,
    child: Owned<A>,
    started: Instant,
    restarts: u32,
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

    /// The present child; it may be dead until the next look.
    #[must_use]
    pub const fn child(&self) -> &Addr<A> {
        self.child.addr()
    }

    /// Looks at the child and starts it again when its time has come.
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

    /// Dies at once.
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
