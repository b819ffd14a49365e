//! The origin of a request: browsers name the page that caused the request, other programs do not.

use actix_web::http::header::{HOST, HeaderMap, ORIGIN};

/// The page that caused a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// No page.
    None,
    /// A page of this server.
    Own(&'a str),
    /// A page of another server.
    Other(&'a str),
    /// The origin is not text, so the page is not one of this server.
    Unreadable,
}

impl<'a> Origin<'a> {
    /// Reads the headers of a request.
    #[must_use]
    pub fn of(headers: &'a HeaderMap) -> Self {
        let Some(origin) = headers.get(ORIGIN) else { return Self::None };
        let Ok(origin) = origin.to_str() else { return Self::Unreadable };
        let host = origin.split_once("://").map_or(origin, |(_, host)| host);
        let own = headers.get(HOST).is_some_and(|own| own.as_bytes() == host.as_bytes());
        if own { Self::Own(origin) } else { Self::Other(origin) }
    }
}

impl Origin<'_> {
    /// Whether pages of this origin may use a door that permits `origins` beside its own pages; `*` permits any.
    #[must_use]
    pub fn is_allowed(self, origins: &[String]) -> bool {
        match self {
            Self::None | Self::Own(_) => true,
            Self::Other(other) => origins.iter().any(|known| known == "*" || known == other),
            Self::Unreadable => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::http::header::HeaderValue;

    use super::*;

    #[test]
    fn a_page_is_ours_when_its_origin_names_the_host_that_was_asked() {
        let with = |origin: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(HOST, HeaderValue::from_static("bus.example:4001"));
            headers.insert(ORIGIN, HeaderValue::from_bytes(origin).unwrap());
            headers
        };
        let own = with(b"https://bus.example:4001");
        assert_eq!(Origin::of(&own), Origin::Own("https://bus.example:4001"));
        for other in ["https://bus.example", "http://evil.example", "null", ""] {
            assert_eq!(Origin::of(&with(other.as_bytes())), Origin::Other(other));
        }
        assert_eq!(Origin::of(&with(b"http://bus.example:4001\xff")), Origin::Unreadable);
        assert_eq!(Origin::of(&HeaderMap::new()), Origin::None);
    }
}
