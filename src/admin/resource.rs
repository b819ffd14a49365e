//! A path of REST: its operations, each with the right that it needs.

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceFactory, ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{Error, HttpRequest, HttpResponse, Resource, ResponseError as _, middleware, web};

use super::caller;
use super::operation::Operation;
use super::problem::Problem;

/// The methods of a path with these handlers: HEAD comes with GET, and OPTIONS is everywhere.
fn allowed(methods: &str) -> String {
    let mut allowed = methods.replace("GET", "GET, HEAD");
    allowed.push_str(", OPTIONS");
    allowed
}

/// Creates a path with these operations, each for callers with the right that it needs. The path answers OPTIONS with
/// its methods and refuses every other method with the same list. HEAD arrives as GET, see [`super::answers`].
pub(super) fn resource<const N: usize>(path: &str, operations: [Operation; N]) -> Resource<impl Guarded + use<N>> {
    let answer = move |request: HttpRequest| async move {
        let allowed = allowed(&Operation::methods(&operations));
        let mut answer = if request.method() == Method::OPTIONS {
            HttpResponse::NoContent().finish()
        } else {
            let detail = format!("{} does not take {}; it takes {allowed}", request.path(), request.method());
            Problem::new(405, "method_not_allowed", detail).error_response()
        };
        if let Ok(allowed) = HeaderValue::from_str(&allowed) {
            answer.headers_mut().insert(header::ALLOW, allowed);
        }
        answer
    };
    let authorize = move |request, next| async move { caller::authorize(&operations, request, next).await };
    web::resource(path).default_service(web::to(answer)).wrap(middleware::from_fn(authorize))
}

/// The type of a path that checks rights.
pub(super) trait Guarded:
    ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>
{
}

impl<F> Guarded for F where
    F: ServiceFactory<ServiceRequest, Config = (), Response = ServiceResponse<BoxBody>, Error = Error, InitError = ()>
{
}
