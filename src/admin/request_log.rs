//! Writes one log line for each administrative request, with the id that the answer carries.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpMessage as _};
use tracing::Instrument as _;

use crate::base::clock;

static REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id, runs the request in a span with that id, and logs the status of the answer.
///
/// # Errors
/// The inner service failed.
pub async fn log_request<B: MessageBody>(request: ServiceRequest, next: Next<B>) -> Result<ServiceResponse<B>, Error> {
    let id = request_id(&request);
    request.extensions_mut().insert(RequestId(id.clone()));
    let span = tracing::info_span!("request", request_id = %id, method = %request.method(), path = %request.path());
    let began = clock::now();
    let mut response = next.call(request).instrument(span.clone()).await?;
    let micros = began.elapsed().as_micros();
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), micros, "answered"));
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID.clone(), value);
    }
    Ok(response)
}

/// The id of a request, among its extensions.
#[derive(Debug, Clone)]
struct RequestId(String);

/// The id of a request.
pub(super) fn id_of(request: &ServiceRequest) -> String {
    request.extensions().get::<RequestId>().map(|id| id.0.clone()).unwrap_or_default()
}

/// The id of the caller if it is harmless, else a new id.
fn request_id(request: &ServiceRequest) -> String {
    let given = request.headers().get(&REQUEST_ID).and_then(|value| value.to_str().ok());
    let harmless = |id: &&str| {
        (1..=64).contains(&id.len()) && id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    };
    given.filter(harmless).map_or_else(|| uuid::Uuid::now_v7().to_string(), str::to_owned)
}
