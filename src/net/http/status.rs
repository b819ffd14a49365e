//! The HTTP status of each kind of fault, for everything that speaks HTTP. Pure.

use actix_web::http::StatusCode;

use crate::base::fault::FaultKind;

/// The status of a fault of that kind.
#[must_use]
pub const fn status(kind: FaultKind) -> StatusCode {
    match kind {
        FaultKind::BadRequest => StatusCode::BAD_REQUEST,
        FaultKind::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        FaultKind::Unauthenticated => StatusCode::UNAUTHORIZED,
        FaultKind::Forbidden => StatusCode::FORBIDDEN,
        FaultKind::NotFound => StatusCode::NOT_FOUND,
        FaultKind::Conflict | FaultKind::NotRegistered => StatusCode::CONFLICT,
        FaultKind::Stale => StatusCode::PRECONDITION_FAILED,
        FaultKind::Overloaded => StatusCode::TOO_MANY_REQUESTS,
        FaultKind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        FaultKind::ProviderLost => StatusCode::BAD_GATEWAY,
        FaultKind::NoCapability
        | FaultKind::NoAction
        | FaultKind::NoProvider
        | FaultKind::Unavailable
        | FaultKind::Cancelled => StatusCode::SERVICE_UNAVAILABLE,
        FaultKind::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        FaultKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
    }
}
