//! The door `sse`: the event log over HTTP, with Server-Sent Events.

mod codec;
mod session;
#[cfg(test)]
mod tests;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use bytes::Bytes;
use futures_util::Stream as _;
use rollbook_core::time::Timestamp;

use crate::bus::access::{Access, Way};
use crate::bus::body::{self, BodyError};
use crate::bus::clock;
use crate::bus::draft::{self, Parsed, Published, Rejected};
use crate::bus::message::Acknowledged;
use crate::bus::outlet;

use codec::FRAMES;
use session::Query;

/// What this door can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Largest body, bytes.
    pub body_bytes_max: usize,
    /// Largest body of a restore, bytes: a copy says more than what was published.
    pub restore_bytes_max: usize,
    /// Longest time a body may take to arrive.
    pub body_timeout: Duration,
    /// After this long without a write a stream gets a comment.
    pub keep_alive: Duration,
}

/// The door.
#[derive(Debug)]
pub struct Door {
    access: Access,
    config: Config,
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
/// Request headers that a preflight may ask for beyond the usual ones.
const EXTRA_HEADERS: [&str; 3] = ["Authorization", "Last-Event-ID", "Cache-Control"];

impl Door {
    /// A door onto the book.
    #[must_use]
    pub fn new(access: Access, config: Config) -> Arc<Self> {
        Arc::new(Self { access, config })
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
        _ => Err(Rejected::new(405, "Method Not Allowed")),
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
    if let Some(first) = &rejected.first {
        // The same that the publisher was told, or would have been, when it was stored.
        event_headers(&mut builder, &first.id, first.created_at, first.index.into());
    }
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

async fn read_body(
    request: &HttpRequest,
    payload: web::Payload,
    bytes_max: usize,
    config: &Config,
) -> Result<Bytes, Rejected> {
    let read = body::read(request, payload, bytes_max, config.body_timeout).await;
    read.map_err(|error| match error {
        BodyError::TooLarge => Rejected::new(413, "request body too large"),
        BodyError::Late => Rejected::new(408, "request body did not arrive in time"),
        BodyError::Broken(error) => Rejected::bad(format!("incomplete body: {error}")),
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
    let config = &door.config;
    let restores = session::restores(&Query::parse(request.query_string()))?;
    let bytes_max = if restores { config.restore_bytes_max } else { config.body_bytes_max };
    let body = read_body(request, payload, bytes_max, config).await?;
    let mut parsed = codec::parse_publish(&body, clock::timestamp(), &|name| door.access.is_writable(name))?;
    if restores && let Parsed::Publish(publish) = &mut parsed {
        draft::restores(&mut publish.frame);
    }
    let published = door.access.publish(parsed).await?;
    let mut builder = answer(StatusCode::ACCEPTED);
    if let Some(Published { id, created_at, index }) = published {
        event_headers(&mut builder, &id, Some(created_at), index.into());
    }
    Ok(builder.finish())
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

async fn acknowledge(request: &HttpRequest, door: &Door) -> Result<HttpResponse, Rejected> {
    let ack = session::ack(&Query::parse(request.query_string()))?;
    let acknowledged = door.access.acknowledge(&ack.consumer_id, &ack.event_id).await?;
    if ack.unusual && acknowledged == Acknowledged::NotInFlight {
        return Err(session::invalid_event_id());
    }
    Ok(answer(StatusCode::ACCEPTED).finish())
}

async fn subscribe(request: &HttpRequest, door: &Door, head: bool) -> Result<HttpResponse, Rejected> {
    let query = Query::parse(request.query_string());
    let pattern = session::pattern(&query)?;
    let access = &door.access;
    access.check(&pattern)?;
    let last = request.headers().get("last-event-id").map(HeaderValue::to_str).transpose();
    let last = last.map_err(|_| Rejected::bad("invalid Last-Event-ID"))?;
    let wanted = session::subscribe(&query, pattern, last)?;
    let consumer_id = access.consumer_id(wanted.consumer_id.as_deref())?;
    let mut builder = stream_answer(&consumer_id);
    if head {
        return Ok(builder.finish());
    }
    let (outlet, body) = outlet::pair();
    outlet.push(format!(": consumer {consumer_id}\n\n").into());
    let way = Way { consumer_id, wire: &FRAMES, outlet, keep_alive: door.config.keep_alive };
    access.open(wanted, way).await?;
    Ok(builder.body(body))
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
