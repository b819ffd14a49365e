//! The headers of a request that its events get: `Bus-Header-<Name>`, `traceparent`, `tracestate`. Pure.

use actix_web::http::header::{HeaderMap, HeaderValue};
use rollbook_core::event::headers::HeaderList;

use crate::base::fault::FaultKind;
use crate::bus::client::call::traceparent;
use crate::bus::error::Fault;
use crate::bus::write::draft::Draft;

/// The names of headers for all events of a request begin with this.
const PREFIX: &str = "bus-header-";
const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";
/// Longest `tracestate` that is kept, bytes. W3C Trace Context asks everybody to pass on as much.
const TRACESTATE_BYTES_MAX: usize = 512;

/// The headers that a request gives all its events.
#[derive(Debug, Default)]
pub(super) struct RequestHeaders {
    /// Headers that the client asked for. An event that cannot have them is refused.
    requested: HeaderList,
    /// The trace context, which a proxy may have added. An event without room for it goes without it.
    trace: HeaderList,
    /// Most bytes of all events with these headers.
    bytes_max: usize,
}

impl RequestHeaders {
    /// Reads the headers of a request. `traces` says whether the trace context is kept, and `bytes_max` is the limit
    /// of a body.
    ///
    /// # Errors
    /// A header of the request cannot be the header of an event.
    pub(super) fn of(headers: &HeaderMap, traces: bool, bytes_max: usize) -> Result<Self, Fault> {
        let mut requested = HeaderList::default();
        for (name, value) in headers {
            let Some(name) = name.as_str().strip_prefix(PREFIX) else { continue };
            let value = std::str::from_utf8(value.as_bytes());
            let value = value.map_err(|_| Fault::bad(format!("invalid headers: {PREFIX}{name} is not UTF-8")))?;
            requested.push(name, value).map_err(|error| Fault::bad(format!("invalid headers: {error}")))?;
        }
        let trace = if traces { trace(headers) } else { HeaderList::default() };
        Ok(Self { requested, trace, bytes_max })
    }

    /// Checks the length of the JSON that a body became.
    ///
    /// # Errors
    /// The JSON is longer than a body may be.
    pub(super) fn check_bytes(&self, bytes: usize) -> Result<(), Fault> {
        if bytes <= self.bytes_max {
            return Ok(());
        }
        Err(Fault::new(FaultKind::TooLarge, "request body too large; it is longer than that as JSON"))
    }

    /// Adds the headers to events that have none of the same name. The body of the events has so many bytes.
    ///
    /// # Errors
    /// The headers are too many or too long.
    pub(super) fn add_to(&self, drafts: &mut [Draft<'_>], bytes: usize) -> Result<(), Fault> {
        // The headers must not make a large request of a small body with many events.
        let of_all = |list: &HeaderList, events: usize| list.headers().len().saturating_mul(events);
        let requested = of_all(&self.requested, drafts.len()).saturating_add(bytes);
        if !self.requested.headers().is_empty() {
            if requested > self.bytes_max {
                let text = "request body too large; its events are longer than that with the headers of the request";
                return Err(Fault::new(FaultKind::TooLarge, text));
            }
            for draft in drafts.iter_mut() {
                let added = draft.headers.push_missing(self.requested.headers());
                added.map_err(|error| Fault::bad(format!("invalid headers: {error}")))?;
            }
        }
        let both = of_all(&self.trace, drafts.len()).saturating_add(requested);
        if self.trace.headers().is_empty() || both > self.bytes_max {
            return Ok(());
        }
        for draft in drafts.iter_mut().filter(|draft| draft.headers.headers().get(TRACEPARENT).is_none()) {
            // An event without room goes without the trace context.
            draft.headers.push_missing(self.trace.headers()).ok();
        }
        Ok(())
    }
}

/// Reads the trace context. An invalid one is ignored, as W3C asks, and a state without a parent means nothing.
fn trace(headers: &HeaderMap) -> HeaderList {
    let mut list = HeaderList::default();
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let Some(parent) = headers.get(TRACEPARENT).and_then(text).as_deref().and_then(traceparent) else { return list };
    let states: Option<Vec<String>> = headers.get_all(TRACESTATE).map(text).collect();
    let state = states.unwrap_or_default().join(",");
    let mut add = |name, value: &str| list.push(name, value).is_ok();
    if add(TRACEPARENT, &parent) && !state.is_empty() && state.len() <= TRACESTATE_BYTES_MAX {
        add(TRACESTATE, &state);
    }
    list
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderName;

    use super::*;
    use crate::net::http::status::status;

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn request(list: &[(&str, &str)], bytes_max: usize) -> RequestHeaders {
        let mut map = HeaderMap::new();
        for (name, value) in list {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
        }
        RequestHeaders::of(&map, true, bytes_max).unwrap()
    }

    fn added(request: &RequestHeaders, own: &[(&str, &str)], events: usize) -> Result<Vec<String>, u16> {
        let mut headers = HeaderList::default();
        own.iter().for_each(|(name, value)| headers.push(name, value).unwrap());
        let draft = || Draft { headers: headers.clone(), ..Draft::default() };
        let mut drafts: Vec<_> = (0..events).map(|_| draft()).collect();
        request.add_to(&mut drafts, 10).map_err(|fault| status(fault.kind).as_u16())?;
        let last = drafts.pop().unwrap();
        Ok(last.headers.headers().iter().map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn the_context_of_a_trace_is_left_out_where_it_has_no_place() {
        let trace = request(&[("traceparent", TRACE), ("tracestate", "a=b")], 10_000);
        let both = vec![format!("traceparent={TRACE}"), "tracestate=a=b".to_owned()];
        assert_eq!(added(&trace, &[], 1), Ok(both));
        assert_eq!(added(&trace, &[("Traceparent", "own")], 1), Ok(vec!["Traceparent=own".to_owned()]));
        assert_eq!(added(&trace, &[], 1000), Ok(vec![]), "more bytes than a body may have");
        let full = "x".repeat(8191);
        assert_eq!(added(&trace, &[("x", &full)], 1).unwrap().len(), 1);
    }

    #[test]
    fn what_is_asked_for_is_added_or_refused() {
        let requested = request(&[("bus-header-a", "1"), ("bus-header-a", "2"), ("other", "x")], 10_000);
        assert_eq!(added(&requested, &[("b", "3")], 2), Ok(["b=3", "a=1", "a=2"].map(str::to_owned).to_vec()));
        assert_eq!(added(&requested, &[("A", "own")], 1), Ok(vec!["A=own".to_owned()]));
        assert_eq!(added(&requested, &[], 2000), Err(413));
        assert_eq!(added(&requested, &[("x", &"x".repeat(8191))], 1), Err(400));
    }
}
