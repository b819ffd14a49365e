//! Why no provider may be asked: the router collects the reasons while it checks the candidates, and the most helpful
//! one becomes the error of the caller. Pure.

use std::cell::Cell;

use super::flight::Flight;
use crate::base::fault::FaultKind;
use crate::bus::client::call::Request;
use crate::bus::error::Fault;

/// The reasons that were seen so far.
#[derive(Default)]
pub(super) struct Rejections {
    /// An instance does not offer the action.
    pub(super) without_action: Cell<bool>,
    /// An instance is the caller itself.
    pub(super) itself: Cell<bool>,
    /// An instance is draining, unhealthy, unreachable, or was tried before.
    pub(super) unavailable: Cell<bool>,
    /// The circuit breaker of an instance is open.
    pub(super) tripped: Cell<bool>,
    /// An instance has its maximum of requests.
    pub(super) full: Cell<bool>,
}

impl Rejections {
    /// The most helpful of the reasons.
    pub(super) fn error(&self, flight: &Flight) -> Fault {
        let Request { capability, action, .. } = &*flight.request;
        if self.full.get() || (self.unavailable.get() && flight.full) {
            return Fault::overloaded(format!("all providers of {capability} have too many requests"));
        }
        if self.tripped.get() {
            let text = format!("all providers of \"{capability}\" keep failing; try again later");
            return Fault::new(FaultKind::NoProvider, text);
        }
        if self.unavailable.get() {
            let text = format!("no provider of \"{capability}\" is available now");
            return Fault::new(FaultKind::NoProvider, text);
        }
        if self.itself.get() {
            return Fault::bad(format!("the caller is the only provider of \"{capability}\""));
        }
        if self.without_action.get() {
            return Fault::new(FaultKind::NoAction, format!("no provider of \"{capability}\" offers \"{action}\""));
        }
        Fault::new(FaultKind::NoCapability, format!("nobody offers \"{capability}\""))
    }
}
