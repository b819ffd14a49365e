//! The operations of REST: each has a method, the right that it needs, and its name in the audit. A path cannot be
//! added without them ([`super::resource::resource`]).

use actix_web::HttpRequest;
use actix_web::dev::ServiceRequest;
use actix_web::http::Method;
use percent_encoding::percent_decode_str;
use rollbook_core::security::right::Verb;

/// What a caller needs for an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Nothing: the operation tells nobody anything.
    Nothing,
    /// To be somebody: the operation is about the caller, or the bus checks what it does.
    Caller,
    /// A right to this target; `{name}` is that part of the path.
    Right(Verb, &'static str),
}

/// One operation of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Operation {
    /// The method.
    pub(super) method: &'static str,
    /// What the caller needs.
    pub(super) need: Need,
    /// The name in the audit; empty for operations that change nothing.
    pub(super) action: &'static str,
    /// Whether the path names the method among those that it takes.
    pub(super) listed: bool,
}

/// Reads something of this area.
pub(super) const fn get(area: &'static str) -> Operation {
    Operation { method: "GET", need: Need::Right(Verb::AdminRead, area), action: "", listed: true }
}

/// Reads, with another need.
pub(super) const fn get_for(need: Need) -> Operation {
    Operation { method: "GET", need, action: "", listed: true }
}

/// Changes something.
pub(super) const fn write(method: &'static str, action: &'static str, verb: Verb, target: &'static str) -> Operation {
    Operation { method, need: Need::Right(verb, target), action, listed: true }
}

/// Does something that the bus checks.
pub(super) const fn checked(method: &'static str, action: &'static str) -> Operation {
    Operation { method, need: Need::Caller, action, listed: true }
}

/// An operation that the path takes and does not name, because it belongs to another path of the same form.
pub(super) const fn unlisted(operation: Operation) -> Operation {
    Operation { listed: false, ..operation }
}

impl Operation {
    /// The operation of a request. HEAD is that of GET.
    pub(super) fn of(operations: &[Self], method: &Method) -> Option<Self> {
        let method = if *method == Method::HEAD { "GET" } else { method.as_str() };
        operations.iter().find(|operation| operation.method == method).copied()
    }

    /// The methods of a path, separated by commas.
    pub(super) fn methods(operations: &[Self]) -> String {
        let listed = operations.iter().filter(|operation| operation.listed);
        listed.map(|operation| operation.method).collect::<Vec<_>>().join(", ")
    }
}

/// Fills the parts of the path into a target.
pub(super) fn target(template: &str, request: &ServiceRequest) -> String {
    filled(template, request.request())
}

fn filled(template: &str, request: &HttpRequest) -> String {
    let mut target = template.to_owned();
    for (name, value) in request.match_info().iter() {
        let place = format!("{{{name}}}");
        if target.contains(&place) {
            // As the handler reads the part: `%2B` stands for a plus, and must not pass a right that names it.
            target = target.replace(&place, &percent_decode_str(value).decode_utf8_lossy());
        }
    }
    target
}
