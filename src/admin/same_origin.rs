//! Lets pages of other origins change nothing unless `web.origins` lists them. There is no authentication yet, and a
//! browser sends any request that a page asks for.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderMap, HeaderName, HeaderValue, VARY,
};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, ResponseError as _, web};

use super::Admin;
use super::problem::Problem;
use crate::net::origins::Origin;

static PRIVATE_NETWORK_ASKED: HeaderName = HeaderName::from_static("access-control-request-private-network");
static PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
/// The methods that a page may use.
static METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS");
/// The headers that a page may read.
static EXPOSED: HeaderValue =
    HeaderValue::from_static("Allow, ETag, Retry-After, X-Request-Id, X-Rollbook-Consistency, X-Rollbook-Index");
/// Seconds for which a browser may cache the answer to a preflight.
static MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Passes requests that no page of another origin caused, and requests of listed origins. A listed page may also read
/// the answers and send the headers that its preflight asks for.
///
/// # Errors
/// The handler failed.
pub async fn require(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let admin = request.app_data::<web::Data<Admin>>().cloned();
    let listed = admin.as_ref().map_or_else(Default::default, |admin| admin.config.origins.as_slice());
    let headers = request.headers();
    let origin = Origin::of(headers);
    let is_own = matches!(origin, Origin::None | Origin::Own(_));
    let page = match origin {
        Origin::Other(page) if origin.is_allowed(listed) => HeaderValue::from_str(page).ok(),
        _ => None,
    };
    let is_preflight = request.method() == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD);
    if let Some(page) = &page
        && is_preflight
    {
        let answer = preflight(headers, page);
        return Ok(request.into_response(answer).map_into_boxed_body());
    }
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    if !reads && !is_own && page.is_none() {
        let detail = "pages of other origins may not change anything; web.origins lists those that may";
        let refused = Problem::new(403, "forbidden", detail).error_response();
        return Ok(request.into_response(refused));
    }
    let mut answer = next.call(request).await?.map_into_boxed_body();
    if let Some(page) = page {
        answer.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, page);
        answer.headers_mut().insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED.clone());
    }
    Ok(answer)
}

fn preflight(request_headers: &HeaderMap, page: &HeaderValue) -> HttpResponse {
    let mut answer = HttpResponse::NoContent();
    answer
        .insert_header((ACCESS_CONTROL_ALLOW_ORIGIN, page.clone()))
        .insert_header((ACCESS_CONTROL_ALLOW_METHODS, METHODS.clone()))
        .insert_header((ACCESS_CONTROL_MAX_AGE, MAX_AGE.clone()))
        .insert_header((VARY, "Access-Control-Request-Headers, Access-Control-Request-Private-Network"));
    if let Some(headers) = request_headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        answer.insert_header((ACCESS_CONTROL_ALLOW_HEADERS, headers.clone()));
    }
    if request_headers.contains_key(&PRIVATE_NETWORK_ASKED) {
        answer.insert_header((PRIVATE_NETWORK.clone(), "true"));
    }
    answer.finish()
}
