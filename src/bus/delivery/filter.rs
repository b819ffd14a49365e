//! Which events of its subjects a subscription takes: those with certain headers. Pure.

use std::sync::Arc;

use rollbook_core::event::Event;

use crate::bus::error::Fault;

/// Most headers of one filter.
pub const HEADERS_MAX: usize = 8;
/// Longest name and value together, in bytes.
const HEADER_BYTES_MAX: usize = 1024;

/// Takes events that have all of these headers with these values.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderFilter(Arc<[(String, String)]>);

impl HeaderFilter {
    /// A filter of these names and values.
    ///
    /// # Errors
    /// There are too many, or one of them is empty or too long.
    pub fn new(headers: impl IntoIterator<Item = (String, String)>) -> Result<Self, Fault> {
        let headers: Vec<(String, String)> = headers.into_iter().take(HEADERS_MAX.saturating_add(1)).collect();
        let is_valid = |(name, value): &(String, String)| {
            !name.is_empty() && name.len().saturating_add(value.len()) <= HEADER_BYTES_MAX
        };
        if headers.len() > HEADERS_MAX || !headers.iter().all(is_valid) {
            let text = format!("header: at most {HEADERS_MAX} of at most {HEADER_BYTES_MAX} bytes, as NAME:VALUE");
            return Err(Fault::bad(text));
        }
        Ok(Self(headers.into()))
    }

    /// Reads texts of the form `NAME:VALUE`.
    ///
    /// # Errors
    /// See [`HeaderFilter::new`].
    pub fn parse<'t>(texts: impl IntoIterator<Item = &'t str>) -> Result<Self, Fault> {
        let pair = |text: &str| {
            let (name, value) = text.split_once(':').unwrap_or(("", text));
            (name.trim().to_owned(), value.trim().to_owned())
        };
        Self::new(texts.into_iter().map(pair))
    }

    /// Whether every event is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Whether an event is taken: of several values of one name, one is enough. Names are compared without case.
    #[must_use]
    pub fn takes(&self, event: &Event<'_>) -> bool {
        self.iter().all(|(name, value)| {
            event.headers.iter().any(|(known, text)| known.eq_ignore_ascii_case(name) && text == value)
        })
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::event::headers::HeaderList;

    use super::*;

    #[test]
    fn an_event_is_taken_that_has_all_headers_of_the_filter() {
        let mut headers = HeaderList::default();
        for (name, value) in [("Region", "eu"), ("region", "us"), ("kind", "a:b")] {
            headers.push(name, value).unwrap();
        }
        let event = Event { subject: "a.b", headers: headers.headers(), ..Event::default() };
        let takes = |texts: &[&str]| HeaderFilter::parse(texts.iter().copied()).unwrap().takes(&event);
        assert!(takes(&[]) && takes(&["region:eu"]) && takes(&["REGION: us", "kind:a:b"]));
        assert!(!takes(&["region:asia"]) && !takes(&["region:eu", "other:x"]) && !takes(&["kind:A:b"]));
    }

    #[test]
    fn a_filter_is_bounded() {
        let many = vec!["a:b"; HEADERS_MAX + 1];
        let long = format!("a:{}", "x".repeat(HEADER_BYTES_MAX));
        for wrong in [&["no colon"][..], &[":x"], &many, &[&long]] {
            assert!(HeaderFilter::parse(wrong.iter().copied()).is_err(), "{wrong:?}");
        }
        assert!(HeaderFilter::parse(many.into_iter().take(HEADERS_MAX)).is_ok());
    }
}
