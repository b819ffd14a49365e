//! Event headers in JSON: an object of names, each with a string or an array of strings. Pure.

use std::borrow::Cow;
use std::fmt;

use rollbook_core::event::headers::HeaderList;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// The headers of a JSON object. Reading stops at the bounds that an event has.
#[derive(Debug, Default)]
pub struct HeadersJson(pub HeaderList);

/// A string of the JSON document.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Deserialize<'de> for HeadersJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Object;
        impl<'de> Visitor<'de> for Object {
            type Value = HeadersJson;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("headers: an object of names, each with a string or an array of strings")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut list = HeaderList::default();
                while let Some(Text(name)) = map.next_key()? {
                    map.next_value_seed(Values { list: &mut list, name: &name })?;
                }
                Ok(HeadersJson(list))
            }
        }
        deserializer.deserialize_map(Object)
    }
}

/// Reads the value or values of one name.
struct Values<'l> {
    list: &'l mut HeaderList,
    name: &'l str,
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a header: a string or an array of strings")
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<(), E> {
        self.list.push(self.name, value).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<(), A::Error> {
        while let Some(Text(value)) = values.next_element()? {
            self.list.push(self.name, &value).map_err(A::Error::custom)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Vec<(String, String)>, String> {
        let read: HeadersJson = serde_json::from_str(json).map_err(|error| error.to_string())?;
        Ok(read.0.headers().iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn a_name_has_one_value_or_many() {
        let wanted = [("a", "1"), ("a", "2"), ("a", "3"), ("B", "é\"")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(read(r#"{"a":["1","2"],"B":"\u00e9\"","c":[],"A":"3"}"#), Ok(wanted.to_vec()));
        assert_eq!(read("{}"), Ok(vec![]));
    }

    #[test]
    fn what_no_header_can_be_is_named() {
        for (json, text) in [
            ("[]", "expected headers: an object"),
            (r#"{"a":1}"#, "expected a header: a string or an array"),
            (r#"{"a":null}"#, "expected a header"),
            (r#"{"a":{"b":"c"}}"#, "expected a header"),
            (r#"{"a":["x",1]}"#, "expected a string"),
            (r#"{"a b":"x"}"#, "the name of a header is"),
            (r#"{"a":"x\ny"}"#, "the value of header a has a line break"),
        ] {
            let error = read(json).unwrap_err();
            assert!(error.contains(text), "{json}: {error}");
        }
        let many: Vec<String> = (0..65).map(|n| format!("\"h{n}\":\"v\"")).collect();
        assert!(read(&format!("{{{}}}", many.join(","))).unwrap_err().starts_with("more than 64 headers"));
        let long = format!("{{\"a\":[\"{0}\",\"{0}\"]}}", "x".repeat(5000));
        assert!(read(&long).unwrap_err().contains("longer than 8192 bytes together"));
    }
}
