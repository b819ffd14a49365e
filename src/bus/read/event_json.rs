//! The JSON form of an event, the same in every answer of the node.

use rollbook_core::event::Event;
use rollbook_core::event::headers::Headers;

use super::redelivery::Redelivery;

/// Appends the event as compact JSON: `id, trace_id, key, subject, response_subject, created_at,
/// headers, payload, index`, empty ones left out, the payload byte for byte as it was published.
pub fn write(index: i64, event: &Event<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"id\":\"");
    event.write_id(u64::try_from(index).unwrap_or(0), out);
    out.push(b'"');
    field(out, b",\"trace_id\":", event.trace_id);
    field(out, b",\"key\":", event.key);
    field(out, b",\"subject\":", event.subject);
    field(out, b",\"response_subject\":", event.response_subject);
    out.extend_from_slice(b",\"created_at\":\"");
    event.created_at.write(out);
    out.push(b'"');
    if !event.headers.is_empty() {
        out.extend_from_slice(b",\"headers\":");
        headers(event.headers, out);
    }
    if let Some(payload) = event.payload {
        out.extend_from_slice(b",\"payload\":");
        out.extend_from_slice(payload);
    }
    out.extend_from_slice(b",\"index\":");
    decimal(index, out);
    out.push(b'}');
}

/// Appends the event as [`write()`] does, with a member `delivery` when this is not its first delivery.
pub fn write_delivery(index: i64, event: &Event<'_>, again: Option<&Redelivery>, out: &mut Vec<u8>) {
    write(index, event, out);
    if let Some(again) = again
        && out.pop().is_some()
    {
        out.extend_from_slice(b",\"delivery\":");
        again.write(out);
        out.push(b'}');
    }
}

/// Appends headers as an object: of each name its value, or an array when there are many.
fn headers(headers: Headers<'_>, out: &mut Vec<u8>) {
    let mut rest = headers.iter().peekable();
    let mut before = b'{';
    while let Some((name, first)) = rest.next() {
        out.push(std::mem::replace(&mut before, b','));
        string(name, out);
        out.push(b':');
        let is_same = |(next, _): &(&str, &str)| next.eq_ignore_ascii_case(name);
        if !rest.peek().is_some_and(is_same) {
            string(first, out);
            continue;
        }
        out.push(b'[');
        string(first, out);
        while let Some((_, value)) = rest.next_if(is_same) {
            out.push(b',');
            string(value, out);
        }
        out.push(b']');
    }
    out.push(b'}');
}

/// Appends a member, unless its text is empty.
fn field(out: &mut Vec<u8>, name: &[u8], text: &str) {
    if !text.is_empty() {
        out.extend_from_slice(name);
        string(text, out);
    }
}

/// Appends a JSON string.
pub fn string(text: &str, out: &mut Vec<u8>) {
    let plain = |byte: u8| byte >= 0x20 && byte != b'"' && byte != b'\\';
    if text.bytes().all(plain) {
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
    } else if serde_json::to_writer(&mut *out, text).is_err() {
        // Writing a string into memory cannot fail; an empty one keeps the JSON valid.
        out.extend_from_slice(b"\"\"");
    }
}

/// Appends a number.
fn decimal(value: i64, out: &mut Vec<u8>) {
    let mut text = [0; 20];
    let mut rest = value.unsigned_abs();
    let mut used = 0;
    for slot in text.iter_mut().rev() {
        *slot = b'0'.wrapping_add(u8::try_from(rest % 10).unwrap_or(0));
        used += 1;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(text.get(text.len() - used..).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use rollbook_core::event::headers::HeaderList;
    use rollbook_core::time::Timestamp;

    use super::*;
    use crate::bus::read::redelivery::Reason;

    fn text(index: i64, event: &Event<'_>) -> String {
        let mut out = Vec::new();
        write(index, event, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn empty_fields_are_left_out_and_the_payload_is_kept_byte_for_byte() {
        let event = Event { subject: "a.b", payload: Some(b"{ \"n\":1e400 }"), ..Event::default() };
        let id = "e_00000000000000000050";
        assert_eq!(
            text(10, &event),
            format!(
                "{{\"id\":\"{id}\",\"subject\":\"a.b\",\"created_at\":\"1970-01-01T00:00:00Z\",\"payload\":{{ \"n\":1e400 }},\"index\":10}}"
            )
        );
    }

    #[test]
    fn headers_stand_before_the_payload_one_value_as_text_and_many_as_an_array() {
        let mut headers = HeaderList::default();
        for (name, value) in [("a", "1"), ("B", "say \"x\""), ("A", "2"), ("c", "")] {
            headers.push(name, value).unwrap();
        }
        let event =
            Event { subject: "a.b", id: "x", headers: headers.headers(), payload: Some(b"7"), ..Event::default() };
        let json = text(1, &event);
        let wanted = r#","headers":{"a":["1","2"],"B":"say \"x\"","c":""},"payload":7,"index":1}"#;
        assert!(json.ends_with(wanted), "{json}");
    }

    #[test]
    fn a_delivery_that_is_not_the_first_says_which_it_is_and_why() {
        let event = Event { subject: "a.b", id: "x", ..Event::default() };
        let known = Redelivery { count: 3, first_at: Some(Timestamp::from_millis(1500)), reason: Some(Reason::Nack) };
        for (again, wanted) in [
            (None, r#""index":1}"#),
            (Some(known), r#""index":1,"delivery":{"count":3,"first_at":"1970-01-01T00:00:01.5Z","reason":"nack"}}"#),
            (Some(Redelivery { first_at: None, reason: None, ..known }), r#""index":1,"delivery":{"count":3}}"#),
        ] {
            let mut out = Vec::new();
            write_delivery(1, &event, again.as_ref(), &mut out);
            let json = String::from_utf8(out).unwrap();
            assert!(json.ends_with(wanted), "{json}");
        }
    }

    #[test]
    fn quotes_and_control_characters_of_fields_are_escaped() {
        let event = Event { subject: "a.b", id: "x", key: "w\"k\\\n", trace_id: "\t", ..Event::default() };
        let value: serde_json::Value = serde_json::from_str(&text(-1, &event)).unwrap();
        assert_eq!((&value["key"], &value["trace_id"]), (&"w\"k\\\n".into(), &"\t".into()));
        assert_eq!((&value["index"], &value["id"]), (&(-1).into(), &"x".into()));
    }
}
