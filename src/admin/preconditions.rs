//! `ETag`, `If-Match`, `If-None-Match` over a revision.

use actix_web::HttpRequest;
use actix_web::http::header::{IF_MATCH, IF_NONE_MATCH};

use super::problem::Problem;

/// The tag of a revision.
pub(super) fn etag(revision: u64) -> String {
    format!("\"{revision}\"")
}

/// The revision that `If-Match` names; `*` matches any.
pub(super) fn expected(request: &HttpRequest) -> Result<Option<u64>, Problem> {
    let Some(value) = request.headers().get(IF_MATCH) else { return Ok(None) };
    let tag = value.to_str().map(str::trim).unwrap_or_default();
    if tag == "*" {
        return Ok(None);
    }
    let number = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')).and_then(|tag| tag.parse().ok());
    let wrong = || Problem::new(400, "bad_request", "If-Match: the ETag of a GET, like \"7\"");
    number.map(Some).ok_or_else(wrong)
}

/// Whether the caller has this revision already.
pub(super) fn is_known(request: &HttpRequest, revision: u64) -> bool {
    let known = request.headers().get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    known.is_some_and(|list| list.split(',').any(|tag| tag.trim() == etag(revision)))
}
