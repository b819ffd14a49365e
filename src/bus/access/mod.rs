//! What every door does with the book: publish, subscribe and acknowledge, with the same checks.

pub mod enabled;
pub mod live;
mod open;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::{Addr, Context};
use rollbook_core::entry::{self, Frame};
use rollbook_core::error::Refusal;
use rollbook_core::event::{Event, EventId};
use rollbook_core::level::FeatureLevel;
use rollbook_core::subjects::pattern::Pattern;
use rollbook_core::time::Timestamp;

use enabled::Enabled;

use super::consume::registry::Registry;
use super::delivery::acknowledgement::{Acknowledged, Acknowledgement};
use super::delivery::messages::{StreamCommand, stopping};
use super::error::Fault;
use super::handle::Bus;
use super::read::encoder::EventEncoder;
use super::read::pieces::PIECES;
use super::read::stored_event::StoredEvent;
use super::relay::{AckElsewhere, PostElsewhere, Relay, SupersedeElsewhere};
use super::security::credentials::bearer::Presented;
use super::security::identity::Identity;
use super::security::origin::Origin;
use super::security::usage::Place;
use super::subscribe::batch::Batch;
use super::subscribe::request::Subscribe;
use super::subscribe::subscription::{Delivery, Opening, Subscription};
use super::write::draft::{Parsed, Publish, Published, Single, allow_create};
use super::write::proposer::Stored;
use crate::base::actors::{Owned, hint};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::base::metrics::Metrics;
use crate::net::byte_queue::{self, Body, Outlet};

/// Interval of the check whether the client of a stream of pieces has gone; nothing is written.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

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

/// The book, for one client of a door. Clones share one state.
///
/// A door has the access of nobody, which may do nothing, and gets that of a client from [`Access::admit`].
#[derive(Debug, Clone)]
pub struct Access {
    inner: Arc<Inner>,
    identity: Arc<Identity>,
}

impl Access {
    /// The access to the book of this node.
    #[must_use]
    pub fn new(bus: Bus, registry: Addr<Registry>, relay: Addr<Relay>, enabled: Enabled) -> Self {
        // Numbers of members must differ between nodes and between lives of a node, or a late message about one member
        // would reach another.
        let owner = bus.node().owner();
        let serial = AtomicU64::new((owner.node << 44) + ((owner.incarnation & 0x3fff) << 30) + 1);
        let draining = AtomicBool::new(false);
        let inner = Arc::new(Inner { bus, registry, relay, enabled, serial, draining });
        Self { inner, identity: Identity::nobody() }
    }

    /// The access of a client, as what it shows says who it is.
    ///
    /// # Errors
    /// See [`Authority::admit`](super::security::authority::Authority::admit).
    pub async fn admit(&self, presented: Option<Presented<'_>>, origin: Origin) -> Result<Self, Fault> {
        let identity = self.bus().authority().admit(presented, origin).await?;
        Ok(self.of(identity))
    }

    /// The access of a client that the authority has admitted.
    #[must_use]
    pub fn of(&self, identity: Arc<Identity>) -> Self {
        Self { inner: Arc::clone(&self.inner), identity }
    }

    /// Who the client is.
    #[must_use]
    pub const fn identity(&self) -> &Arc<Identity> {
        &self.identity
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

    /// Whether a publish may create a namespace.
    #[must_use]
    pub fn may_create(&self, name: &str) -> bool {
        self.inner.enabled.may_create(name)
    }

    /// Stores a publish, or sends a message to an inbox. Returns the id and index of a single event.
    ///
    /// # Errors
    /// Why it is not stored.
    pub async fn publish(&self, parsed: Parsed) -> Result<Option<Published>, Fault> {
        self.staying()?;
        match parsed {
            Parsed::Inbox { subject, record, created_at } => {
                self.identity.check_publish(&subject)?;
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
        self.check_publish(&namespace, &frame)?;
        if self.inner.enabled.may_create(&namespace) {
            allow_create(&mut frame);
        }
        let stored = self.bus().proposer().store(frame.into()).await;
        let stored = stored.map_err(|refusal| match single {
            Some(_) => Fault::from(refusal),
            None => Fault::of_batch(&refusal),
        })?;
        Ok(match stored {
            Stored::Published { first, .. } => single.map(|Single { id, created_at }| {
                let id = if id.is_empty() { EventId::new(created_at, first).to_string() } else { id };
                Published { id, created_at, index: i64::try_from(first).unwrap_or(i64::MAX), due: None }
            }),
            Stored::Waiting(waiting) => {
                let due = Timestamp::from_millis(waiting.due);
                let created_at = single.map_or(due, |single| single.created_at);
                Some(Published { id: waiting.id().to_string(), created_at, index: -1, due: Some(due) })
            }
        })
    }

    /// Checks rights and limits of a publish: every event of the frame, as it would be stored.
    fn check_publish(&self, namespace: &str, frame: &[u8]) -> Result<(), Fault> {
        if self.identity.is_open() {
            return Ok(());
        }
        let mut count = 0_u64;
        for publish in entry::frames(frame, 1) {
            let Frame::Publish(publish) = publish else { return Err(Fault::internal("a publish is not one")) };
            count = count.saturating_add(publish.events.into());
            let mut rest = publish.records;
            while !rest.is_empty() {
                let (event, used) = Event::decode(rest).ok_or_else(|| Fault::internal("an event cannot be read"))?;
                self.identity.check_publish(event.subject)?;
                rest = rest.get(used..).unwrap_or_default();
            }
        }
        let bytes = u64::try_from(frame.len()).unwrap_or(u64::MAX);
        let stored = || self.bus().node().state().namespace(namespace).map_or(0, |head| head.bytes());
        self.identity.usage().publish((count, bytes), stored, clock::now)
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
        Published { id: item.id(), created_at, index: -1, due: None }
    }

    /// Takes what a client says of events of a stream of the same principal, at any node.
    ///
    /// # Errors
    /// Nobody knows whether that was taken.
    pub async fn acknowledge(&self, consumer_id: &str, said: Acknowledgement) -> Result<Acknowledged, Fault> {
        let said = Arc::new(said);
        let Some(live) = self.bus().find(consumer_id) else {
            let ack = AckElsewhere { consumer_id: consumer_id.to_owned(), said, principal: self.principal() };
            return Ok(self.inner.relay.send(ack).await.map_err(stopping).and_then(|answer| answer)?);
        };
        // A stream of another principal is as one that is not there, at this node as at any other.
        if !self.identity.is_open() && !live.identity.is_same(&self.identity) {
            return Ok(Acknowledged::nothing(&said));
        }
        // A stream that has just ended is the same as one that is unknown.
        match live.commands.send(StreamCommand::Acknowledge(Arc::clone(&said))).await {
            Err(_) => Ok(Acknowledged::nothing(&said)),
            Ok(Ok(acknowledged)) => Ok(acknowledged),
            Ok(Err(refusal)) if FaultKind::from(&refusal) == FaultKind::Unavailable => Err(refusal.into()),
            Ok(Err(refusal)) => {
                tracing::error!(%refusal, "an acknowledgement failed");
                Err(Fault::internal("failed to process acknowledgment"))
            }
        }
    }

    /// The principal, for other nodes; empty when there is no authentication.
    fn principal(&self) -> String {
        if self.identity.is_open() { String::new() } else { self.identity.name().to_owned() }
    }

    /// Checks whether a subscription to this pattern is possible.
    ///
    /// # Errors
    /// The client may not, or the namespace is not there.
    pub fn check(&self, pattern: &Pattern) -> Result<(), Fault> {
        self.identity.check_subscription(pattern)?;
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
            if let Some(live) = self.bus().find(chosen)
                && !self.identity.is_open()
                && !live.identity.is_same(&self.identity)
            {
                return Err(Fault::new(FaultKind::Conflict, "a stream of another principal has this consumer id"));
            }
            // A stream with this id may be open on another node. A lost message does no harm.
            hint(&self.inner.relay, SupersedeElsewhere { consumer_id: chosen.to_owned(), principal: self.principal() });
            return Ok(chosen.to_owned());
        }
        let node = u32::try_from(self.bus().node().id()).unwrap_or(u32::MAX);
        let id = EventId { second: node, sequence: uuid::Uuid::new_v4().as_u64_pair().1 };
        Ok(id.to_string().replacen('e', "c", 1))
    }

    /// The number of a new stream, which is also its number as a member.
    fn serial(&self) -> u64 {
        self.inner.serial.fetch_add(1, Ordering::Relaxed)
    }

    /// Starts the actor of a stream. The outlet owns the actor, so the actor ends when its client leaves.
    fn start(
        &self,
        ctx: Context<Subscription>,
        (target, place): (&StreamTarget, Place),
        (serial, pattern): (u64, Pattern),
        (delivery, batch): (Delivery, Option<(Batch, Option<Duration>)>),
    ) {
        let opening = Opening {
            bus: self.bus().clone(),
            consumer_id: target.consumer_id.clone(),
            serial,
            identity: Arc::clone(&self.identity),
            place,
            pattern,
            encoder: target.encoder,
            outlet: target.outlet.clone(),
            keep_alive: target.keep_alive,
            delivery,
            batch,
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
}
