//! The central configuration: one JSON document that all services share, with its revisions.

use alloc::string::String;
use alloc::vec::Vec;
use core::cell::Cell;

use serde_json::value::RawValue;

use crate::json::Members;

/// One revision: the document after one change.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigRevision {
    /// Number of the revision, from 1; 0 stands for the empty document before the first change.
    #[prost(uint64, tag = "1")]
    pub revision: u64,
    /// Time of the change, milliseconds since 1970. The rules set the time of the log.
    #[prost(uint64, tag = "2")]
    pub millis: u64,
    /// The JSON text, byte for byte as the operator sent it.
    #[prost(bytes = "vec", tag = "3")]
    pub document: Vec<u8>,
    /// The operator's reason for the change, for people; may be empty.
    #[prost(string, tag = "4")]
    pub reason: String,
}

impl ConfigRevision {
    /// The JSON text; an empty object before the first change.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        if self.revision == 0 { b"{}" } else { &self.document }
    }
}

/// Replaces the document: the body of [`crate::command::Command::ConfigSet`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ConfigSet {
    /// The new JSON text.
    #[prost(bytes = "vec", tag = "1")]
    pub document: Vec<u8>,
    /// When set, the command applies only if this is the current revision, so that two operators do not overwrite each
    /// other's change; 0 is the revision before the first change.
    #[prost(uint64, optional, tag = "2")]
    pub if_revision: Option<u64>,
    /// The reason for the change, for people.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// Target of the right to read the document without its secrets.
pub const PUBLIC: &str = "public";
/// Target of the right to read the secrets too.
pub const SECRET: &str = "secret";
/// Name of the members that only principals with the right [`SECRET`] get, wherever they are in the document.
pub const SECRET_MEMBER: &str = "$secret";
/// Deepest level of the document that others get: what is deeper is left out.
const DEPTH_MAX: usize = 128;

/// The JSON text of a document without the members [`SECRET_MEMBER`]. A document without any stays byte for byte; else
/// spaces between members go.
#[must_use]
pub fn without_secrets(document: &[u8]) -> Vec<u8> {
    // A name may also be written with an escape.
    let may_have = |window: &[u8]| window == SECRET_MEMBER.as_bytes();
    if !document.windows(SECRET_MEMBER.len()).any(may_have) && !document.contains(&b'\\') {
        return document.to_vec();
    }
    let (mut out, whole) = (Vec::with_capacity(document.len()), Cell::new(true));
    match serde_json::from_slice::<&RawValue>(document) {
        Ok(raw) => write_public(raw, (DEPTH_MAX, &whole), &mut out),
        Err(_) => return b"{}".to_vec(),
    }
    if whole.get() { document.to_vec() } else { out }
}

/// Writes what others get. `whole` becomes false when something is left out.
fn write_public(raw: &RawValue, (depth, whole): (usize, &Cell<bool>), out: &mut Vec<u8>) {
    let text = raw.get();
    let Some(depth) = depth.checked_sub(1) else {
        whole.set(false);
        return out.extend_from_slice(b"null");
    };
    match text.as_bytes().first() {
        Some(b'{') => {
            // The document is JSON, so its parts are.
            let Members(members) = serde_json::from_str(text).unwrap_or_default();
            let is_public = |(name, _): &&(&RawValue, &RawValue)| !is_secret(name);
            whole.set(whole.get() && members.iter().all(|member| is_public(&member)));
            let public = members.iter().filter(is_public);
            write_list((b'{', b'}'), public, out, |(name, value), out| {
                out.extend_from_slice(name.get().as_bytes());
                out.push(b':');
                write_public(value, (depth, whole), out);
            });
        }
        Some(b'[') => {
            let items = serde_json::from_str::<Vec<&RawValue>>(text).unwrap_or_default();
            write_list((b'[', b']'), items.iter(), out, |item, out| write_public(item, (depth, whole), out));
        }
        _ => out.extend_from_slice(text.as_bytes()),
    }
}

/// Whether a name is [`SECRET_MEMBER`], however it is written. A name that stands for no text is another one.
fn is_secret(name: &RawValue) -> bool {
    serde_json::from_str::<String>(name.get()).is_ok_and(|name| name == SECRET_MEMBER)
}

fn write_list<T>(
    (open, close): (u8, u8),
    items: impl Iterator<Item = T>,
    out: &mut Vec<u8>,
    write: impl Fn(T, &mut Vec<u8>),
) {
    out.push(open);
    for (place, item) in items.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(item, out);
    }
    out.push(close);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn public(document: &str) -> String {
        String::from_utf8(without_secrets(document.as_bytes())).unwrap()
    }

    #[test]
    fn secrets_are_left_out_at_every_depth_and_all_else_keeps_its_bytes() {
        let document = r#"{"a":1.0,"$secret":{"x":"y"},"l":[{"$secret":1,"n":12345678901234567890}],"t":"$secret"}"#;
        assert_eq!(public(document), r#"{"a":1.0,"l":[{"n":12345678901234567890}],"t":"$secret"}"#);
        assert_eq!(public(r#"{"\u0024secret":"hidden","b":2}"#), r#"{"b":2}"#, "an escape is the same name");
        assert_eq!(public(r#"{"\ud800":1,"$secret":"hidden"}"#), r#"{"\ud800":1}"#, "a name that no text has");
        assert_eq!(public(r#"{"a\u0062" : "\n"}"#), r#"{"a\u0062" : "\n"}"#, "an escape alone changes nothing");
        for plain in ["{}", "7", r#"{"a" : [ 1 ]}"#, r#""text""#] {
            assert_eq!(public(plain), plain);
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_left_out_without_a_crash() {
        let deep = alloc::format!("{}{}{}", "[".repeat(100_000), r#"{"$secret":1}"#, "]".repeat(100_000));
        let out = public(&deep);
        assert!(out.len() < 1000 && !out.contains("secret"), "{}", out.len());
    }
}
