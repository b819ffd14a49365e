//! Pages of other origins may not change anything: there is no authentication yet, and a browser sends what
//! any page asks it to.

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::middleware::Next;
use actix_web::{Error, ResponseError as _};

use super::problem::Problem;
use crate::bus::origin::Origin;

/// Lets requests pass that no page of another origin has caused.
///
/// # Errors
/// What the handler behind it fails with.
pub async fn require(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, Error> {
    let reads = [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method());
    let own = matches!(Origin::of(request.headers()), Origin::None | Origin::Own(_));
    if reads || own {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    let refused = Problem::new(403, "forbidden", "pages of other origins may not change anything").error_response();
    Ok(request.into_response(refused))
}
