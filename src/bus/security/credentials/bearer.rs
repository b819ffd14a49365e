//! What a client presented, by its form: the value of an `Authorization` header, or the token that a client without
//! headers sent elsewhere. Whether a credential is good is not decided here.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::basic::{self, Basic};
use super::nkey::NkeyProof;
use super::token;

/// Longest value of an `Authorization` header.
pub const AUTHORIZATION_BYTES_MAX: usize = 20 * 1024;
/// Longest JWT.
pub const JWT_BYTES_MAX: usize = 16 * 1024;

/// A credential by its form.
#[derive(Clone)]
pub enum Presented<'a> {
    /// A token of this cluster.
    Token {
        /// The public half.
        id: &'a str,
        /// The secret half.
        secret: &'a str,
    },
    /// A text of three parts, which may be a JWT of an issuer.
    Jwt(&'a str),
    /// A user and a password.
    Basic(Basic),
    /// The public key of a user of NATS, and its signature of what the server has asked the client to sign.
    Nkey(NkeyProof<'a>),
    /// Something else. To present this is the same as to present a wrong credential.
    Unknown,
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Token { id, .. } => write!(f, "Token({id}, hidden)"),
            Self::Jwt(_) => f.write_str("Jwt(hidden)"),
            Self::Basic(Basic { user, .. }) => write!(f, "Basic({user}, hidden)"),
            Self::Nkey(proof) => write!(f, "Nkey({}, hidden)", proof.key),
            Self::Unknown => f.write_str("Unknown"),
        }
    }
}

/// Reads the value of an `Authorization` header.
#[must_use]
pub fn from_authorization(value: &[u8]) -> Presented<'_> {
    if value.len() > AUTHORIZATION_BYTES_MAX {
        return Presented::Unknown;
    }
    let Some((scheme, rest)) = str::from_utf8(value).ok().and_then(|text| text.trim().split_once(' ')) else {
        return Presented::Unknown;
    };
    let rest = rest.trim_start_matches(' ');
    if scheme.eq_ignore_ascii_case("bearer") {
        return from_bearer(rest);
    }
    if scheme.eq_ignore_ascii_case("basic") {
        return basic::parse(rest).map_or(Presented::Unknown, Presented::Basic);
    }
    Presented::Unknown
}

/// Reads a bare token, as it stands behind `Bearer`, in `auth.token` of Socket.IO or in a subprotocol of a WebSocket.
#[must_use]
pub fn from_bearer(text: &str) -> Presented<'_> {
    match token::parse(text) {
        Some((id, secret)) => Presented::Token { id, secret },
        None if is_jwt_shaped(text) => Presented::Jwt(text),
        None => Presented::Unknown,
    }
}

/// Whether the decoded value of a query parameter is a credential. URLs end in logs and histories, so doors refuse such a
/// request. A ticket is none: URLs are what tickets are for.
#[must_use]
pub fn looks_like_credential(value: &str) -> bool {
    let value = value.trim();
    let bare = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let value = bare.map_or(value, |(_, rest)| rest.trim());
    value.starts_with(token::TOKEN_PREFIX) && value.len() >= token::TOKEN_CHARACTERS
        || is_jwt_shaped(value) && has_jwt_header(value)
}

/// Whether a text consists of three parts in base64url.
fn is_jwt_shaped(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= JWT_BYTES_MAX && text.split('.').count() == 3 && text.split('.').all(part)
}

/// Whether the first part is the header of a JWT: subjects have parts too.
fn has_jwt_header(text: &str) -> bool {
    let header = text.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header = header.and_then(|json| serde_json::from_slice::<serde_json::Value>(&json).ok());
    header.is_some_and(|header| header.get("alg").is_some())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use proptest::prelude::*;

    use super::*;

    const TOKEN: &str = "rb1_abcABC012345_0123456789012345678901234567890123456789abc";

    fn form(value: &str) -> String {
        format!("{:?}", from_authorization(value.as_bytes()))
    }

    fn jwt() -> String {
        let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
        format!("{}.{}.{}", part(r#"{"alg":"RS256"}"#), part("{}"), part("signature"))
    }

    #[test]
    fn each_form_is_recognized() {
        assert_eq!(form(&format!("Bearer {TOKEN}")), "Token(abcABC012345, hidden)");
        assert_eq!(form(&format!("bEaReR   {TOKEN} ")), "Token(abcABC012345, hidden)");
        assert_eq!(form(&format!("Bearer {}", jwt())), "Jwt(hidden)");
        assert_eq!(form(&format!("basic {}", STANDARD.encode("ann:secret"))), "Basic(user:ann, hidden)");
        assert!(matches!(from_bearer(TOKEN), Presented::Token { id: "abcABC012345", secret } if secret.len() == 43));
    }

    #[test]
    fn what_is_no_credential_is_unknown() {
        let (long, ticket) = (format!("Bearer {}", "a.".repeat(20 * 1024)), format!("Bearer rbt_{}", "0".repeat(43)));
        let (huge, twice) = (format!("Bearer a.b.{}", "c".repeat(JWT_BYTES_MAX)), format!("Bearer {TOKEN} {TOKEN}"));
        for value in [
            "",
            " ",
            "Bearer",
            "Bearer ",
            "Basic ",
            "Basic ====",
            TOKEN,
            "Bearer a.b",
            "Bearer a.b.c.d.e",
            "Bearer a..c",
            "Bearer a.b.c=",
            "Digest a.b.c",
            "Bearer\ta.b.c",
            "Bearer \u{e9}.b.c",
            &long,
            &ticket,
            &huge,
            &twice,
        ] {
            assert_eq!(form(value), "Unknown", "{value:.80}");
        }
        assert!(matches!(from_authorization(b"Bearer \xff.b.c"), Presented::Unknown));
    }

    #[test]
    fn a_credential_in_a_query_is_noticed_and_other_values_are_not() {
        for value in [TOKEN, &format!(" {TOKEN}"), &format!("Bearer {TOKEN}"), &jwt(), &format!("{TOKEN}x")] {
            assert!(looks_like_credential(value), "{value}");
        }
        let ticket = format!("rbt_{}", "0".repeat(43));
        for value in ["", "rb1_", "app.orders.created", "eyJhbGciOiJ9.b.c", "newest", &ticket, "Bearer of news"] {
            assert!(!looks_like_credential(value), "{value}");
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_do_not_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in "(Bearer|Basic|rb1_[0-9A-Za-z]{12}_)[ .0-9A-Za-z=é]{0,60}",
        ) {
            for value in [&bytes[..], text.as_bytes()] {
                let shown = format!("{:?}", from_authorization(value));
                prop_assert!(shown.len() < 200, "{}", shown);
            }
            prop_assert!(!looks_like_credential(&text) || text.len() > 30);
            prop_assert!(!looks_like_credential(&String::from_utf8_lossy(&bytes)), "{:?}", bytes);
        }
    }
}
