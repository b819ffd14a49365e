//! What an HTTP request shows of who sent it: its header `Authorization`, or a ticket in its address. Whether that is
//! good is not decided here.

use actix_web::http::header::{AUTHORIZATION, HeaderMap};

/// Name of the query parameter with a ticket.
const TICKET: &str = "ticket";

/// The value of the header `Authorization`; `None` without one.
#[must_use]
pub fn authorization(headers: &HeaderMap) -> Option<&[u8]> {
    headers.get(AUTHORIZATION).map(actix_web::http::header::HeaderValue::as_bytes)
}

/// The ticket in an address; `None` without one.
#[must_use]
pub fn ticket(query: &str) -> Option<String> {
    let mut pairs = form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == TICKET).map(|(_, value)| value.into_owned())
}

/// Whether any parameter of an address is something that `is_credential`. Addresses end in logs, so such a request is
/// refused.
#[must_use]
pub fn holds_credential(query: &str, is_credential: impl Fn(&str) -> bool) -> bool {
    !query.is_empty() && form_urlencoded::parse(query.as_bytes()).any(|(_, value)| is_credential(&value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_and_a_credential_are_found_in_an_address() {
        assert_eq!(ticket("a=1&ticket=rbt_x%2by").as_deref(), Some("rbt_x+y"));
        assert_eq!((ticket("a=1"), ticket("")), (None, None));
        let secret = |text: &str| text.starts_with("rb1_");
        assert!(holds_credential("x=1&y=rb1_secret", secret) && holds_credential("access_token=rb%31_s", secret));
        assert!(!holds_credential("x=1", secret) && !holds_credential("", secret));
    }
}
