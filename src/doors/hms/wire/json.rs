//! JSON of a peer, within limits: of bytes, because a parsed value takes many times its text, and of depth.

use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Deepest nesting that is taken, as in serde_json. Text that is passed on unparsed is held to the same limit, so
/// whoever parses that text later can.
const DEPTH_MAX: usize = 127;

/// Parses a whole text. Invalid UTF-8 is replaced, as the original does; `None` if the text is no JSON.
pub(super) fn parse(text: &[u8]) -> Option<Value> {
    serde_json::from_str(&String::from_utf8_lossy(text)).ok()
}

/// Checks that a whole text is JSON, and keeps the text. Takes no more memory than the text.
pub(super) fn check(text: &[u8]) -> Option<Box<RawValue>> {
    let raw = RawValue::from_string(String::from_utf8_lossy(text).into_owned()).ok()?;
    (depth(raw.get()) <= DEPTH_MAX).then_some(raw)
}

/// The text of a value of ours: texts, numbers, and maps with text keys, which always have one.
pub(super) fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    serde_json::to_vec(value).map_or_else(|_| Bytes::from_static(b"null"), Bytes::from)
}

/// How deep the arrays and objects of a valid JSON text nest.
fn depth(json: &str) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if quoted => {}
            b'[' | b'{' => {
                depth = depth.saturating_add(1);
                deepest = deepest.max(depth);
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(depth: usize) -> Vec<u8> {
        ["[".repeat(depth), "]".repeat(depth)].concat().into_bytes()
    }

    #[test]
    fn what_is_kept_as_text_nests_no_deeper_than_what_is_parsed() {
        for depth in [1, 127, 128, 100_000] {
            assert_eq!(check(&nested(depth)).is_some(), depth < 128, "{depth}");
            assert_eq!(parse(&nested(depth)).is_some(), depth < 128, "{depth}");
        }
    }

    #[test]
    fn brackets_in_strings_do_not_nest() {
        let text = format!(r#"{{"a\"\\{}":["\\","{}"]}}"#, "[".repeat(300), "{".repeat(300));
        assert_eq!(depth(&text), 2);
        assert!(check(text.as_bytes()).is_some());
    }

    #[test]
    fn only_a_whole_text_is_json() {
        for text in ["", " ", "{", "1 2", "nope", "'a'", "\u{feff}1"] {
            assert!(parse(text.as_bytes()).is_none() && check(text.as_bytes()).is_none(), "{text}");
        }
        assert_eq!(parse(b" \"\xff\" "), Some(Value::from("\u{fffd}")));
    }
}
