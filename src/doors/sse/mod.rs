//! The door `sse`: the event log over HTTP, with Server-Sent Events.
//!
//! POST publishes, GET subscribes, PUT acknowledges. `codec` and `session` are pure; this file connects them to
//! HTTP. Imports the bus and the network layer, and no other door.

mod cloudevents;
mod codec;
mod headers;
mod http_refusal;
mod ndjson;
mod session;
pub mod settings;
#[cfg(test)]
mod tests;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{self, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{App, HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use futures_util::Stream as _;
use rollbook_core::level::FeatureLevel;
use rollbook_core::limits::{HEADER_BYTES_MAX, HEADERS_MAX};
use rollbook_core::time::Timestamp;

use crate::base::clock;
use crate::bus::access::{Access, StreamTarget};
use crate::bus::delivery::acknowledgement::Acknowledged;
use crate::bus::error::Fault;
use crate::bus::read::encoder::EventEncoder;
use crate::bus::security::http::CHALLENGE;
use crate::bus::write::draft::{self, Parsed, Published};
use crate::doors::door::{Context, Description, Door};
use crate::net::byte_queue;
use crate::net::http::head;
use crate::net::http::settings::HttpSettings;
use crate::net::http_body::{self, BodyError};
use crate::net::listener::limits::TurnedAway;
use crate::net::listener::listeners::Listeners;
use crate::net::listener::settings::ListenerSettings;
use crate::net::origins::Origin;

use codec::{Context as PublishContext, FRAMES, TELLING_FRAMES};
use headers::RequestHeaders;
use http_refusal::HttpRefusal;
use ndjson::LINES;
use session::Query;
use settings::{NAME, Settings};

/// Bytes that a dump adds to an event at most: `"id":"e_..."`, `"created_at":"..."` and their commas are some 80;
/// each character of a header may need an escape, and each value needs quotes and punctuation.
const DUMP_BYTES_MORE: usize = 1024 + 2 * HEADER_BYTES_MAX + 8 * HEADERS_MAX;

/// The door for the event log over HTTP.
#[derive(Debug)]
pub struct SseDoor {
    access: Access,
    settings: Settings,
    /// Largest body of a restore, bytes: the largest event of any door, and the id, the time and the headers that a
    /// dump adds.
    restore_bytes_max: usize,
    /// The number of open streams.
    streams: Arc<AtomicUsize>,
}

static CONSUMER_ID: HeaderName = HeaderName::from_static("x-bus-consumer-id");
/// Says whether an acknowledgement ended a delivery.
static ACKNOWLEDGED: HeaderName = HeaderName::from_static("x-bus-acknowledged");
static EVENT_ID: HeaderName = HeaderName::from_static("x-bus-event-id");
static EVENT_CREATED_AT: HeaderName = HeaderName::from_static("x-bus-event-created-at");
/// The id under which an event waits, and when it is due.
static DELAYED_ID: HeaderName = HeaderName::from_static("x-bus-delayed-id");
static DELAYED_UNTIL: HeaderName = HeaderName::from_static("x-bus-delayed-until");
static EVENT_INDEX: HeaderName = HeaderName::from_static("x-bus-event-index");
static ANY: HeaderValue = HeaderValue::from_static("*");
static METHODS: HeaderValue = HeaderValue::from_static("GET, POST, PUT, OPTIONS");
const ALLOWED: &str = "Content-Type, X-BUS-EVENT-ID, X-BUS-EVENT-CREATED-AT, X-BUS-EVENT-INDEX, X-BUS-CONSUMER-ID";
static ALLOWED_HEADERS: HeaderValue = HeaderValue::from_static(ALLOWED);
static EXPOSED: HeaderValue = HeaderValue::from_static(
    "X-BUS-EVENT-ID, X-BUS-EVENT-CREATED-AT, X-BUS-EVENT-INDEX, X-BUS-CONSUMER-ID, X-BUS-DELAYED-ID, X-BUS-DELAYED-UNTIL",
);
/// Most bytes of an acknowledgement.
const ACK_BYTES_MAX: usize = 512 << 10;
/// Most bytes of an unneeded body that the door reads.
const DISCARD_BYTES_MAX: usize = 64 << 10;
/// Most additional headers that a preflight allows, and the longest name of one.
const EXTRA_HEADERS_MAX: usize = 64;
const EXTRA_HEADER_BYTES_MAX: usize = 128;

/// Builds the door.
pub fn open(settings: &Settings, context: &Context) -> Arc<dyn Door> {
    let restore_bytes_max = context.message_bytes_max.saturating_add(DUMP_BYTES_MORE);
    let (access, settings) = (context.access.clone(), settings.clone());
    Arc::new(SseDoor { access, settings, restore_bytes_max, streams: Arc::default() })
}

impl Door for SseDoor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> Description {
        Description {
            protocol: "HTTP and Server-Sent Events",
            path: None,
            purpose: "publish to the event log and follow it with curl, EventSource or any HTTP library",
        }
    }

    fn listen(self: Arc<Self>, listeners: &mut Listeners) -> anyhow::Result<()> {
        let settings = ListenerSettings {
            name: NAME,
            connections_max: self.settings.connections_max,
            proxy_protocol_from: self.settings.proxy_protocol_from.clone(),
            tls: self.settings.listener_tls(),
            client_ca: None,
            greeting: None,
        };
        let refuses = Arc::clone(&self);
        let http = HttpSettings {
            hosts: listeners.hosts().clone(),
            idle_timeout: self.settings.idle_timeout,
            websockets: false,
            refuse: Arc::new(move |fault| refuses.refuse(fault)),
        };
        let application = move || App::new().configure(|services| mount(&self, services));
        Ok(listeners.http(listeners.threads(), (settings, http), application)?)
    }
}

impl SseDoor {
    /// Answers a request that reaches no handler.
    fn refuse(&self, fault: &head::Fault) -> HttpResponse {
        let status = StatusCode::from_u16(fault.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut answer = HttpRefusal::new(status, fault.text.clone()).answer();
        self.allow_origin(&mut answer, Origin::None);
        answer
    }

    /// Lets the page that sent the request read the answer, when only some origins are allowed.
    fn allow_origin(&self, answer: &mut HttpResponse, origin: Origin<'_>) {
        if self.settings.origins.iter().any(|any| any == "*") {
            return;
        }
        let headers = answer.headers_mut();
        headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        if let Origin::Own(page) | Origin::Other(page) = origin
            && origin.is_allowed(&self.settings.origins)
            && let Ok(page) = HeaderValue::from_str(page)
        {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, page);
        }
    }

    /// Reserves a stream.
    fn admit(&self) -> Result<StreamSlot, HttpRefusal> {
        let open = StreamSlot(Arc::clone(&self.streams));
        if self.streams.fetch_add(1, Ordering::Relaxed) >= self.settings.streams_max {
            TurnedAway::Streams.count(self.access.metrics(), NAME);
            let most = self.settings.streams_max;
            let text = format!("overloaded: {most} streams are open, which is sse.streams_max");
            return Err(HttpRefusal::new(StatusCode::SERVICE_UNAVAILABLE, text));
        }
        Ok(open)
    }
}

/// The slot of a stream. Another stream can use the slot when this value is dropped.
#[derive(Debug)]
struct StreamSlot(Arc<AtomicUsize>);

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The body of a stream, with the slot of the stream.
struct Stream {
    body: byte_queue::Body,
    _slot: StreamSlot,
}

impl MessageBody for Stream {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        MessageBody::poll_next(Pin::new(&mut self.body), cx)
    }
}

/// Adds this door to a server, for every path.
fn mount(door: &Arc<SseDoor>, services: &mut web::ServiceConfig) {
    services.app_data(web::Data::from(Arc::clone(door))).default_service(web::to(handle));
}

async fn handle(request: HttpRequest, payload: web::Payload, door: web::Data<SseDoor>) -> HttpResponse {
    let origin = Origin::of(request.headers());
    let answer = match *request.method() {
        _ if !origin.is_allowed(&door.settings.origins) => Err(HttpRefusal::new(
            StatusCode::FORBIDDEN,
            "pages of this origin may not use the event log: sse.origins does not list it",
        )),
        Method::POST => publish(&request, payload, &door).await,
        Method::GET => subscribe(&request, &door, false).await,
        Method::HEAD => subscribe(&request, &door, true).await,
        Method::PUT => acknowledge(&request, payload, &door).await,
        Method::OPTIONS => Ok(preflight(request.headers())),
        _ => Err(HttpRefusal::new(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed")),
    };
    let mut answer = answer.unwrap_or_else(|refused| refused.answer());
    door.allow_origin(&mut answer, origin);
    answer
}

/// Begins an answer with the headers that browsers of other origins need.
fn answer(status: StatusCode) -> HttpResponseBuilder {
    let mut builder = HttpResponseBuilder::new(status);
    builder
        .insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, ANY.clone()))
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, METHODS.clone()))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS.clone()))
        .insert_header((header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED.clone()));
    builder
}

impl HttpRefusal {
    fn answer(&self) -> HttpResponse {
        let mut builder = answer(self.status);
        builder
            .insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8"))
            .insert_header((header::X_CONTENT_TYPE_OPTIONS, "nosniff"));
        if let Some(first) = &self.first {
            // The publisher of the first event got the same values, or would have.
            if first.waits {
                waiting_headers(&mut builder, &first.id, first.due());
            } else {
                event_headers(&mut builder, &first.id, first.created_at, first.index.into());
            }
        }
        if self.status == StatusCode::METHOD_NOT_ALLOWED {
            builder.insert_header((header::ALLOW, "GET, HEAD, OPTIONS, POST, PUT"));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            builder.insert_header((header::WWW_AUTHENTICATE, CHALLENGE));
        }
        if self.status == StatusCode::SERVICE_UNAVAILABLE || self.status == StatusCode::TOO_MANY_REQUESTS {
            builder.insert_header((header::RETRY_AFTER, self.retry_after.to_string()));
        }
        if self.status == StatusCode::PAYLOAD_TOO_LARGE || self.status == StatusCode::REQUEST_TIMEOUT {
            // The rest of the body is not read.
            builder.force_close();
        }
        builder.body(format!("{}{}\n", self.text, self.hint()))
    }
}

fn preflight(headers: &HeaderMap) -> HttpResponse {
    let requested =
        headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).and_then(|value| value.to_str().ok()).unwrap_or("");
    let is_extra = |name: &&str| !ALLOWED.split(", ").any(|known| known.eq_ignore_ascii_case(name));
    let is_name = |name: &&str| {
        (1..=EXTRA_HEADER_BYTES_MAX).contains(&name.len()) && HeaderName::from_bytes(name.as_bytes()).is_ok()
    };
    let extra = requested.split(',').map(str::trim).filter(is_extra).filter(is_name).take(EXTRA_HEADERS_MAX);
    let allowed: Vec<&str> = [ALLOWED].into_iter().chain(extra).collect();
    let mut builder = answer(StatusCode::NO_CONTENT);
    builder
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, allowed.join(", ")))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"));
    if headers.contains_key("access-control-request-private-network") {
        // A page of the internet asks for access to a node in a local network.
        builder.insert_header(("Access-Control-Allow-Private-Network", "true"));
    }
    builder.finish()
}

async fn read_body(
    request: &HttpRequest,
    payload: web::Payload,
    bytes_max: usize,
    door: &SseDoor,
) -> Result<Bytes, HttpRefusal> {
    let budget = door.access.bus().proposer().receiving();
    let bounds = http_body::Bounds { bytes_max, timeout: door.settings.body_timeout, budget };
    let read = http_body::read(request, payload, bounds).await;
    read.map_err(|error| match error {
        BodyError::Crowded => {
            HttpRefusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many bytes of requests are being received")
        }
        BodyError::TooLarge => {
            let most = door.settings.body_bytes_max;
            let text = format!("request body too large; at most {most} bytes, which is sse.body_bytes_max");
            HttpRefusal::new(StatusCode::PAYLOAD_TOO_LARGE, text)
        }
        BodyError::Late => HttpRefusal::new(StatusCode::REQUEST_TIMEOUT, "request body did not arrive in time"),
        BodyError::Broken(error) => Fault::bad(format!("incomplete body: {error}")).into(),
    })
}

/// Reads a small body that is not needed, so that the connection can be used again.
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
    // When the body is late or large, actix closes the connection with the answer.
    tokio::time::timeout(Duration::from_secs(1), read).await.unwrap_or(());
}

/// The access of the client that sends a request.
async fn admit(request: &HttpRequest, door: &SseDoor) -> Result<Access, HttpRefusal> {
    let identity = door.access.bus().authority().admit_http(NAME, request).await?;
    Ok(door.access.of(identity))
}

async fn publish(request: &HttpRequest, payload: web::Payload, door: &SseDoor) -> Result<HttpResponse, HttpRefusal> {
    let access = admit(request, door).await?;
    let query = Query::parse(request.query_string());
    let restores = session::restores(&query)?;
    let mode = cloudevents::Mode::of(request.headers())?;
    let bytes_max = if restores { door.restore_bytes_max } else { door.settings.body_bytes_max };
    let body = read_body(request, payload, bytes_max, door).await?;
    // A restored event keeps its own trace. Below the feature level of headers, an automatic trace would be refused.
    let traces = !restores
        && request.headers().contains_key("traceparent")
        && door.access.bus().level() >= FeatureLevel::HEADERS;
    let common = RequestHeaders::of(request.headers(), traces, bytes_max)?;
    let enabled = |name: &str| access.is_writable(name);
    let wait = session::wait(&query)?;
    let context = PublishContext { now: clock::timestamp(), enabled: &enabled, common: &common, wait };
    let parsed = match mode {
        None if restores => codec::parse_restore(&body, &context).map(Some),
        None => codec::parse_publish(&body, &context).map(Some),
        Some(mode) => mode.parse(&body, request.headers(), session::publish_subject(&query), &context),
    };
    let Some(mut parsed) = parsed? else { return Ok(answer(StatusCode::ACCEPTED).finish()) };
    if restores && let Parsed::Publish(publish) = &mut parsed {
        draft::restores(&mut publish.frame);
    }
    let published = access.publish(parsed).await?;
    let mut builder = answer(StatusCode::ACCEPTED);
    match published {
        Some(Published { id, due: due @ Some(_), .. }) => waiting_headers(&mut builder, &id, due),
        Some(Published { id, created_at, index, due: None }) => {
            event_headers(&mut builder, &id, Some(created_at), index.into());
        }
        None => {}
    }
    Ok(builder.finish())
}

/// Adds the headers of an event that waits.
fn waiting_headers(builder: &mut HttpResponseBuilder, id: &str, due: Option<Timestamp>) {
    if let Ok(id) = HeaderValue::from_str(id) {
        builder.insert_header((DELAYED_ID.clone(), id));
    }
    if let Some(due) = due.and_then(|due| HeaderValue::from_str(&due.to_string()).ok()) {
        builder.insert_header((DELAYED_UNTIL.clone(), due));
    }
}

fn event_headers(builder: &mut HttpResponseBuilder, id: &str, created_at: Option<Timestamp>, index: HeaderValue) {
    if let Ok(id) = HeaderValue::from_str(id) {
        builder.insert_header((EVENT_ID.clone(), id)).insert_header((EVENT_INDEX.clone(), index));
    }
    let mut time = Vec::with_capacity(32);
    if let Some(created_at) = created_at {
        created_at.write(&mut time);
        if let Ok(time) = HeaderValue::from_bytes(&time) {
            builder.insert_header((EVENT_CREATED_AT.clone(), time));
        }
    }
}

async fn acknowledge(
    request: &HttpRequest,
    payload: web::Payload,
    door: &SseDoor,
) -> Result<HttpResponse, HttpRefusal> {
    let query = Query::parse(request.query_string());
    let (access, body) = if session::names_in_body(&query) {
        let access = admit(request, door).await?;
        (access, read_body(request, payload, ACK_BYTES_MAX, door).await?)
    } else {
        discard(payload).await;
        (admit(request, door).await?, Bytes::new())
    };
    let session::Ack { consumer_id, said, unusual } = session::ack(&query, &body)?;
    let one = said.single().is_some();
    let acknowledged = access.acknowledge(&consumer_id, said).await?;
    if unusual && !acknowledged.is_any() {
        return Err(session::invalid_event_id().into());
    }
    // The protocol fixes the status: clients rely on 202 for every acknowledgement.
    let mut accepted = answer(StatusCode::ACCEPTED);
    if one {
        let waited_for = if acknowledged.is_any() { "true" } else { "false" };
        return Ok(accepted.insert_header((ACKNOWLEDGED.clone(), waited_for)).finish());
    }
    let Acknowledged { count, not_in_flight } = acknowledged;
    accepted.insert_header((ACKNOWLEDGED.clone(), count.to_string()));
    Ok(accepted.json(serde_json::json!({ "count": count, "not_in_flight": not_in_flight })))
}

async fn subscribe(request: &HttpRequest, door: &SseDoor, head: bool) -> Result<HttpResponse, HttpRefusal> {
    let access = admit(request, door).await?;
    let query = Query::parse(request.query_string());
    let pattern = session::pattern(&query)?;
    access.check(&pattern)?;
    let last = request.headers().get("last-event-id").map(HeaderValue::to_str).transpose();
    let last = last.map_err(|_| Fault::bad("invalid Last-Event-ID"))?;
    let wanted = session::subscribe(&query, pattern, last)?;
    let consumer_id = access.consumer_id(wanted.consumer_id.as_deref())?;
    let lines = ndjson::is_requested(request.headers());
    let mut builder = stream_answer(&consumer_id, if lines { ndjson::NDJSON } else { "text/event-stream" });
    if head {
        return Ok(builder.finish());
    }
    let slot = door.admit()?;
    let (outlet, body) = byte_queue::pair();
    let encoder: &'static dyn EventEncoder = if lines {
        &LINES
    } else {
        outlet.push(format!(": consumer {consumer_id}\n\n").into());
        let frames = if wanted.asks_for_one() { &FRAMES } else { &TELLING_FRAMES };
        cloudevents::encoder(request.headers()).unwrap_or(frames)
    };
    let target = StreamTarget { consumer_id, encoder, outlet, keep_alive: door.settings.keep_alive };
    access.open(wanted, target).await?;
    Ok(builder.body(Stream { body, _slot: slot }))
}

fn stream_answer(consumer_id: &str, content_type: &'static str) -> HttpResponseBuilder {
    let mut builder = answer(StatusCode::OK);
    builder
        .insert_header((header::CONTENT_TYPE, content_type))
        .insert_header((header::CACHE_CONTROL, "no-cache, no-transform"))
        .insert_header(("X-Accel-Buffering", "no"))
        .insert_header((CONSUMER_ID.clone(), consumer_id));
    builder
}
