//! Opens a stream: where it begins, and the durable consumer that it joins.

use std::time::Duration;

use actix::{AsyncContext as _, Context};
use rollbook_cluster::error::ReadError;
use rollbook_cluster::node::consensus::Consistency;
use rollbook_core::command::{Command, ConsumerOpen, Done, NamespaceCreate};
use rollbook_core::consumer::Consumer;
use rollbook_core::error::Refusal;
use rollbook_core::event::EventId;
use rollbook_core::level::FeatureLevel;
use rollbook_core::namespace::Retention;
use rollbook_core::node::Owner;
use rollbook_core::time::Timestamp;

use super::{Access, Inner, StreamTarget};
use crate::base::clock;
use crate::base::fault::FaultKind;
use crate::bus::consume::selection::Newest;
use crate::bus::consume::source::Source;
use crate::bus::delivery::messages::{ConsumerSpec, Join, stopping};
use crate::bus::delivery::policy::DeliveryPolicy;
use crate::bus::delivery::window::Departure;
use crate::bus::error::Fault;
use crate::bus::relay::JoinElsewhere;
use crate::bus::security::usage::Place;
use crate::bus::subscribe::batch::Batch;
use crate::bus::subscribe::membership::Membership;
use crate::bus::subscribe::request::{Durable, Start, Subscribe};
use crate::bus::subscribe::subscription::{Delivery, Subscription};

/// How long a member waits until a node serves its consumer.
const SERVED_MAX: Duration = Duration::from_secs(8);
const SERVED_PAUSE: Duration = Duration::from_millis(100);
/// How long a stream from the newest event waits to learn the newest index of the cluster.
const NEWEST_MAX: Duration = Duration::from_secs(1);

/// The second of an event id that marks the beginning of a stream instead of an event: the last second that an id can
/// hold.
const BEGINNING: u32 = u32::MAX;

/// The position in an id that marks the beginning of a stream. An event of that second means the same.
fn beginning(id: &str) -> Option<u64> {
    EventId::parse(id).filter(|id| id.second == BEGINNING).map(|id| id.sequence)
}

impl Access {
    /// Opens a stream. When the event to begin behind does not exist, the stream reports that and ends. When a client
    /// resumes behind an event that is gone, the stream is refused, or reports the gap.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn open(&self, wanted: Subscribe, target: StreamTarget) -> Result<(), Fault> {
        self.identity.check_subscription(&wanted.pattern)?;
        self.prepare_dead_letters(&wanted).await?;
        let place = self.identity.usage().stream()?;
        if wanted.pattern.is_inbox() {
            let listening = self.bus().reply_subjects().listen(wanted.pattern.as_str());
            let delivery = Delivery::Inbox(listening);
            self.start(Context::new(), (&target, place), (self.serial(), wanted.pattern), (delivery, None));
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
            Start::At(time) => self.at_time(namespace, millis_of(*time)).await?,
            Start::Since(ago) => {
                let ago = u64::try_from(ago.as_millis()).unwrap_or(u64::MAX);
                self.at_time(namespace, clock::millis().saturating_sub(ago)).await?
            }
            Start::LastPerSubject => 1,
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
            if wanted.is_timed() {
                // A node of the release before would serve the consumer and take no notice of what is new.
                self.bus().level().check(FeatureLevel::TIMED)?;
            }
            return self.join_when_served(durable, &wanted, next, (&target, place)).await;
        }
        let mut source = Source::new(self.bus(), wanted.pattern.clone(), next).filtered(wanted.filter.clone());
        if wanted.start == Start::LastPerSubject {
            source = source.of_old_only(Newest::find(self.bus(), &wanted.pattern, &wanted.filter).await?);
        }
        let batch = bounds(&wanted);
        let delivery = match wanted.manual {
            Some(policy) => Delivery::Manual(source, policy, wanted.order_by),
            None => Delivery::Stream(source),
        };
        self.start(Context::new(), (&target, place), (self.serial(), wanted.pattern), (delivery, batch));
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
        (target, place): (&StreamTarget, Place),
    ) -> Result<(), Fault> {
        let until = clock::now() + SERVED_MAX;
        let mut place = Some(place);
        loop {
            let served = self.served(durable, wanted, next).await?;
            match self.join(served, durable.member.clone(), wanted, (target, &mut place)).await {
                Err(fault) if fault.kind == FaultKind::Unavailable && clock::now() < until => {
                    tokio::time::sleep(SERVED_PAUSE).await;
                }
                joined => return joined,
            }
        }
    }

    /// Checks that the client may publish under the subject that it names for its dead letters, and that there is such a
    /// namespace when the first letter comes.
    async fn prepare_dead_letters(&self, wanted: &Subscribe) -> Result<(), Fault> {
        let Some(subject) = wanted.manual.as_ref().and_then(|policy| policy.dead_letter.as_ref()) else {
            return Ok(());
        };
        self.identity.check_publish(subject.as_str())?;
        if !self.is_writable(subject.namespace()) {
            return Err(Fault::bad(format!("dead_letter: namespace not found: {}", subject.namespace())));
        }
        self.ensure_namespace(subject.namespace()).await
    }

    /// Creates a namespace that the client may create, unless it is there.
    async fn ensure_namespace(&self, name: &str) -> Result<(), Fault> {
        if self.bus().node().state().namespace(name).is_some() {
            return Ok(());
        }
        let create = NamespaceCreate { name: name.to_owned(), retention: Retention::default() };
        match self.propose(Command::NamespaceCreate(create)).await {
            Ok(_) | Err(Refusal::NamespaceExists(_)) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Creates the durable consumer, or finds it. Returns its specification and the serving node.
    async fn served(&self, durable: &Durable, wanted: &Subscribe, next: u64) -> Result<(ConsumerSpec, Owner), Fault> {
        let (pattern, node) = (&wanted.pattern, self.bus().node());
        let namespace = pattern.namespace();
        self.ensure_namespace(namespace).await?;
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
        let spec = ConsumerSpec {
            name: durable.name.clone(),
            pattern: pattern.clone(),
            group: durable.group,
            manual: wanted.manual.is_some(),
            filter: wanted.filter.clone(),
            order_by: wanted.order_by.clone(),
        };
        Ok((spec, owner))
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
        wanted: &Subscribe,
        (target, place): (&StreamTarget, &mut Option<Place>),
    ) -> Result<(), Fault> {
        let Inner { registry, relay, .. } = &*self.inner;
        let here = owner == self.bus().node().owner();
        let (acknowledge, leave, finish) = if here {
            (registry.clone().recipient(), registry.clone().recipient(), registry.clone().recipient())
        } else {
            (relay.clone().recipient(), relay.clone().recipient(), relay.clone().recipient())
        };
        let ctx = Context::<Subscription>::new();
        let (deliver, commands) = (ctx.address().recipient(), ctx.address().recipient());
        let (namespace, consumer) = (spec.pattern.namespace().to_owned(), spec.name.clone());
        let (member, manual) = (self.serial(), spec.manual);
        // The membership leaves when it is dropped, also when nobody knows whether the member was accepted, or its
        // client goes meanwhile.
        let departure = Departure::Returned;
        let none = DeliveryPolicy { redelivery: Duration::ZERO, count_max: 0, ..DeliveryPolicy::default() };
        let policy = wanted.manual.clone().unwrap_or(none);
        let many = policy.in_flight_max > 1;
        let membership =
            Membership { namespace, consumer, member, manual, many, departure, acknowledge, leave, finish };
        let pattern = spec.pattern.clone();
        let join = Join { spec, member, consumer_id: target.consumer_id.clone(), name, policy, deliver, commands };
        let joined = if here { registry.send(join).await } else { relay.send(JoinElsewhere { owner, join }).await };
        joined.map_err(stopping)??;
        if let Some(place) = place.take() {
            self.start(ctx, (target, place), (member, pattern), (Delivery::Member(membership), bounds(wanted)));
        }
        Ok(())
    }

    /// The position of the first event of this time or later.
    async fn at_time(&self, namespace: &str, millis: u64) -> Result<u64, Fault> {
        // What was acknowledged before now counts, at whatever node.
        let seen = tokio::time::timeout(NEWEST_MAX, self.bus().node().consensus().read_barrier(Consistency::Leader));
        if !matches!(seen.await, Ok(Ok(_))) {
            tracing::debug!(namespace, "a stream begins at a time as far as this node has seen");
        }
        let (book, namespace) = (self.bus().node().state().book(), namespace.to_owned());
        self.bus().read(move || book.at_time(&namespace, millis)).await.map_err(|error| unreadable(&error))
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
        self.bus().read(move || book.find_id(&namespace, &id)).await.map_err(|error| unreadable(&error))
    }
}

/// The bounds of a batch, and the longest wait for an acknowledgement in it.
fn bounds(wanted: &Subscribe) -> Option<(Batch, Option<Duration>)> {
    wanted.batch.map(|batch| (batch, wanted.manual.as_ref().map(DeliveryPolicy::longest_wait)))
}

fn unreadable(error: &ReadError) -> Fault {
    tracing::error!(%error, "a stream cannot be opened");
    Fault::internal("failed to initialize event stream")
}

/// A time in milliseconds since 1970, rounded up; 0 for times before.
fn millis_of(time: Timestamp) -> u64 {
    let millis = u64::try_from(time.seconds).unwrap_or(0).saturating_mul(1000);
    if time.seconds < 0 { 0 } else { millis.saturating_add(time.nanos.div_ceil(1_000_000).into()) }
}
