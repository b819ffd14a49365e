//! How fresh a read is: the request asks, and the answer tells.
//!
//! `?consistency=linearizable` (default), `leader` or `stale` on any `GET /api/...`. The header `X-Rollbook-Index`
//! names the last entry of the log that the answer includes. `/api/cluster` is `stale` unless the request says
//! otherwise, so that a node answers even when no other node does.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::middleware::Next;
use actix_web::{Error, HttpResponse, web};
use rollbook_cluster::node::consensus::Consistency;

use super::Admin;
use super::problem::Problem;

static INDEX: HeaderName = HeaderName::from_static("x-rollbook-index");
static CONSISTENCY: HeaderName = HeaderName::from_static("x-rollbook-consistency");

fn wanted(request: &ServiceRequest) -> Result<Consistency, Problem> {
    let mut pairs = form_urlencoded::parse(request.query_string().as_bytes());
    match pairs.find(|(name, _)| name == "consistency").map(|(_, value)| value).as_deref() {
        Some("linearizable") => Ok(Consistency::Linearizable),
        Some("leader") => Ok(Consistency::Leader),
        Some("stale") => Ok(Consistency::Stale),
        None if request.path() == "/api/cluster" => Ok(Consistency::Stale),
        None => Ok(Consistency::default()),
        Some(_) => Err(Problem::new(400, "bad_request", "consistency: linearizable, leader or stale")),
    }
}

const fn name(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::Linearizable => "linearizable",
        Consistency::Leader => "leader",
        Consistency::Stale => "stale",
    }
}

/// Waits until the node may serve the read, and adds the headers.
///
/// # Errors
/// The handler failed.
pub async fn ensure(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let admin = request.app_data::<web::Data<Admin>>().cloned();
    let (Some(admin), true) = (admin, request.method() == Method::GET && request.path().starts_with("/api/")) else {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    };
    let seen = match wanted(&request) {
        Ok(consistency) => admin
            .bus
            .node()
            .consensus()
            .read_barrier(consistency)
            .await
            .map_err(Problem::from)
            .map(|index| (consistency, index)),
        Err(problem) => Err(problem),
    };
    let (consistency, index) = match seen {
        Ok(seen) => seen,
        Err(problem) => {
            let answer = HttpResponse::from_error(problem);
            return Ok(request.into_response(answer).map_into_boxed_body());
        }
    };
    let mut answer = next.call(request).await?.map_into_boxed_body();
    answer.headers_mut().insert(INDEX.clone(), HeaderValue::from(index));
    answer.headers_mut().insert(CONSISTENCY.clone(), HeaderValue::from_static(name(consistency)));
    Ok(answer)
}
