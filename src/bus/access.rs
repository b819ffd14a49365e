//! What every door does with the book: publish, subscribe and acknowledge, with the same checks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::{Addr, AsyncContext as _, Context};
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::command::{Command, ConsumerOpen, Done, NamespaceCreate};
use rollbook_core::consumer::Consumer;
use rollbook_core::error::Refusal;
use rollbook_core::event::{Event, EventId};
use rollbook_core::level::FeatureLevel;
use rollbook_core::namespace::Retention;
use rollbook_core::node::Owner;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::subjects::subject::Namespace;
use rollbook_core::time::Timestamp;

use super::consume::registry::Registry;
use super::consume::source::Source;
use super::delivery::messages::{AckResult, ConsumerSpec, Join, StreamCommand, stopping};
use super::delivery::window::{Departure, RedeliveryPolicy};
use super::error::Fault;
use super::handle::Bus;
use super::read::encoder::EventEncoder;
use super::read::pieces::PIECES;
use super::read::stored_event::StoredEvent;
use super::relay::{AckElsewhere, JoinElsewhere, PostElsewhere, Relay, SupersedeElsewhere};
use super::subscribe::request::{Durable, Start, Subscribe};
use super::subscribe::subscription::{Delivery, Membership, Opening, Subscription};
use super::write::draft::{Parsed, Publish, Published, Single, allow_create};
use crate::base::actors::{Owned, hint};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::base::metrics::Metrics;
use crate::net::byte_queue::{self, Body, Outlet};

/// How long a member waits until a node serves its consumer.
const SERVED_MAX: Duration = Duration::from_secs(8);
const SERVED_PAUSE: Duration = Duration::from_millis(100);
/// How long a stream from the newest event waits to learn the newest index of the cluster.
const NEWEST_MAX: Duration = Duration::from_secs(1);
/// Interval of the check whether the client of a stream of pieces has gone; nothing is written.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The namespaces that clients may use before they exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enabled {
    /// Any namespace, created by its first publish.
    Any,
    /// These namespaces.
    Listed(Vec<String>),
}

impl Enabled {
    /// Whether a publish may create the namespace.
    fn may_create(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(names) => names.iter().any(|listed| listed == name),
        }
    }

    /// Whether the namespace may be read before it exists.
    fn may_read(&self, name: &str) -> bool {
        name == Namespace::ROLL || name == Namespace::DEAD || (Namespace::parse(name).is_ok() && self.may_create(name))
    }
}

/// The client side of a stream.
#[derive(Debug, Clone)]
pub struct StreamTarget {
    /// The id that acknowledgements name.
    pub consumer_id: String,
    /// Encodes events for the door.
    pub encoder: &'static dyn EventEncoder,
    /// The queue to the client.
    pub outlet: Outlet,
    /// After this long without a write a keep-alive is written.
    pub keep_alive: Duration,
}

/// The second of an event id that marks the beginning of a stream instead of an event: the last second that an id can
/// hold.
const BEGINNING: u32 = u32::MAX;

/// The position in an id that marks the beginning of a stream. An event of that second means the same.
fn beginning(id: &str) -> Option<u64> {
    EventId::parse(id).filter(|id| id.second == BEGINNING).map(|id| id.sequence)
}

#[derive(Debug)]
struct Inner {
    bus: Bus,
    registry: Addr<Registry>,
    relay: Addr<Relay>,
    /// The namespaces that clients may use before they exist.
    enabled: Enabled,
    /// Number of the next stream. Members of one consumer come from all nodes, so the numbers are unique in the
    /// cluster.
    serial: AtomicU64,
    /// Whether the node accepts nothing new.
    draining: AtomicBool,
}

/// The book, for doors. Clones share one state.
#[derive(Debug, Clone)]
pub struct Access {
    inner: Arc<Inner>,
}

impl Access {
    /// The access to the book of this node.
    #[must_use]
    pub fn new(bus: Bus, registry: Addr<Registry>, relay: Addr<Relay>, enabled: Enabled) -> Self {
        // Numbers of members must differ between nodes and between lives of a node, or a late message about one member
        // would reach another.
        let owner = bus.node().owner();
        let serial = AtomicU64::new((owner.node << 44) + ((owner.incarnation & 0x3fff) << 30) + 1);
        Self { inner: Arc::new(Inner { bus, registry, relay, enabled, serial, draining: AtomicBool::new(false) }) }
    }

    /// From now on nothing new is accepted.
    pub fn drain(&self) {
        self.inner.draining.store(true, Ordering::Relaxed);
    }

    /// The bus below.
    #[must_use]
    pub fn bus(&self) -> &Bus {
        &self.inner.bus
    }

    /// The counters of the bus.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.bus().metrics()
    }

    /// Whether anything new is accepted.
    fn staying(&self) -> Result<(), Refusal> {
        if self.inner.draining.load(Ordering::Relaxed) { Err(stopping(())) } else { Ok(()) }
    }

    /// Whether streams are opened now: the node does not drain and belongs to a majority.
    fn accepting(&self) -> Result<(), Refusal> {
        self.staying()?;
        self.bus().node().consensus().ready()
    }

    /// Whether clients may write to a namespace.
    #[must_use]
    pub fn is_writable(&self, name: &str) -> bool {
        self.inner.enabled.may_create(name) || self.bus().node().state().has_namespace(name)
    }

    /// Stores a publish, or sends a message to an inbox. Returns the id and index of a single event.
    ///
    /// # Errors
    /// Why it is not stored.
    pub async fn publish(&self, parsed: Parsed) -> Result<Option<Published>, Fault> {
        self.staying()?;
        match parsed {
            Parsed::Inbox { subject, record, created_at } => {
                if Event::has_headers(&record) {
                    self.bus().level().check(FeatureLevel::HEADERS)?;
                }
                Ok(Some(self.post(&subject, record, created_at)))
            }
            Parsed::Publish(publish) => self.store(publish).await,
        }
    }

    async fn store(&self, publish: Publish) -> Result<Option<Published>, Fault> {
        let Publish { namespace, mut frame, single } = publish;
        if self.inner.enabled.may_create(&namespace) {
            allow_create(&mut frame);
        }
        let stored = self.bus().proposer().publish(frame.into()).await;
        let (first, _) = stored.map_err(|refusal| match single {
            Some(_) => Fault::from(refusal),
            None => Fault::of_batch(&refusal),
        })?;
        Ok(single.map(|Single { id, created_at }| {
            let id = if id.is_empty() { EventId::new(created_at, first).to_string() } else { id };
            Published { id, created_at, index: i64::try_from(first).unwrap_or(i64::MAX) }
        }))
    }

    /// Sends a message to the listeners of an inbox, on all nodes.
    fn post(&self, subject: &str, record: Vec<u8>, created_at: Timestamp) -> Published {
        let item = Arc::new(StoredEvent::unstored(record.into()));
        let bus = self.bus();
        bus.reply_subjects().post(subject, &item, bus.metrics());
        let elsewhere = PostElsewhere { subject: subject.to_owned(), record: item.record() };
        if self.inner.relay.try_send(elsewhere).is_err() {
            bus.metrics().inbox_dropped.inc();
        }
        Published { id: item.id(), created_at, index: -1 }
    }

    /// Acknowledges an event for a stream of any node.
    ///
    /// # Errors
    /// Nobody knows whether it was acknowledged.
    pub async fn acknowledge(&self, consumer_id: &str, event_id: &str) -> Result<AckResult, Fault> {
        let Some(live) = self.bus().find(consumer_id) else {
            let ack = AckElsewhere { consumer_id: consumer_id.to_owned(), event_id: event_id.to_owned() };
            return Ok(self.inner.relay.send(ack).await.map_err(stopping).and_then(|answer| answer)?);
        };
        // A stream that has just ended is the same as one that is unknown.
        match live.commands.send(StreamCommand::Acknowledge(event_id.to_owned())).await {
            Err(_) => Ok(AckResult::NotInFlight),
            Ok(Ok(acknowledged)) => Ok(acknowledged),
            Ok(Err(refusal)) if FaultKind::from(&refusal) == FaultKind::Unavailable => Err(refusal.into()),
            Ok(Err(refusal)) => {
                tracing::error!(%refusal, "an acknowledgement failed");
                Err(Fault::internal("failed to process acknowledgment"))
            }
        }
    }

    /// Checks whether a subscription to this pattern is possible.
    ///
    /// # Errors
    /// Its namespace is not there.
    pub fn check(&self, pattern: &Pattern) -> Result<(), Fault> {
        let namespace = pattern.namespace();
        let known = pattern.is_inbox() || self.bus().node().state().namespace(namespace).is_some();
        if !known && !self.inner.enabled.may_read(namespace) {
            return Err(Fault::bad(format!("namespace not found: {namespace}")));
        }
        Ok(())
    }

    /// The consumer id of a new stream: the one that the client has chosen, or `c_` and 20 characters that carry the
    /// number of this node and 64 random bits.
    ///
    /// # Errors
    /// Streams are not opened now.
    pub fn consumer_id(&self, chosen: Option<&str>) -> Result<String, Fault> {
        self.accepting()?;
        if let Some(chosen) = chosen {
            // A stream with this id may be open on another node. A lost message does no harm.
            hint(&self.inner.relay, SupersedeElsewhere(chosen.to_owned()));
            return Ok(chosen.to_owned());
        }
        let node = u32::try_from(self.bus().node().id()).unwrap_or(u32::MAX);
        let id = EventId { second: node, sequence: uuid::Uuid::new_v4().as_u64_pair().1 };
        Ok(id.to_string().replacen('e', "c", 1))
    }

    /// Position of the event with this id.
    ///
    /// # Errors
    /// The book cannot be read, or nobody can say now whether there is such an event.
    async fn position(&self, namespace: &str, id: &str) -> Result<Option<u64>, Fault> {
        let found = self.find(namespace, id).await?;
        if found.is_some() {
            return Ok(found);
        }
        // Another node may have issued an id that this node has not applied yet.
        self.bus().node().consensus().read_barrier(Consistency::Leader).await?;
        self.find(namespace, id).await
    }

    /// The first event that is kept, when retention or a delete removed the event of this id. Only ids that the server
    /// made carry a position.
    fn kept_behind(&self, namespace: &str, id: &str) -> Option<u64> {
        let gone = EventId::parse(id).filter(|id| id.sequence > 0 || id.second == BEGINNING)?.sequence;
        let head = self.bus().node().state().namespace(namespace)?;
        (gone < head.first).then_some(head.first)
    }

    /// The position behind which a client resumes.
    async fn resumed(&self, namespace: &str, id: &str) -> Result<Option<u64>, Fault> {
        match beginning(id) {
            Some(sequence) => self.begun(namespace, sequence).await,
            None => self.position(namespace, id).await,
        }
    }

    /// The position in an id that marks the beginning of a stream, if every event behind it is kept.
    async fn begun(&self, namespace: &str, sequence: u64) -> Result<Option<u64>, Fault> {
        let node = self.bus().node();
        if node.state().namespace(namespace).is_none_or(|head| sequence >= head.next) {
            // Another node may have seen more.
            node.consensus().read_barrier(Consistency::Leader).await?;
        }
        let (first, next) = node.state().namespace(namespace).map_or((1, 1), |head| (head.first, head.next));
        Ok((sequence.saturating_add(1) >= first && sequence < next).then_some(sequence))
    }

    /// The position behind every event that was acknowledged until now, on any node.
    async fn newest(&self, namespace: &str) -> u64 {
        let node = self.bus().node();
        let seen = tokio::time::timeout(NEWEST_MAX, node.consensus().read_barrier(Consistency::Leader));
        if !matches!(seen.await, Ok(Ok(_))) {
            tracing::debug!(namespace, "a stream begins behind the newest event that this node has seen");
        }
        node.state().namespace(namespace).map_or(1, |head| head.next)
    }

    async fn find(&self, namespace: &str, id: &str) -> Result<Option<u64>, Fault> {
        let (book, namespace, id) = (self.bus().node().state().book(), namespace.to_owned(), id.to_owned());
        self.bus().read(move || book.find_id(&namespace, &id)).await.map_err(|error| {
            tracing::error!(%error, "a stream cannot be opened");
            Fault::internal("failed to initialize event stream")
        })
    }

    /// The number of a new stream, which is also its number as a member.
    fn serial(&self) -> u64 {
        self.inner.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts the actor of a stream. The outlet owns the actor, so the actor ends when its client leaves.
    fn start(&self, ctx: Context<Subscription>, target: &StreamTarget, serial: u64, delivery: Delivery) {
        let opening = Opening {
            bus: self.bus().clone(),
            consumer_id: target.consumer_id.clone(),
            serial,
            encoder: target.encoder,
            outlet: target.outlet.clone(),
            keep_alive: target.keep_alive,
            delivery,
        };
        let started = Owned::run(&self.bus().metrics().actors, ctx, Subscription::new(opening));
        target.outlet.hold(started.into_hold());
    }

    /// Opens a stream of [`PIECES`]. Returns its consumer id and the body to read.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn follow(&self, wanted: Subscribe) -> Result<(String, Body), Fault> {
        self.check(&wanted.pattern)?;
        let consumer_id = self.consumer_id(None)?;
        let (outlet, body) = byte_queue::pair();
        let target =
            StreamTarget { consumer_id: consumer_id.clone(), encoder: &PIECES, outlet, keep_alive: KEEP_ALIVE };
        self.open(wanted, target).await?;
        Ok((consumer_id, body))
    }

    /// Opens a stream. When the event to begin behind does not exist, the stream reports that and ends. When a client
    /// resumes behind an event that is gone, the stream is refused, or reports the gap.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(&self, wanted: Subscribe, target: StreamTarget) -> Result<(), Fault> {
        if wanted.pattern.is_inbox() {
            let listening = self.bus().reply_subjects().listen(wanted.pattern.as_str());
            self.start(Context::new(), &target, self.serial(), Delivery::Inbox(listening));
            return Ok(());
        }
        let namespace = wanted.pattern.namespace();
        let resumes = wanted.durable.as_ref().is_some_and(|durable| self.is_known(namespace, &durable.name));
        let next = match &wanted.start {
            _ if resumes => 1,
            Start::Oldest => 1,
            Start::Newest => {
                let next = self.newest(namespace).await;
                let mut out = Vec::new();
                let behind = EventId { second: BEGINNING, sequence: next.saturating_sub(1) };
                target.encoder.begin(&behind.to_string(), &mut out);
                if !out.is_empty() && wanted.durable.is_none() {
                    target.outlet.push(out.into());
                }
                next
            }
            Start::After(id) => match self.position(namespace, id).await? {
                Some(sequence) => sequence.saturating_add(1),
                None => {
                    let mut out = Vec::new();
                    let known =
                        if id.starts_with("e_") { "" } else { "; start is oldest, newest or the id of an event" };
                    let text = format!("start event id {id} not found in namespace {namespace}{known}");
                    target.encoder.not_found(&text, &mut out);
                    target.outlet.push(out.into());
                    target.outlet.end();
                    return Ok(());
                }
            },
            Start::Resume(id) => match self.resumed(namespace, id).await? {
                Some(sequence) => sequence.saturating_add(1),
                None => {
                    // Refused for good: a client that is told to retry would come back with the same id.
                    let unknown = || Fault::bad(format!("Last-Event-ID {id} not found in namespace {namespace}"));
                    let first = self.kept_behind(namespace, id).ok_or_else(unknown)?;
                    let mut out = Vec::new();
                    target.encoder.gap(first, &mut out);
                    target.outlet.push(out.into());
                    first
                }
            },
        };
        if let Some(durable) = &wanted.durable {
            return self.join_when_served(durable, &wanted, next, &target).await;
        }
        let source = Source::new(self.bus(), wanted.pattern, next);
        let delivery = match wanted.manual {
            Some(policy) => Delivery::Manual(source, policy),
            None => Delivery::Stream(source),
        };
        self.start(Context::new(), &target, self.serial(), delivery);
        Ok(())
    }

    fn is_known(&self, namespace: &str, name: &str) -> bool {
        self.bus().consumer(namespace, name).is_some()
    }

    /// Joins a durable consumer. When the serving node has just died, tries again until another node serves the
    /// consumer.
    async fn join_when_served(
        &self,
        durable: &Durable,
        wanted: &Subscribe,
        next: u64,
        target: &StreamTarget,
    ) -> Result<(), Fault> {
        let until = clock::now() + SERVED_MAX;
        loop {
            let served = self.served(durable, wanted, next).await?;
            match self.join(served, durable.member.clone(), wanted.manual, target).await {
                Err(fault) if fault.kind == FaultKind::Unavailable && clock::now() < until => {
                    tokio::time::sleep(SERVED_PAUSE).await;
                }
                joined => return joined,
            }
        }
    }

    /// Creates the durable consumer, or finds it. Returns its specification and the serving node.
    async fn served(&self, durable: &Durable, wanted: &Subscribe, next: u64) -> Result<(ConsumerSpec, Owner), Fault> {
        let (pattern, node) = (&wanted.pattern, self.bus().node());
        let namespace = pattern.namespace();
        if node.state().namespace(namespace).is_none() {
            let create = NamespaceCreate { name: namespace.to_owned(), retention: Retention::default() };
            match self.propose(Command::NamespaceCreate(create)).await {
                Ok(_) | Err(Refusal::NamespaceExists(_)) => {}
                Err(refusal) => return Err(refusal.into()),
            }
        }
        let consumer = Consumer {
            name: durable.name.clone(),
            subject: pattern.as_str().to_owned(),
            group: durable.group,
            ack_floor: next.saturating_sub(1),
            ..Consumer::default()
        };
        let open = ConsumerOpen { namespace: namespace.to_owned(), consumer, claimant: Some(node.owner()) };
        let owner = match self.propose(Command::ConsumerOpen(open)).await? {
            Done::Consumer(Consumer { owner: Some(owner), .. }) => owner,
            // The cluster does not know this life of this node yet.
            _ => return Err(Refusal::Unavailable("node is joining".to_owned()).into()),
        };
        let manual = wanted.manual.is_some();
        Ok((ConsumerSpec { name: durable.name.clone(), pattern: pattern.clone(), group: durable.group, manual }, owner))
    }

    async fn propose(&self, command: Command) -> Result<Done, Refusal> {
        self.bus().proposer().command(command).await
    }

    /// Joins a durable consumer on the serving node, then starts the stream of the member. Before the member is
    /// accepted there is only the address of the stream: a failed try leaves nothing behind.
    async fn join(
        &self,
        (spec, owner): (ConsumerSpec, Owner),
        name: Option<String>,
        policy: Option<RedeliveryPolicy>,
        target: &StreamTarget,
    ) -> Result<(), Fault> {
        let Inner { registry, relay, .. } = &*self.inner;
        let here = owner == self.bus().node().owner();
        let (acknowledge, leave) = if here {
            (registry.clone().recipient(), registry.clone().recipient())
        } else {
            (relay.clone().recipient(), relay.clone().recipient())
        };
        let ctx = Context::<Subscription>::new();
        let (deliver, commands) = (ctx.address().recipient(), ctx.address().recipient());
        let (namespace, consumer) = (spec.pattern.namespace().to_owned(), spec.name.clone());
        let (member, manual) = (self.serial(), spec.manual);
        // The membership leaves when it is dropped, also when nobody knows whether the member was accepted, or its
        // client goes meanwhile.
        let departure = Departure::Returned;
        let membership = Membership { namespace, consumer, member, manual, departure, acknowledge, leave };
        let policy = policy.unwrap_or(RedeliveryPolicy { redelivery: Duration::ZERO, count_max: 0 });
        let join = Join { spec, member, consumer_id: target.consumer_id.clone(), name, policy, deliver, commands };
        let joined = if here { registry.send(join).await } else { relay.send(JoinElsewhere { owner, join }).await };
        joined.map_err(stopping)??;
        self.start(ctx, target, member, Delivery::Member(membership));
        Ok(())
    }
}
