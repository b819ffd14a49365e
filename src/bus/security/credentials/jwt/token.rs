//! A JWT, decoded and not yet verified: its header, its claims, and which bytes were signed.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::bearer::JWT_BYTES_MAX;
use super::error::JwtError;

/// Longest `kid` that is looked for.
const KID_BYTES_MAX: usize = 512;
/// Longest `jti` that is kept.
const ID_BYTES_MAX: usize = 128;
/// Latest time that is understood, in seconds since 1970: the year 9999.
const LATEST: f64 = 253_402_300_799.0;

/// A JWT that was decoded.
#[derive(Debug)]
pub struct Decoded<'a> {
    /// The bytes that were signed: header, dot, claims.
    pub message: &'a [u8],
    /// The signature in base64url.
    pub signature: &'a str,
    /// The algorithm that the header says.
    pub algorithm: Algorithm,
    /// The key that the header names.
    pub kid: Option<String>,
    /// All claims.
    pub claims: Claims,
}

/// The claims of a JWT.
#[derive(Debug)]
pub struct Claims(Map<String, Value>);

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// Decodes a JWT without trusting anything in it.
///
/// # Errors
/// The text is no JWT, is too long, or says an algorithm that does not exist here.
pub fn decode(text: &str) -> Result<Decoded<'_>, JwtError> {
    if text.len() > JWT_BYTES_MAX {
        return Err(JwtError::TooLarge);
    }
    let (message, signature) = text.rsplit_once('.').ok_or(JwtError::Malformed)?;
    let (header, claims) = message.split_once('.').ok_or(JwtError::Malformed)?;
    let header: Header = json(header)?;
    // Includes `none`, which is no algorithm.
    let algorithm = header.alg.parse().map_err(|_| JwtError::Algorithm)?;
    if header.crit.is_some() {
        return Err(JwtError::Critical);
    }
    if header.kid.as_ref().is_some_and(|kid| kid.len() > KID_BYTES_MAX) {
        return Err(JwtError::UnknownKey);
    }
    Ok(Decoded { message: message.as_bytes(), signature, algorithm, kid: header.kid, claims: Claims(json(claims)?) })
}

fn json<T: for<'de> Deserialize<'de>>(part: &str) -> Result<T, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtError::Malformed)?;
    serde_json::from_slice(&bytes).map_err(|_| JwtError::Malformed)
}

impl Claims {
    /// Who issued the token, as the token says.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.0.get("iss")?.as_str()
    }

    /// The id of the token, if there is one that can stand in a log line.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        let id = self.0.get("jti")?.as_str()?;
        (id.len() <= ID_BYTES_MAX && !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic())).then_some(id)
    }

    /// A time such as `exp` or `nbf`; `None` when the claim is absent.
    ///
    /// # Errors
    /// The claim is no number of seconds since 1970.
    pub fn time(&self, claim: &str) -> Result<Option<SystemTime>, JwtError> {
        let Some(value) = self.0.get(claim) else { return Ok(None) };
        let seconds = value.as_f64().filter(|seconds| (0.0..=LATEST).contains(seconds)).ok_or(JwtError::Malformed)?;
        UNIX_EPOCH.checked_add(Duration::from_secs_f64(seconds)).map(Some).ok_or(JwtError::Malformed)
    }

    /// Whether one of these audiences is among those of the token, which are a text or a list of texts.
    #[must_use]
    pub fn is_for(&self, audiences: &[String]) -> bool {
        let ours = |value: &Value| value.as_str().is_some_and(|text| audiences.iter().any(|ours| ours == text));
        match self.0.get("aud") {
            Some(Value::Array(several)) => several.iter().any(ours),
            Some(one) => ours(one),
            None => false,
        }
    }

    /// The text of a claim, by its dotted path.
    #[must_use]
    pub fn text(&self, path: &str) -> Option<&str> {
        find(&self.0, path)?.as_str()
    }

    /// Whether a claim is this text, or has this text among its words or in its list.
    #[must_use]
    pub fn contains(&self, path: &str, wanted: &str) -> bool {
        match find(&self.0, path) {
            Some(Value::String(text)) => text == wanted || text.split_ascii_whitespace().any(|word| word == wanted),
            Some(Value::Array(texts)) => texts.iter().any(|text| text.as_str() == Some(wanted)),
            _ => false,
        }
    }
}

/// The claim at a dotted path. A name with dots in it, such as a URL, goes before a nested claim.
fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Claims {
        Claims(value.as_object().unwrap().clone())
    }

    #[test]
    fn claims_are_found_by_dotted_paths() {
        let claims = claims(&json!({
            "scope": "read write", "groups": ["ops", 7], "realm_access": {"roles": ["admin"], "a": {"b": "c"}},
            "https://example.com/roles": ["writer"], "empty": null, "number": 7,
        }));
        for (path, wanted) in [
            ("scope", "read"),
            ("scope", "write"),
            ("scope", "read write"),
            ("groups", "ops"),
            ("realm_access.roles", "admin"),
            ("realm_access.a.b", "c"),
            ("https://example.com/roles", "writer"),
        ] {
            assert!(claims.contains(path, wanted), "{path} {wanted}");
        }
        for (path, wanted) in [
            ("scope", "rea"),
            ("groups", "7"),
            ("groups", "op"),
            ("realm_access", "admin"),
            ("realm_access.", "admin"),
            ("realm_access..roles", "admin"),
            ("empty", ""),
            ("number", "7"),
            ("", ""),
            (".", ""),
            ("absent.roles", "x"),
        ] {
            assert!(!claims.contains(path, wanted), "{path} {wanted}");
        }
        assert_eq!((claims.text("realm_access.a.b"), claims.text("groups")), (Some("c"), None));
    }

    #[test]
    fn audiences_are_a_text_or_a_list() {
        let ours = ["rollbook".to_owned(), "bus".to_owned()];
        for aud in [json!("bus"), json!(["x", "rollbook"])] {
            assert!(claims(&json!({ "aud": aud })).is_for(&ours), "{aud}");
        }
        for aud in [json!("x"), json!("bus rollbook"), json!([]), json!(["x", ["bus"]]), json!({"bus": 1}), json!(null)]
        {
            assert!(!claims(&json!({ "aud": aud })).is_for(&ours), "{aud}");
        }
        assert!(!claims(&json!({})).is_for(&ours));
    }

    #[test]
    fn times_are_seconds_and_nothing_else() {
        let time = |value: Value| claims(&json!({ "exp": value })).time("exp");
        assert_eq!(time(json!(1)), Ok(Some(UNIX_EPOCH + Duration::from_secs(1))));
        assert_eq!(time(json!(1.5)), Ok(Some(UNIX_EPOCH + Duration::from_millis(1500))));
        assert_eq!(claims(&json!({})).time("exp"), Ok(None));
        for odd in [json!("1"), json!(-1), json!(1e300), json!(null), json!([1]), json!(u64::MAX)] {
            assert_eq!(time(odd.clone()), Err(JwtError::Malformed), "{odd}");
        }
    }

    #[test]
    fn an_id_that_cannot_stand_in_a_log_is_none() {
        let id = |value: Value| claims(&json!({ "jti": value })).id().map(str::to_owned);
        assert_eq!(id(json!("a-1")).as_deref(), Some("a-1"));
        for odd in [json!(""), json!("a b"), json!("a\nb"), json!("\u{202e}"), json!(1), json!("x".repeat(129))] {
            assert_eq!(id(odd.clone()), None, "{odd}");
        }
    }

    proptest! {
        #[test]
        fn hostile_texts_do_not_panic(text in any::<String>(), header in "[{}\":a-z,A-Z0-9]{0,40}", parts in 0..5_usize) {
            prop_assert!(decode(&text).is_err());
            let part = URL_SAFE_NO_PAD.encode(header);
            prop_assert!(decode(&vec![part; parts].join(".")).is_err());
        }
    }
}
