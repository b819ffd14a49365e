//! Lifetimes of actors, and how messages are sent to them.
//!
//! Whoever starts an actor holds an [`Owned`] handle. The actor stops when the handle is dropped. An address is not a
//! handle: actix keeps an actor that has a timer alive after the last address is gone.
//!
//! A message is sent by one of two functions: [`must_tell`] when it has to arrive, [`hint`] when it may be lost.

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

/// The kinds of actors. The names are labels of the metric `rollbook_actors`.
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
    /// A connection of the door `nats`.
    NatsConnection,
    /// An actor of Xbus at such a connection.
    XbusAgent,
    /// An actor of Xbus whose program polls the gateway.
    XbusStation,
    /// A responder of the services API of NATS.
    NatsService,
    /// A connection of the door `hms`.
    HmsConnection,
    /// The WebSocket of such a connection.
    HmsWebSocket,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Self; 16] = [
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
        Self::NatsConnection,
        Self::XbusAgent,
        Self::XbusStation,
        Self::NatsService,
        Self::HmsConnection,
        Self::HmsWebSocket,
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
            Self::NatsConnection => "nats_connection",
            Self::XbusAgent => "xbus_agent",
            Self::XbusStation => "xbus_station",
            Self::NatsService => "nats_service",
            Self::HmsConnection => "hms_connection",
            Self::HmsWebSocket => "hms_websocket",
        }
    }
}

/// How many actors live, by kind. Clones share one count.
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

/// Counts one live actor. The context of the actor has this, so the count goes down however the actor ends.
struct Counted(Gauge);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// An actor that somebody owns by a handle.
pub trait Belongs: Actor<Context = Context<Self>> {
    /// The kind that the actor counts as.
    const KIND: Kind;

    /// Called when the owner has dropped the handle. Stops the actor. An actor that must finish something first does so
    /// here, and then stops itself.
    fn released(&mut self, ctx: &mut Context<Self>) {
        ctx.stop();
    }
}

/// Keeps an actor of any type alive: the actor stops when this is dropped.
pub struct Hold {
    /// The actor notices that this is dropped.
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

    /// Starts an actor whose context, and so its address, was made before. Messages that were sent meanwhile wait in
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

/// Starts an actor without a handle. Its only owner is a stream in its context: the actor must stop when the stream
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

/// Ties an actor to its handle, and counts it until its context is gone.
fn attach<A: Belongs>(ctx: &mut Context<A>, counted: Counted, released: oneshot::Receiver<Infallible>) {
    // Nothing is ever sent: the dropped sender is the signal.
    let released = wrap_future::<_, A>(async move { drop(released.await) });
    ctx.spawn(released.then(move |(), act, ctx| {
        act.released(ctx);
        wrap_future(keep(counted))
    }));
}

/// Never ends; dropped with the context of the actor.
async fn keep(_counted: Counted) {
    std::future::pending().await
}

/// A receiver of messages.
pub trait Takes<M> {
    /// Sends a message even if the mailbox is full. Returns `false` when the receiver has ended.
    fn force(self, message: M) -> bool;

    /// Sends a message if there is room. Returns `false` when there is none, or the receiver has ended.
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

/// The answer to a waiting caller: there is always room.
impl<M> Takes<M> for oneshot::Sender<M> {
    fn force(self, message: M) -> bool {
        self.send(message).is_ok()
    }

    fn offer(self, message: M) -> bool {
        self.send(message).is_ok()
    }
}

/// Sends a message that has to arrive, even to a full mailbox. Only for messages that a sender sends a few times in its
/// life; otherwise the mailbox would have no bound. Logs when the receiver has ended.
pub fn must_tell<M>(to: impl Takes<M>, message: M) {
    if !to.force(message) {
        tracing::debug!(message = type_name::<M>(), "a message has no receiver any more");
    }
}

/// Sends a message that may be lost, because the receiver finds out by itself, or does not need to know.
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
