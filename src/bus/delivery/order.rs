//! By what the events of a consumer are kept in order: each event has a key, and the next event of a key is delivered when
//! the one before is done. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use rollbook_core::event::Event;

use crate::bus::error::Fault;

/// Longest name of a header or JSON pointer, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// What the key of an event is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OrderBy {
    /// Its subject.
    Subject,
    /// The first value of the header of this name.
    Header(Arc<str>),
    /// The part of its payload that this JSON pointer (RFC 6901) leads to.
    Payload(Arc<str>),
}

impl OrderBy {
    /// Reads the parameter `order_by`: `subject`, `header:NAME`, or a JSON pointer, which begins with `/`.
    ///
    /// # Errors
    /// The text is none of them.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let wrong =
            || Fault::bad("order_by: subject, header:NAME, or a JSON pointer into the payload, as /customer/id");
        if text.len() > NAME_BYTES_MAX {
            return Err(wrong());
        }
        match (text, text.strip_prefix("header:")) {
            ("subject", _) => Ok(Self::Subject),
            (_, Some(name)) if !name.is_empty() => Ok(Self::Header(name.into())),
            _ if text.starts_with('/') => Ok(Self::Payload(text.into())),
            _ => Err(wrong()),
        }
    }

    /// The text that [`OrderBy::parse`] reads.
    #[must_use]
    pub fn text(&self) -> String {
        match self {
            Self::Subject => "subject".to_owned(),
            Self::Header(name) => format!("header:{name}"),
            Self::Payload(pointer) => pointer.to_string(),
        }
    }

    /// The key of an event, as a hash: two keys of the same hash wait for each other. `None` when the event has no such
    /// header or no such part; it waits for no other event then.
    #[must_use]
    pub fn key(&self, event: &Event<'_>) -> Option<u64> {
        let mut hasher = DefaultHasher::new();
        match self {
            Self::Subject => event.subject.hash(&mut hasher),
            Self::Header(name) => event.headers.get(name)?.hash(&mut hasher),
            Self::Payload(pointer) => {
                let payload: serde_json::Value = serde_json::from_slice(event.payload?).ok()?;
                payload.pointer(pointer)?.to_string().hash(&mut hasher);
            }
        }
        Some(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use rollbook_core::event::headers::HeaderList;

    use super::*;

    #[test]
    fn a_parameter_reads_back_and_others_are_refused() {
        for text in ["subject", "header:customer", "/customer/id", "/"] {
            assert_eq!(OrderBy::parse(text).unwrap().text(), text);
        }
        for wrong in ["", "Subject", "header:", "customer", &format!("/{}", "x".repeat(256))] {
            assert!(OrderBy::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_same_part_is_the_same_key_and_a_missing_part_is_none() {
        let mut headers = HeaderList::default();
        headers.push("customer", "7").unwrap();
        let event = |subject: &'static str, payload: &'static str| Event {
            subject,
            headers: headers.headers(),
            payload: Some(payload.as_bytes()),
            ..Event::default()
        };
        let key = |by: &str, event: &Event<'_>| OrderBy::parse(by).unwrap().key(event);
        let (one, two) = (event("a.b", r#"{"id": 1, "x": "1"}"#), event("a.c", r#"{"id":1}"#));
        assert!(key("subject", &one).is_some() && key("subject", &one) != key("subject", &two));
        assert_eq!(key("header:Customer", &one), key("header:customer", &two));
        assert_eq!(key("/id", &one), key("/id", &two));
        assert_ne!(key("/id", &one), key("/x", &one), "a number is no text");
        for (by, event) in [("header:other", &one), ("/x", &two), ("/id", &event("a.b", "no json"))] {
            assert_eq!(key(by, event), None, "{by}");
        }
    }
}
