//! Payloads of NATS, which are any bytes, as the JSON that services of other doors speak, and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;

/// Bytes that are no text, as doors that carry JSON alone write them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Base64 {
    #[serde(rename = "$base64")]
    text: String,
}

/// How such an object begins.
const BASE64_OBJECT: &[u8] = b"{\"$base64\"";

/// A payload as JSON: text that is no JSON is a string, other bytes are `{"$base64":"..."}`, and nothing is `null`.
pub(in crate::doors::nats) fn to_json(payload: &Bytes) -> Bytes {
    if payload.is_empty() {
        return Bytes::from_static(b"null");
    }
    let json = match std::str::from_utf8(payload) {
        Ok(text) if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() => {
            return Bytes::copy_from_slice(payload);
        }
        Ok(text) => json!(text),
        Err(_) => json!({ "$base64": BASE64.encode(payload) }),
    };
    json.to_string().into()
}

/// JSON as the payload of a request: `null` is nothing, `{"$base64":"..."}` are the bytes, and the rest stays as it is.
pub(super) fn from_json(json: Bytes) -> Bytes {
    if &*json == b"null" {
        return Bytes::new();
    }
    if json.starts_with(BASE64_OBJECT)
        && let Ok(Base64 { text }) = serde_json::from_slice(&json)
        && let Ok(bytes) = BASE64.decode(text)
    {
        return bytes.into();
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_of_any_bytes_become_json() {
        let text = |bytes: &'static [u8]| String::from_utf8(to_json(&Bytes::from_static(bytes)).to_vec()).unwrap();
        assert_eq!(text(b"{\"a\":1}"), "{\"a\":1}");
        assert_eq!(text(b"hello"), "\"hello\"");
        assert_eq!(text(b""), "null");
        assert_eq!(text(&[0xff]), "{\"$base64\":\"/w==\"}");
    }

    #[test]
    fn a_request_is_its_json_but_for_nothing_and_bytes() {
        let bytes = |json: &'static str| from_json(Bytes::from_static(json.as_bytes())).to_vec();
        assert_eq!(bytes("null"), b"");
        assert_eq!(bytes("{\"$base64\":\"/w==\"}"), [0xff]);
        for same in
            ["{\"a\": 1}", "\"hello\"", "{\"$base64\":\"?\"}", "{\"$base64\":\"/w==\",\"b\":1}", "{\"$base64\":1}"]
        {
            assert_eq!(bytes(same), same.as_bytes());
        }
    }
}
