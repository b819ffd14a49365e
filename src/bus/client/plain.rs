//! Binary parts of a payload for doors that carry text alone: each part becomes `{"$base64":"..."}` in the JSON.
//!
//! Payloads of Socket.IO have their binary parts beside the JSON, and placeholders in it. A payload without binary
//! parts is passed on unchanged, whatever it contains.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::call::Payload;
use crate::bus::error::Fault;

/// Largest payload with its parts inlined: a short text may name the same part many times.
const PLAIN_BYTES_MAX: usize = 16 << 20;
/// Longest text of a placeholder.
const PLACEHOLDER_BYTES_MAX: usize = 256;
/// The member that makes an object a placeholder.
const MARK: &str = "_placeholder";

/// A placeholder.
#[derive(Deserialize)]
struct Placeholder {
    #[serde(rename = "_placeholder")]
    is_one: bool,
    num: usize,
}

/// A payload as JSON text alone; `null` when there is none.
///
/// # Errors
/// A bad request when a placeholder stands for nothing, or when it all is too large.
pub fn plain(body: &Payload) -> Result<Bytes, Fault> {
    if body.json.is_empty() {
        return Ok(Bytes::from_static(b"null"));
    }
    if body.attachments.is_empty() {
        return Ok(body.json.clone());
    }
    let unfit = || Fault::bad("binary data that cannot be passed on as JSON");
    let text = std::str::from_utf8(&body.json).map_err(|_| unfit())?;
    let wanted = count(&serde_json::from_str(text).map_err(|_| unfit())?);
    let (out, found) = inline(text, &body.attachments).ok_or_else(unfit)?;
    // A placeholder in an unusual spelling was not replaced, and must not be passed on.
    if found == wanted { Ok(out.into()) } else { Err(unfit()) }
}

/// How many placeholders a value has.
fn count(value: &Value) -> usize {
    match value {
        Value::Array(members) => members.iter().map(count).sum(),
        Value::Object(members) if members.get(MARK) == Some(&Value::Bool(true)) => 1,
        Value::Object(members) => members.values().map(count).sum(),
        _ => 0,
    }
}

/// An object whose end is not read yet.
struct Open {
    /// Where it begins in the text.
    start: usize,
    /// Where it begins in the output.
    out: usize,
    /// Whether it has the member [`MARK`].
    marked: bool,
}

/// The text with parts in place of placeholders, and how many were replaced.
fn inline(text: &str, parts: &[Bytes]) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::with_capacity(text.len());
    let (mut open, mut found): (Vec<Open>, usize) = (Vec::new(), 0);
    let mut string: Option<usize> = None;
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        out.push(byte);
        if let Some(start) = string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    string = None;
                    if text.get(start..at) == Some(MARK)
                        && let Some(object) = open.last_mut()
                    {
                        object.marked = true;
                    }
                }
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => string = Some(at.saturating_add(1)),
            b'{' => open.push(Open { start: at, out: out.len().saturating_sub(1), marked: false }),
            b'}' => {
                let object = open.pop()?;
                let Some(number) = placeholder(text.get(object.start..=at)?, object.marked) else { continue };
                out.truncate(object.out);
                write(parts.get(number)?, &mut out)?;
                found = found.saturating_add(1);
            }
            _ => {}
        }
    }
    Some((out, found))
}

/// The number of the part that an object stands for.
fn placeholder(object: &str, marked: bool) -> Option<usize> {
    if !marked || object.len() > PLACEHOLDER_BYTES_MAX {
        return None;
    }
    serde_json::from_str::<Placeholder>(object).ok().filter(|read| read.is_one).map(|read| read.num)
}

/// Appends a part; `None` when the output would be too large.
fn write(part: &[u8], out: &mut Vec<u8>) -> Option<()> {
    let length = part.len().div_ceil(3).saturating_mul(4);
    if out.len().saturating_add(length) > PLAIN_BYTES_MAX {
        return None;
    }
    out.extend_from_slice(b"{\"$base64\":\"");
    out.extend_from_slice(BASE64.encode(part).as_bytes());
    out.extend_from_slice(b"\"}");
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::fault::FaultKind;

    fn body(json: &str, parts: &[&'static [u8]]) -> Payload {
        let attachments = parts.iter().map(|part| Bytes::from_static(part)).collect();
        Payload { attachments, ..Payload::json(json.to_owned()) }
    }

    fn text(json: &str, parts: &[&'static [u8]]) -> Result<String, Fault> {
        plain(&body(json, parts)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn bytes_stand_where_their_placeholders_were_and_the_rest_is_as_it_came() {
        let json = "{\"n\": 12345678901234567890, \"a\":[{\"_placeholder\":true,\"num\":1}, \"{\\\"_placeholder\\\":true}\"],\
                    \"b\" : { \"num\" : 0 , \"_placeholder\" : true } ,\"c\":{\"_placeholder\":false,\"num\":9},\"a\":2}";
        let plain = "{\"n\": 12345678901234567890, \"a\":[{\"$base64\":\"/wA=\"}, \"{\\\"_placeholder\\\":true}\"],\
                     \"b\" : {\"$base64\":\"AQID\"} ,\"c\":{\"_placeholder\":false,\"num\":9},\"a\":2}";
        // The first of two members of one name is not seen by those who count; so it is not passed on.
        assert!(text(json, &[&[1, 2, 3], &[255, 0]]).is_err());
        let (json, plain) = (json.replace(",\"a\":2", ""), plain.replace(",\"a\":2", ""));
        assert_eq!(text(&json, &[&[1, 2, 3], &[255, 0]]), Ok(plain));
        assert_eq!(text("{\"_placeholder\":true,\"num\":0}", &[b""]), Ok("{\"$base64\":\"\"}".to_owned()));
    }

    #[test]
    fn without_bytes_nothing_is_looked_at() {
        for json in ["{\"_placeholder\":true,\"num\":0}", "[1,  2]", "1e400"] {
            assert_eq!(text(json, &[]), Ok(json.to_owned()));
        }
        assert_eq!(text("", &[]), Ok("null".to_owned()));
        assert_eq!(text("", &[b"x"]), Ok("null".to_owned()));
    }

    #[test]
    fn a_placeholder_for_nothing_or_in_disguise_is_never_passed_on() {
        let long = format!("{{\"_placeholder\":true,\"num\":0,\"x\":\"{}\"}}", "y".repeat(300));
        let cases = [
            "{\"_placeholder\":true,\"num\":1}",
            "{\"_placeholder\":true,\"num\":-1}",
            "{\"_placeholder\":true}",
            "{\"\\u005fplaceholder\":true,\"num\":0}",
            &long,
            "{\"_placeholder\":true,",
        ];
        for json in cases {
            assert!(matches!(text(json, &[b"x"]), Err(fault) if fault.kind == FaultKind::BadRequest), "{json}");
        }
    }

    #[test]
    fn the_same_bytes_many_times_are_not_passed_on() {
        let part: &'static [u8] = Box::leak(vec![0_u8; 1 << 20].into_boxed_slice());
        let one = "{\"_placeholder\":true,\"num\":0}";
        assert!(text(&format!("[{}]", [one; 11].join(",")), &[part]).is_ok());
        assert!(text(&format!("[{}]", [one; 12].join(",")), &[part]).is_err());
    }
}
