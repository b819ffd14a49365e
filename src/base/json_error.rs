//! Explanations of errors in JSON documents, the same at all doors: `NAME: what`, with the name of the member. Pure.

use std::borrow::Cow;

use serde_json::Error;

use super::json;

/// What is wrong with `json`, for its author: `event: expected a string, not integer 5`. A syntax error has line and
/// column instead of a name.
#[must_use]
pub fn explain(json: &str, error: &Error) -> String {
    let text = error.to_string();
    if !error.is_data() {
        return text;
    }
    // The place is that of serde; a name is easier to find.
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    if let Some(name) = text.strip_prefix("missing field ") {
        return format!("{}: missing", name.trim_matches('`'));
    }
    if let Some((name, known)) = text.strip_prefix("unknown field ").and_then(|rest| rest.split_once(", expected ")) {
        return format!(
            "{}: no member of that name; known are {}",
            name.trim_matches('`'),
            known.trim_start_matches("one of ")
        );
    }
    if let Some(name) = text.strip_prefix("duplicate field ") {
        return format!("{}: is there twice", name.trim_matches('`'));
    }
    let text = plain(text);
    match member(json, error) {
        Some(name) => format!("{name}: {text}"),
        None => text,
    }
}

/// The words of serde in the other order: what would be right comes first.
fn plain(text: &str) -> String {
    let rest = text.strip_prefix("invalid type: ").or_else(|| text.strip_prefix("invalid value: "));
    match rest.and_then(|rest| rest.rsplit_once(", expected ")) {
        Some((found, expected)) => format!("expected {}, not {}", kind(expected), kind(&found.replace('`', ""))),
        None => text.to_owned(),
    }
}

/// A kind of value as JSON calls it.
fn kind(serde: &str) -> &str {
    match serde {
        "a map" => "an object",
        "map" => "object",
        "a sequence" => "a list",
        "sequence" => "list",
        "unit value" => "null",
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0",
        _ if serde.starts_with("struct ") => "an object",
        _ => serde,
    }
}

/// The name of the member that has the error.
fn member<'j>(json: &'j str, error: &Error) -> Option<Cow<'j, str>> {
    let before: usize = json.split_inclusive('\n').take(error.line().checked_sub(1)?).map(str::len).sum();
    let at = before.checked_add(error.column())?;
    let start = json.as_ptr().addr();
    let is_there = |value: &str| {
        let from = value.as_ptr().addr().checked_sub(start)?;
        let to = from.checked_add(value.len())?;
        // Some errors are told of behind the value, at the end of the object.
        let behind = || json.get(to..at).is_some_and(|between| matches!(between.trim(), "" | "}"));
        Some(from <= at && (at <= to || behind()))
    };
    let members = json::members(json)?;
    members.into_iter().find(|(_, value)| is_there(value.get()).unwrap_or(false)).map(|(name, _)| name)
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::super::json::Whole;
    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read")]
    struct Read {
        name: String,
        count: Option<Whole>,
        list: Option<Vec<String>>,
        port: Option<Port>,
        within: Option<Within>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "only read")]
    struct Within {
        most: u64,
    }

    #[derive(Debug, Deserialize)]
    #[serde(untagged, expecting = "a port is a number or digits")]
    #[expect(dead_code, reason = "only read")]
    enum Port {
        Number(u16),
        Digits(String),
    }

    #[test]
    fn an_error_names_the_member_and_what_would_be_right() {
        for (json, text) in [
            ("{}", "name: missing"),
            ("{\"name\":5}", "name: expected a string, not integer 5"),
            ("{\"name\":null}", "name: expected a string, not null"),
            ("{\n \"count\": 1,\n \"name\" : [1] }", "name: expected a string, not list"),
            (
                "{\"name\":\"x\",\"count\":\"many\",\"list\":[]}",
                "count: expected a whole number from 0, not string \"many\"",
            ),
            ("{\"name\":\"x\",\"count\":-1}", "count: expected a whole number from 0, not integer -1"),
            ("{\"name\":\"x\",\"list\":[\"a\",7]}", "list: expected a string, not integer 7"),
            (
                "{\"name\":\"x\",\"within\":{\"most\":\"7\"}}",
                "within: expected a whole number from 0, not string \"7\"",
            ),
            ("{\"name\":\"x\",\"within\":7}", "within: expected an object, not integer 7"),
            ("{\"name\":\"x\",\"port\":{}}", "port: a port is a number or digits"),
            (
                "{\"name\":\"x\",\"prot\":1}",
                "prot: no member of that name; known are `name`, `count`, `list`, `port`, `within`",
            ),
            ("{\"name\":\"x\",\"name\":\"y\"}", "name: is there twice"),
            ("{\"name\":\"x\",}", "trailing comma at line 1 column 13"),
        ] {
            assert_eq!(explain(json, &serde_json::from_str::<Read>(json).unwrap_err()), text, "{json}");
        }
    }
}
