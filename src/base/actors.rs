//! The life of an actor, and what it is told.
//!
//! Whoever starts an actor holds an [`Owned`] handle: when the handle is dropped, the actor stops. An address is no
//! handle: actix keeps an actor that has a timer alive when nobody has its address any more. A message is sent by
//! one of two functions: [`must_tell`] when it has to arrive, [`hint`] when it may be lost.

use std::any::type_name;
use std::convert::Infallible;
use std::fmt;

use actix::ArbiterHandle;
use actix::dev::ToEnvelope;
use actix::fut::wrap_future;
use actix::prelude::{Actor, ActorContext, ActorFutureExt, Addr, AsyncContext, Context, Handler, Message, Recipient};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use tokio::sync::oneshot;

/// The kinds of actors, as `rollbook_actors` names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Supervises the durable consumers of this node.
    Registry,
    /// Talks to the buses of other nodes.
    Relay,
    /// A durable consumer that this node serves.
    Consumer,
    /// A member of such a consumer whose client is connected to another node.
    RemoteMember,
    /// An open stream.
    Subscription,
    /// A session of the door `socketio`.
    Session,
    /// The WebSocket of such a session.
    WebSocket,
    /// A WebSocket whose session is at another node.
    TunnelNear,
    /// A session whose WebSocket is at another node.
    TunnelFar,
    /// A connection of the door `websocket`.
    Connection,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::Registry,
        Self::Relay,
        Self::Consumer,
        Self::RemoteMember,
        Self::Subscription,
        Self::Session,
        Self::WebSocket,
        Self::TunnelNear,
        Self::TunnelFar,
        Self::Connection,
    ];

    /// The value of the label `kind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Relay => "relay",
            Self::Consumer => "consumer",
            Self::RemoteMember => "remote_member",
            Self::Subscription => "subscription",
            Self::Session => "socketio_session",
            Self::WebSocket => "socketio_websocket",
            Self::TunnelNear => "socketio_tunnel_near",
            Self::TunnelFar => "socketio_tunnel_far",
            Self::Connection => "websocket_connection",
        }
    }
}

/// How many actors live, by kind. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Actors {
    alive: Family<[(&'static str, &'static str); 1], Gauge>,
}

impl Actors {
    fn gauge(&self, kind: Kind) -> Gauge {
        self.alive.get_or_create(&[("kind", kind.name())]).clone()
    }

    /// How many actors of this kind live now.
    #[must_use]
    pub fn alive(&self, kind: Kind) -> i64 {
        self.gauge(kind).get()
    }

    /// The metric, with a line for each kind.
    #[must_use]
    pub fn metric(&self) -> Family<[(&'static str, &'static str); 1], Gauge> {
        // A kind without actors is a 0, not a line that is missing.
        Kind::ALL.into_iter().for_each(|kind| drop(self.gauge(kind)));
        self.alive.clone()
    }

    fn count(&self, kind: Kind) -> Counted {
        let gauge = self.gauge(kind);
        gauge.inc();
        Counted(gauge)
    }
}

/// One live actor in the count. The context of the actor has it, so it goes with the actor however that ends.
struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// An actor that is owned by whoever started it.
pub trait Belongs: Actor<Context = Context<Self>> {
    /// What it is counted as.
    const KIND: Kind;

    /// Called when its owner has dropped the handle. Stops the actor; one that has last words says them here, and
    /// must then stop by itself.
    fn released(&mut self, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// Keeps an actor, of whatever type, alive: the actor stops when this is dropped.
pub struct Hold {
    /// What counts is that it is dropped.
    _end: oneshot::Sender<Infallible>,
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Hold")
    }
}

/// The handle of an actor: the actor stops when this is dropped.
pub struct Owned<A: Actor> {
    addr: Addr<A>,
    hold: Hold,
}

impl<A: Actor> fmt::Debug for Owned<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Owned").field("connected", &self.addr.connected()).finish_non_exhaustive()
    }
}

impl<A: Belongs> Owned<A> {
    /// Starts an actor on this thread.
    #[must_use]
    pub fn start(actors: &Actors, actor: A) -> Self {
        Self::create(actors, |_| actor)
    }

    /// Starts an actor on this thread that is made with its context.
    #[must_use]
    pub fn create(actors: &Actors, make: impl FnOnce(&mut Context<A>) -> A) -> Self {
        let mut ctx = Context::new();
        let actor = make(&mut ctx);
        Self::run(actors, ctx, actor)
    }

    /// Starts an actor whose context, and with it its address, was made before. What came for it meanwhile waits in
    /// its mailbox.
    #[must_use]
    pub fn run(actors: &Actors, mut ctx: Context<A>, actor: A) -> Self {
        let (hold, released) = oneshot::channel();
        attach(&mut ctx, actors.count(A::KIND), released);
        Self { addr: ctx.run(actor), hold: Hold { _end: hold } }
    }

    /// Starts an actor on the thread of an arbiter.
    #[must_use]
    pub fn start_in(
        actors: &Actors,
        arbiter: &ArbiterHandle,
        make: impl FnOnce(&mut Context<A>) -> A + Send + 'static,
    ) -> Self {
        let (hold, released) = oneshot::channel();
        let counted = actors.count(A::KIND);
        #[expect(clippy::disallowed_methods, reason = "the one place that starts actors, and their owner is told")]
        let addr = A::start_in_arbiter(arbiter, move |ctx| {
            attach(ctx, counted, released);
            make(ctx)
        });
        Self { addr, hold: Hold { _end: hold } }
    }
}

/// Starts an actor that nobody holds but the stream that it has added to its context: it must stop when the stream
/// ends.
pub fn start_with_its_stream<A: Belongs>(actors: &Actors, make: impl FnOnce(&mut Context<A>) -> A) {
    let mut ctx = Context::new();
    let actor = make(&mut ctx);
    let counted = actors.count(A::KIND);
    ctx.spawn(wrap_future(keep(counted)));
    ctx.run(actor);
}

impl<A: Actor> Owned<A> {
    /// Where its messages go.
    #[must_use]
    pub const fn addr(&self) -> &Addr<A> {
        &self.addr
    }

    /// The handle without the type of the actor.
    #[must_use]
    pub fn into_hold(self) -> Hold {
        self.hold
    }
}

/// Ties an actor to its owner, and counts it until its context is gone.
fn attach<A: Belongs>(ctx: &mut Context<A>, counted: Counted, released: oneshot::Receiver<Infallible>) {
    // Nothing is ever sent: the end of the other side is the message.
    let released = wrap_future::<_, A>(async move { drop(released.await) });
    ctx.spawn(released.then(move |(), act, ctx| {
        act.released(ctx);
        wrap_future(keep(counted))
    }));
}

/// Goes on until it is dropped.
async fn keep(_counted: Counted) {
    std::future::pending().await
}

/// Something that takes messages.
pub trait Takes<M> {
    /// Hands over a message even if the mailbox is full; `false` when nobody will ever read it.
    fn force(self, message: M) -> bool;

    /// Hands over a message if there is room; `false` when there is none, or nobody will ever read it.
    fn offer(self, message: M) -> bool;
}

impl<A, M> Takes<M> for &Addr<A>
where
    A: Actor + Handler<M>,
    A::Context: ToEnvelope<A, M>,
    M: Message + Send + 'static,
    M::Result: Send,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that passes the bound of a mailbox")]
    fn force(self, message: M) -> bool {
        let there = self.connected();
        self.do_send(message);
        there
    }

    fn offer(self, message: M) -> bool {
        self.try_send(message).is_ok()
    }
}

impl<M> Takes<M> for &Recipient<M>
where
    M: Message + Send + 'static,
    M::Result: Send,
{
    #[expect(clippy::disallowed_methods, reason = "the one place that passes the bound of a mailbox")]
    fn force(self, message: M) -> bool {
        let there = self.connected();
        self.do_send(message);
        there
    }

    fn offer(self, message: M) -> bool {
        self.try_send(message).is_ok()
    }
}

/// An answer for one that waits for it: there is always room.
impl<M> Takes<M> for oneshot::Sender<M> {
    fn force(self, message: M) -> bool {
        self.send(message).is_ok()
    }

    fn offer(self, message: M) -> bool {
        self.send(message).is_ok()
    }
}

/// Sends a message that has to arrive: a full mailbox takes it all the same. Only for what is said a few times in the
/// life of its sender, or the mailbox would have no bound. When the receiver has ended, the log says so.
pub fn must_tell<M>(to: impl Takes<M>, message: M) {
    if !to.force(message) {
        tracing::debug!(message = type_name::<M>(), "a message has no receiver any more");
    }
}

/// Sends a message that may be lost, because its receiver finds out by itself, or does not need to know.
pub fn hint<M>(to: impl Takes<M>, message: M) {
    if !to.offer(message) {
        tracing::trace!(message = type_name::<M>(), "a hint was lost");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Has a timer, as most actors have.
    struct Ticking {
        last_words: Option<oneshot::Sender<()>>,
    }

    impl Actor for Ticking {
        type Context = Context<Self>;

        fn started(&mut self, ctx: &mut Self::Context) {
            ctx.set_mailbox_capacity(1);
            ctx.run_interval(Duration::from_secs(3600), |_, _| {});
        }
    }

    impl Belongs for Ticking {
        const KIND: Kind = Kind::Consumer;

        fn released(&mut self, ctx: &mut Context<Self>) {
            if let Some(last) = self.last_words.take() {
                hint(last, ());
            }
            ctx.stop();
        }
    }

    #[derive(Message)]
    #[rtype(result = "()")]
    enum Word {
        Count(oneshot::Sender<()>),
        Die,
    }

    impl Handler<Word> for Ticking {
        type Result = ();

        fn handle(&mut self, word: Word, _: &mut Self::Context) {
            match word {
                Word::Count(heard) => hint(heard, ()),
                Word::Die => panic!("an actor of a test panics"),
            }
        }
    }

    async fn until_none(actors: &Actors) {
        let gone = async {
            while actors.alive(Kind::Consumer) > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(5), gone).await.expect("no actor is left");
    }

    fn ticking() -> Ticking {
        Ticking { last_words: None }
    }

    #[actix_web::test]
    async fn an_actor_with_a_timer_stops_with_its_handle_and_not_with_its_address() {
        let actors = Actors::default();
        let owned = Owned::start(&actors, ticking());
        let hold = owned.into_hold();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(actors.alive(Kind::Consumer), 1, "no address is left, but the handle");
        drop(hold);
        until_none(&actors).await;

        let arbiter = actix::Arbiter::current();
        let (last_words, said) = oneshot::channel();
        let owned = Owned::start_in(&actors, &arbiter, |_| Ticking { last_words: Some(last_words) });
        let addr = owned.addr().clone();
        assert_eq!(actors.alive(Kind::Consumer), 1);
        drop(owned);
        said.await.expect("its last words");
        until_none(&actors).await;
        assert!(!addr.connected());
    }

    #[actix_web::test]
    async fn what_was_sent_before_the_actor_ran_arrives_and_one_that_never_runs_is_not_counted() {
        let actors = Actors::default();
        let ctx: Context<Ticking> = Context::new();
        let addr = ctx.address();
        let (heard, hears) = oneshot::channel();
        must_tell(&addr, Word::Count(heard));
        assert_eq!(actors.alive(Kind::Consumer), 0);
        let owned = Owned::run(&actors, ctx, ticking());
        hears.await.expect("the message that waited");
        assert_eq!(actors.alive(Kind::Consumer), 1);
        drop(owned);
        until_none(&actors).await;

        let ctx: Context<Ticking> = Context::new();
        let addr = ctx.address();
        drop(ctx);
        assert!(!addr.connected());
    }

    #[actix_web::test]
    async fn an_actor_that_panics_is_not_counted_any_more() {
        let actors = Actors::default();
        let owned = Owned::start(&actors, ticking());
        must_tell(owned.addr(), Word::Die);
        until_none(&actors).await;
        assert!(!owned.addr().connected());
    }

    #[actix_web::test]
    async fn a_full_mailbox_loses_hints_and_nothing_that_must_arrive() {
        let actors = Actors::default();
        let owned = Owned::start(&actors, ticking());
        // One turn, so that the mailbox has its bound.
        tokio::task::yield_now().await;
        let (mut hinted, mut told) = (Vec::new(), Vec::new());
        for _ in 0..50 {
            let (heard, hears) = oneshot::channel();
            hint(owned.addr(), Word::Count(heard));
            hinted.push(hears);
            let (heard, hears) = oneshot::channel();
            must_tell(owned.addr(), Word::Count(heard));
            told.push(hears);
        }
        let arrived = futures_util::future::join_all(told).await;
        assert!(arrived.iter().all(Result::is_ok));
        let lost = futures_util::future::join_all(hinted).await;
        assert!(lost.iter().any(Result::is_err), "its mailbox was never full: nothing was tried");
    }

    #[test]
    fn every_kind_has_a_name_of_its_own() {
        let mut names: Vec<&str> = Kind::ALL.into_iter().map(Kind::name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Kind::ALL.len());
    }
}
