//! The door `sse`: the event log over HTTP, with Server-Sent Events.
//!
//! Size: a door has one file for its handlers, and they share their answers.

mod codec;
mod session;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix::{Actor as _, Addr};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use futures_util::Stream as _;
use rollbook_cluster::node::Consistency;
use rollbook_core::command::{Command, ConsumerOpen, Done, NamespaceCreate};
use rollbook_core::consumer::Consumer;
use rollbook_core::error::Refusal;
use rollbook_core::event::EventId;
use rollbook_core::namespace::Retention;
use rollbook_core::node::Owner;
use rollbook_core::pattern::Pattern;
use rollbook_core::subject::Namespace;
use rollbook_core::time::Timestamp;

use crate::bus::body::{self, BodyError};
use crate::bus::clock;
use crate::bus::handle::Bus;
use crate::bus::item::Item;
use crate::bus::message::{Acknowledged, Join, Reason, Tell, Terms};
use crate::bus::outlet;
use crate::bus::registry::Registry;
use crate::bus::relay::{AckElsewhere, JoinElsewhere, PostElsewhere, Relay, SupersedeElsewhere};
use crate::bus::source::Source;
use crate::bus::subscription::{Delivery, Membership, Opening, Subscription};
use crate::bus::window::Patience;
use crate::bus::wire::Wire as _;

use codec::{FRAMES, Parsed, Publish, Rejected, Single};
use session::{Durable, Query, Start, Subscribe};

/// What this door can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Largest body, bytes.
    pub body_bytes_max: usize,
    /// Longest time a body may take to arrive.
    pub body_timeout: Duration,
    /// After this long without a write a stream gets a comment.
    pub keep_alive: Duration,
    /// Which namespaces clients may use.
    pub enabled: Enabled,
}

/// Namespaces that clients may use without having been created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Enabled {
    /// Any, created by its first publish.
    Any,
    /// These, and those that exist.
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

    /// Whether the namespace may be read although it does not exist yet.
    fn may_read(&self, name: &str) -> bool {
        name == Namespace::ROLL || name == Namespace::DEAD || (Namespace::parse(name).is_ok() && self.may_create(name))
    }
}

/// The door.
#[derive(Debug)]
pub struct Door {
    bus: Bus,
    registry: Addr<Registry>,
    relay: Addr<Relay>,
    config: Config,
    serial: AtomicU64,
    draining: AtomicBool,
}

static CONSUMER_ID: HeaderName = HeaderName::from_static("x-bus-consumer-id");
static EVENT_ID: HeaderName = HeaderName::from_static("x-bus-event-id");
static EVENT_CREATED_AT: HeaderName = HeaderName::from_static("x-bus-event-created-at");
static EVENT_INDEX: HeaderName = HeaderName::from_static("x-bus-event-index");
static ANY: HeaderValue = HeaderValue::from_static("*");
static METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, OPTIONS");
const ALLOWED: &str = "Content-Type, X-BUS-EVENT-ID, X-BUS-EVENT-CREATED-AT, X-BUS-EVENT-INDEX, X-BUS-CONSUMER-ID";
static HEADERS: HeaderValue = HeaderValue::from_static(ALLOWED);
static EXPOSED: HeaderValue =
    HeaderValue::from_static("X-BUS-EVENT-ID, X-BUS-EVENT-CREATED-AT, X-BUS-EVENT-INDEX, X-BUS-CONSUMER-ID");
/// Most bytes of a meaningless body that are read past.
const DISCARD_BYTES_MAX: usize = 64 << 10;
/// How long a member waits for a node that serves its consumer.
const SERVED_MAX: Duration = Duration::from_secs(8);
const SERVED_PAUSE: Duration = Duration::from_millis(100);
/// Request headers that a preflight may ask for beyond the usual ones.
const EXTRA_HEADERS: [&str; 3] = ["Authorization", "Last-Event-ID", "Cache-Control"];

impl Door {
    /// A door onto this bus.
    #[must_use]
    pub fn new(bus: Bus, registry: Addr<Registry>, relay: Addr<Relay>, config: Config) -> Arc<Self> {
        // Members of one consumer come from all nodes: their numbers must differ.
        let serial = AtomicU64::new((bus.node().id() << 44) + 1);
        Arc::new(Self { bus, registry, relay, config, serial, draining: AtomicBool::new(false) })
    }

    /// From now on nothing new is accepted.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    fn accepting(&self) -> Result<(), Rejected> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(refused(&Refusal::Unavailable("node is stopping".to_owned())));
        }
        self.bus.node().ready().map_err(|refusal| refused(&refusal))
    }
}

/// Lets a server answer every path with this door.
pub fn mount(door: &Arc<Door>, services: &mut web::ServiceConfig) {
    services.app_data(web::Data::from(Arc::clone(door))).default_service(web::to(handle));
}

async fn handle(request: HttpRequest, payload: web::Payload, door: web::Data<Door>) -> HttpResponse {
    let answer = match *request.method() {
        Method::POST => publish(&request, payload, &door).await,
        Method::GET => subscribe(&request, &door, false).await,
        Method::HEAD => subscribe(&request, &door, true).await,
        Method::PUT => {
            discard(payload).await;
            acknowledge(&request, &door).await
        }
        Method::OPTIONS => Ok(preflight(request.headers())),
        _ => Err(Rejected { status: 405, text: "Method Not Allowed".into() }),
    };
    answer.unwrap_or_else(|rejected| reject(&rejected))
}

/// An answer with what browsers of other origins need.
fn answer(status: StatusCode) -> HttpResponseBuilder {
    let mut builder = HttpResponseBuilder::new(status);
    builder
        .insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY.clone()))
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS.clone()))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS.clone()))
        .insert_header((header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED.clone()));
    builder
}

fn reject(rejected: &Rejected) -> HttpResponse {
    let status = StatusCode::from_u16(rejected.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut builder = answer(status);
    builder
        .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
        .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        builder.insert_header((header::ALLOW, "GET, HEAD, OPTIONS, POST, PUT"));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        builder.insert_header((header::RETRY_AFTER, "1"));
    }
    if status == StatusCode::PAYLOAD_TOO_LARGE || status == StatusCode::REQUEST_TIMEOUT {
        // The rest of the body is not wanted.
        builder.force_close();
    }
    builder.body(format!("{}\n", rejected.text))
}

fn refused(refusal: &Refusal) -> Rejected {
    Rejected { status: refusal.status(), text: refusal.to_string().into() }
}

fn preflight(headers: &HeaderMap) -> HttpResponse {
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok()).unwrap_or("");
    let asked: Vec<&str> = asked.split(',').map(str::trim).collect();
    let mut allowed = ALLOWED.to_owned();
    for extra in EXTRA_HEADERS {
        if asked.iter().any(|name| name.eq_ignore_ascii_case(extra)) {
            allowed.push_str(", ");
            allowed.push_str(extra);
        }
    }
    answer(StatusCode::NO_CONTENT)
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, allowed))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"))
        .finish()
}

async fn read_body(request: &HttpRequest, payload: web::Payload, config: &Config) -> Result<Bytes, Rejected> {
    let read = body::read(request, payload, config.body_bytes_max, config.body_timeout).await;
    read.map_err(|error| match error {
        BodyError::TooLarge => Rejected { status: 413, text: "request body too large".into() },
        BodyError::Late => Rejected { status: 408, text: "request body did not arrive in time".into() },
        BodyError::Broken(error) => Rejected { status: 400, text: format!("incomplete body: {error}").into() },
    })
}

/// Reads past a small body that means nothing, so that the connection can go on.
async fn discard(mut payload: web::Payload) {
    let mut left = DISCARD_BYTES_MAX;
    let read = async {
        while let Some(Ok(chunk)) = poll_fn(|cx| Pin::new(&mut payload).poll_next(cx)).await {
            left = left.saturating_sub(chunk.len());
            if left == 0 {
                break;
            }
        }
    };
    // Late or large: actix closes the connection with the answer.
    tokio::time::timeout(Duration::from_secs(1), read).await.unwrap_or(());
}

async fn publish(request: &HttpRequest, payload: web::Payload, door: &Door) -> Result<HttpResponse, Rejected> {
    let body = read_body(request, payload, &door.config).await?;
    if door.draining.load(Ordering::Relaxed) {
        door.accepting()?;
    }
    let now = clock::timestamp();
    let enabled = |name: &str| door.config.enabled.may_create(name) || door.bus.node().has_namespace(name);
    match codec::parse_publish(&body, now, &enabled)? {
        Parsed::Inbox { subject, record, created_at } => Ok(post(door, &subject, record, created_at)),
        Parsed::Publish(publish) => store(door, publish).await,
    }
}

async fn store(door: &Door, publish: Publish) -> Result<HttpResponse, Rejected> {
    let Publish { namespace, mut frame, single } = publish;
    if door.config.enabled.may_create(&namespace) {
        codec::allow_create(&mut frame);
    }
    let (first, _) = door.bus.proposer().publish(frame.into()).await.map_err(|refusal| refused(&refusal))?;
    let mut builder = answer(StatusCode::ACCEPTED);
    if let Some(Single { id, created_at }) = single {
        let id = if id.is_empty() { EventId::new(created_at, first).to_string() } else { id };
        event_headers(&mut builder, &id, created_at, i64::try_from(first).unwrap_or(i64::MAX));
    }
    Ok(builder.finish())
}

/// Gives a message to whoever listens to the inbox now.
fn post(door: &Door, subject: &str, record: Vec<u8>, created_at: Timestamp) -> HttpResponse {
    let item = Arc::new(Item::unstored(record.into()));
    door.bus.inboxes().post(subject, &item, door.bus.metrics());
    let elsewhere = PostElsewhere { subject: subject.to_owned(), record: item.record() };
    if door.relay.try_send(elsewhere).is_err() {
        door.bus.metrics().inbox_dropped.inc();
    }
    let mut builder = answer(StatusCode::ACCEPTED);
    event_headers(&mut builder, &item.id(), created_at, -1);
    builder.finish()
}

fn event_headers(builder: &mut HttpResponseBuilder, id: &str, created_at: Timestamp, index: i64) {
    let mut time = Vec::with_capacity(32);
    created_at.write(&mut time);
    if let (Ok(id), Ok(time)) = (HeaderValue::from_str(id), HeaderValue::from_bytes(&time)) {
        builder
            .insert_header((EVENT_ID.clone(), id))
            .insert_header((EVENT_CREATED_AT.clone(), time))
            .insert_header((EVENT_INDEX.clone(), HeaderValue::from(index)));
    }
}

async fn acknowledge(request: &HttpRequest, door: &Door) -> Result<HttpResponse, Rejected> {
    let ack = session::ack(&Query::parse(request.query_string()))?;
    let acknowledged = match door.bus.find(&ack.consumer_id) {
        None => acknowledge_elsewhere(door, &ack.consumer_id, &ack.event_id).await?,
        // A stream that has just ended is the same as one that is unknown.
        Some(live) => match live.tell.send(Tell::Acknowledge(ack.event_id)).await {
            Err(_) => Acknowledged::NotInFlight,
            Ok(Ok(acknowledged)) => acknowledged,
            Ok(Err(refusal)) if refusal.status() == 503 => return Err(refused(&refusal)),
            Ok(Err(refusal)) => {
                tracing::error!(%refusal, "an acknowledgement failed");
                return Err(Rejected { status: 500, text: "failed to process acknowledgment".into() });
            }
        },
    };
    if ack.unusual && acknowledged == Acknowledged::NotInFlight {
        return Err(session::invalid_event_id());
    }
    Ok(answer(StatusCode::ACCEPTED).finish())
}

/// The stream may be open on another node.
async fn acknowledge_elsewhere(door: &Door, consumer_id: &str, event_id: &str) -> Result<Acknowledged, Rejected> {
    let ack = AckElsewhere { consumer_id: consumer_id.to_owned(), event_id: event_id.to_owned() };
    let stopping = |_| Refusal::Unavailable("node is stopping".to_owned());
    let answer = door.relay.send(ack).await.map_err(stopping).and_then(|answer| answer);
    answer.map_err(|refusal| refused(&refusal))
}

async fn subscribe(request: &HttpRequest, door: &Door, head: bool) -> Result<HttpResponse, Rejected> {
    let query = Query::parse(request.query_string());
    let pattern = session::pattern(&query)?;
    let namespace = pattern.namespace();
    let known = pattern.is_inbox() || door.bus.node().namespace(namespace).is_some();
    if !known && !door.config.enabled.may_read(namespace) {
        let text = format!("namespace not found: {namespace}");
        return Err(Rejected { status: 400, text: text.into() });
    }
    let last = request.headers().get("last-event-id").and_then(|value| value.to_str().ok());
    let last = match last {
        Some(id) if !id.starts_with("e_") && position(door, namespace, id).await?.is_none() => None,
        other => other,
    };
    let wanted = session::subscribe(&query, pattern, last)?;
    door.accepting()?;
    let consumer_id = match wanted.consumer_id.clone() {
        Some(chosen) => {
            // A connection with this id may be open on another node; missing this is no harm.
            door.relay.try_send(SupersedeElsewhere(chosen.clone())).ok();
            chosen
        }
        None => new_consumer_id(door),
    };
    let mut builder = stream_answer(&consumer_id);
    if head {
        return Ok(builder.finish());
    }
    open(door, wanted, consumer_id, builder).await
}

fn stream_answer(consumer_id: &str) -> HttpResponseBuilder {
    let mut builder = answer(StatusCode::OK);
    builder
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .insert_header(("X-Accel-Buffering", "no"))
        .insert_header((CONSUMER_ID.clone(), consumer_id));
    builder
}

/// `c_` and 20 characters that carry this node's number and 64 random bits.
fn new_consumer_id(door: &Door) -> String {
    let node = u32::try_from(door.bus.node().id()).unwrap_or(u32::MAX);
    let id = EventId { second: node, sequence: uuid::Uuid::new_v4().as_u64_pair().1 };
    id.to_string().replacen('e', "c", 1)
}

/// Position of an event by id.
async fn position(door: &Door, namespace: &str, id: &str) -> Result<Option<u64>, Rejected> {
    let found = find(door, namespace, id).await?;
    if found.is_some() {
        return Ok(found);
    }
    // Another node may have given out an id that this one has not seen yet.
    if door.bus.node().read_barrier(Consistency::Leader).await.is_err() {
        return Ok(None);
    }
    find(door, namespace, id).await
}

async fn find(door: &Door, namespace: &str, id: &str) -> Result<Option<u64>, Rejected> {
    let (book, namespace, id) = (door.bus.node().book(), namespace.to_owned(), id.to_owned());
    door.bus.read(move || book.find_id(&namespace, &id)).await.map_err(|error| {
        tracing::error!(%error, "a stream cannot be opened");
        Rejected { status: 500, text: "failed to initialize event stream".into() }
    })
}

async fn open(
    door: &Door,
    wanted: Subscribe,
    consumer_id: String,
    mut builder: HttpResponseBuilder,
) -> Result<HttpResponse, Rejected> {
    let (outlet, body) = outlet::pair();
    outlet.push(format!(": consumer {consumer_id}\n\n").into());
    let opening = |delivery| Opening {
        bus: door.bus.clone(),
        consumer_id: consumer_id.clone(),
        serial: door.serial.fetch_add(1, Ordering::Relaxed),
        wire: &FRAMES,
        outlet: outlet.clone(),
        keep_alive: door.config.keep_alive,
        delivery,
    };
    if wanted.pattern.is_inbox() {
        let listening = door.bus.inboxes().listen(wanted.pattern.as_str());
        Subscription::new(opening(Delivery::Inbox(listening))).start();
        return Ok(builder.body(body));
    }
    let namespace = wanted.pattern.namespace();
    let resumes = wanted.durable.as_ref().is_some_and(|durable| is_known(door, namespace, &durable.name));
    let next = match &wanted.start {
        _ if resumes => 1,
        Start::Oldest => 1,
        Start::Newest => door.bus.node().namespace(namespace).map_or(1, |head| head.next),
        Start::After(id) => match position(door, namespace, id).await? {
            Some(sequence) => sequence.saturating_add(1),
            None => {
                let mut out = Vec::new();
                FRAMES.failure(&format!("start event id {id} not found in namespace {namespace}"), &mut out);
                outlet.push(out.into());
                outlet.end();
                return Ok(builder.body(body));
            }
        },
    };
    match (wanted.durable, wanted.manual) {
        (Some(durable), manual) => {
            let until = clock::now() + SERVED_MAX;
            loop {
                let served = durable_terms(door, &durable, &wanted.pattern, manual.is_some(), next).await?;
                match join(door, served, durable.member.clone(), manual, opening).await {
                    Err(rejected) if rejected.status == 503 && clock::now() < until => {
                        // The node that served it has just died; another will be found in a moment.
                        tokio::time::sleep(SERVED_PAUSE).await;
                    }
                    joined => break joined?,
                }
            }
        }
        (None, Some(patience)) => {
            let source = Source::new(&door.bus, wanted.pattern, next);
            Subscription::new(opening(Delivery::Manual(source, patience))).start();
        }
        (None, None) => {
            let source = Source::new(&door.bus, wanted.pattern, next);
            Subscription::new(opening(Delivery::Stream(source))).start();
        }
    }
    Ok(builder.body(body))
}

fn is_known(door: &Door, namespace: &str, name: &str) -> bool {
    let node = door.bus.node();
    node.namespace(namespace).is_some_and(|head| node.consumer(&head, name).is_some())
}

/// Creates the durable consumer, or finds it as it is.
async fn durable_terms(
    door: &Door,
    durable: &Durable,
    pattern: &Pattern,
    manual: bool,
    next: u64,
) -> Result<(Terms, Owner), Rejected> {
    let namespace = pattern.namespace();
    if door.bus.node().namespace(namespace).is_none() {
        let create = NamespaceCreate { name: namespace.to_owned(), retention: Retention::default() };
        match propose(door, Command::NamespaceCreate(create)).await {
            Ok(_) | Err(Refusal::NamespaceExists(_)) => {}
            Err(refusal) => return Err(refused(&refusal)),
        }
    }
    let consumer = Consumer {
        name: durable.name.clone(),
        subject: pattern.as_str().to_owned(),
        group: durable.group,
        ack_floor: next.saturating_sub(1),
        ..Consumer::default()
    };
    let open = ConsumerOpen { namespace: namespace.to_owned(), consumer, claimant: Some(door.bus.node().owner()) };
    let opened = propose(door, Command::ConsumerOpen(open)).await.map_err(|refusal| refused(&refusal))?;
    let owner = match opened {
        Done::Consumer(Consumer { owner: Some(owner), .. }) => owner,
        // The cluster does not know this life of this node yet.
        _ => return Err(refused(&Refusal::Unavailable("node is joining".to_owned()))),
    };
    Ok((Terms { name: durable.name.clone(), pattern: pattern.clone(), group: durable.group, manual }, owner))
}

async fn propose(door: &Door, command: Command) -> Result<Done, Refusal> {
    door.bus.proposer().command(command).await
}

/// Starts the stream of a member of a durable consumer, which this node or another one serves.
async fn join(
    door: &Door,
    (terms, owner): (Terms, Owner),
    name: Option<String>,
    patience: Option<Patience>,
    opening: impl Fn(Delivery) -> Opening + Copy,
) -> Result<(), Rejected> {
    let here = owner == door.bus.node().owner();
    let (acknowledge, leave) = if here {
        (door.registry.clone().recipient(), door.registry.clone().recipient())
    } else {
        (door.relay.clone().recipient(), door.relay.clone().recipient())
    };
    let namespace = terms.pattern.namespace().to_owned();
    let membership = Membership { namespace, consumer: terms.name.clone(), acknowledge, leave };
    let opening = opening(Delivery::Member(membership));
    let (member, consumer_id) = (opening.serial, opening.consumer_id.clone());
    let stream = Subscription::new(opening).start();
    let patience = patience.unwrap_or(Patience { redelivery: Duration::ZERO, count_max: 0 });
    let (deliver, tell) = (stream.clone().recipient(), stream.clone().recipient());
    let join = Join { terms, member, consumer_id, name, patience, deliver, tell };
    let joined =
        if here { door.registry.send(join).await } else { door.relay.send(JoinElsewhere { owner, join }).await };
    let refusal = match joined {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(refusal)) => refusal,
        Err(_) => Refusal::Unavailable("node is stopping".to_owned()),
    };
    // It has not begun; if its mailbox is closed it has ended already.
    stream.try_send(Tell::Close(Reason::Deleted)).ok();
    Err(refused(&refusal))
}
