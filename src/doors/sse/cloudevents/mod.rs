//! CloudEvents 1.0.2 over HTTP: reads a publish in the three content modes, and writes the events of a stream in
//! structured mode. Pure.
//!
//! Invariant: attributes go out as they came in, in every mode. Attributes without a field in an event of the log are
//! stored in headers that begin with `ce-`.

mod attributes;
mod read;
#[cfg(test)]
mod tests;
mod write;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderMap, HeaderValue};

use super::codec::Context;
use crate::bus::error::Fault;
use crate::bus::read::encoder::EventEncoder;
use crate::bus::write::draft::Parsed;
use crate::doors::sse::http_refusal::HttpRefusal;

/// Media type of an event in structured mode.
const STRUCTURED: &str = "application/cloudevents+json";
/// Media type of an array of events in structured mode.
const BATCHED: &str = "application/cloudevents-batch+json";
/// The media types of the specification begin with this.
const FAMILY: &str = "application/cloudevents";

/// How the body of a publish holds CloudEvents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    /// The body is an event as JSON.
    Structured,
    /// The body is an array of events as JSON.
    Batched,
    /// The body is the data of an event; its attributes are headers.
    Binary,
}

impl Mode {
    /// The mode of a request. `None` means that the request has no CloudEvent.
    ///
    /// # Errors
    /// The door does not know the format of the CloudEvent.
    pub(super) fn of(headers: &HeaderMap) -> Result<Option<Self>, HttpRefusal> {
        let kind = content_type(headers).map(essence).unwrap_or_default();
        let is_of_family = kind.get(..FAMILY.len()).is_some_and(|start| start.eq_ignore_ascii_case(FAMILY));
        if kind.eq_ignore_ascii_case(STRUCTURED) {
            Ok(Some(Self::Structured))
        } else if kind.eq_ignore_ascii_case(BATCHED) {
            Ok(Some(Self::Batched))
        } else if is_of_family {
            let text = format!("unsupported format of CloudEvents: {STRUCTURED} and {BATCHED} are understood");
            Err(HttpRefusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        } else {
            Ok(headers.contains_key("ce-specversion").then_some(Self::Binary))
        }
    }

    /// Reads the body of a publish. `subject` is the subject in the log for all events, when the request names one.
    /// `None` means an array without events, of which nothing is stored.
    ///
    /// # Errors
    /// The body is invalid.
    pub(super) fn parse(
        self,
        body: &[u8],
        headers: &HeaderMap,
        subject: Option<&str>,
        context: &Context<'_>,
    ) -> Result<Option<Parsed>, Fault> {
        match self {
            Self::Structured => read::structured(body, subject, context).map(Some),
            Self::Batched => read::batched(body, subject, context),
            Self::Binary => read::binary(body, headers, subject, context).map(Some),
        }
    }
}

/// The content type of a request.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
}

/// A media type without its parameters.
fn essence(text: &str) -> &str {
    text.split(';').next().unwrap_or_default().trim()
}

/// The encoder of a stream, when the client asks for CloudEvents.
pub(super) fn encoder(headers: &HeaderMap) -> Option<&'static dyn EventEncoder> {
    let texts = headers.get_all(header::ACCEPT).filter_map(|value: &HeaderValue| value.to_str().ok());
    let refused = |range: &str| {
        let quality = range.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
        quality.and_then(|quality| quality.trim().parse::<f32>().ok()) == Some(0.0)
    };
    let mut ranges = texts.flat_map(|text| text.split(','));
    let is_requested = ranges.any(|range| essence(range).eq_ignore_ascii_case(STRUCTURED) && !refused(range));
    is_requested.then_some(&write::CLOUD_EVENTS)
}
