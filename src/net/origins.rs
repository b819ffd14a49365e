//! The page that has caused a request: browsers say its origin, other programs have none.

use actix_web::http::header::{HOST, HeaderMap, ORIGIN};

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin<'a> {
    /// From no page.
    None,
    /// From a page of this server.
    Own(&'a str),
    /// From a page of another one.
    Other(&'a str),
    /// From a page whose origin cannot be read, which is never one of ours.
    Unreadable,
}

impl<'a> Origin<'a> {
    /// What the headers of a request say.
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
    /// Whether pages from there may use a door that lets in these beside its own; `*` is any.
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
