//! JSON merge patches (RFC 7396) and differences (RFC 6902). Both work on the text of the documents, so that numbers
//! and strings stay as they were written.

use std::collections::HashMap;

use rollbook_core::json::Members as Written;
use serde::Serialize;
use serde::de::Error as _;
use serde_json::value::RawValue;

use crate::base::json;

/// The name of a member.
#[derive(Debug)]
struct Name<'a> {
    /// The decoded name. Two names may be equal and be written differently.
    text: String,
    written: &'a RawValue,
}

/// The members of an object in their order. The last member of a name counts.
#[derive(Debug, Default)]
struct Members<'a> {
    members: Vec<(Name<'a>, &'a RawValue)>,
    places: HashMap<String, usize>,
}

impl<'a> Members<'a> {
    /// The members of an object. Other values have none.
    fn of(value: &'a RawValue) -> serde_json::Result<Self> {
        let mut members = Self::default();
        if is_object(value) {
            let Written(written) = serde_json::from_str(value.get())?;
            for (name, value) in written {
                let text = json::text(name.get()).ok_or_else(|| serde_json::Error::custom("a name is no text"))?;
                members.insert(Name { text: text.into_owned(), written: name }, value);
            }
        }
        Ok(members)
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(*self.places.get(name)?).map(|(_, value)| *value)
    }

    fn insert(&mut self, name: Name<'a>, value: &'a RawValue) {
        let place = self.places.get(&name.text).and_then(|place| self.members.get_mut(*place));
        if let Some((_, present)) = place {
            *present = value;
        } else {
            self.places.insert(name.text.clone(), self.members.len());
            self.members.push((name, value));
        }
    }
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

/// Applies a merge patch to a document. Both must be no deeper than a body may be.
///
/// # Errors
/// One of them is not JSON.
pub(super) fn merge(target: &RawValue, patch: &RawValue) -> serde_json::Result<Box<RawValue>> {
    if !is_object(patch) {
        return Ok(patch.to_owned());
    }
    let (target, patch) = (Members::of(target)?, Members::of(patch)?);
    let mut merged: Vec<(&RawValue, Box<RawValue>)> = Vec::new();
    for (Name { text, written }, present) in &target.members {
        match patch.get(text) {
            None => merged.push((written, (*present).to_owned())),
            Some(change) if change.get() == "null" => {}
            Some(change) => merged.push((written, merge(present, change)?)),
        }
    }
    let is_new = |name: &Name<'_>, change: &RawValue| target.get(&name.text).is_none() && change.get() != "null";
    for (name, change) in patch.members.iter().filter(|(name, change)| is_new(name, change)) {
        merged.push((name.written, merge(RawValue::NULL, change)?));
    }
    object(&merged)
}

fn object(members: &[(&RawValue, Box<RawValue>)]) -> serde_json::Result<Box<RawValue>> {
    let mut text = String::from("{");
    for (at, (name, value)) in members.iter().enumerate() {
        if at > 0 {
            text.push(',');
        }
        text.push_str(name.get());
        text.push(':');
        text.push_str(value.get());
    }
    text.push('}');
    RawValue::from_string(text)
}

/// One step of a difference.
#[derive(Debug, Serialize)]
pub(super) struct Step<'a> {
    op: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a RawValue>,
}

/// The steps from one document to another. A number that is written differently counts as changed.
///
/// # Errors
/// One of them is not JSON.
pub(super) fn diff<'a>(from: &'a RawValue, to: &'a RawValue) -> serde_json::Result<Vec<Step<'a>>> {
    let mut steps = Vec::new();
    compare(from, to, "", &mut steps)?;
    Ok(steps)
}

fn compare<'a>(from: &'a RawValue, to: &'a RawValue, path: &str, steps: &mut Vec<Step<'a>>) -> serde_json::Result<()> {
    if from.get() == to.get() {
        return Ok(());
    }
    if is_object(from) && is_object(to) {
        let (before, after) = (Members::of(from)?, Members::of(to)?);
        for (Name { text, .. }, present) in &before.members {
            let path = format!("{path}/{}", escape(text));
            match after.get(text) {
                None => steps.push(Step { op: "remove", path, value: None }),
                Some(value) => compare(present, value, &path, steps)?,
            }
        }
        for (Name { text, .. }, value) in after.members.iter().filter(|(name, _)| before.get(&name.text).is_none()) {
            steps.push(Step { op: "add", path: format!("{path}/{}", escape(text)), value: Some(value) });
        }
        return Ok(());
    }
    if from.get().starts_with('[') && to.get().starts_with('[') {
        let before: Vec<&RawValue> = serde_json::from_str(from.get())?;
        let after: Vec<&RawValue> = serde_json::from_str(to.get())?;
        for (at, (present, value)) in before.iter().zip(&after).enumerate() {
            compare(present, value, &format!("{path}/{at}"), steps)?;
        }
        // The removals begin at the end, so that the earlier indexes stay valid.
        for at in (after.len()..before.len()).rev() {
            steps.push(Step { op: "remove", path: format!("{path}/{at}"), value: None });
        }
        for (at, value) in after.iter().enumerate().skip(before.len()) {
            steps.push(Step { op: "add", path: format!("{path}/{at}"), value: Some(value) });
        }
        return Ok(());
    }
    if is_same_text(from, to) {
        return Ok(());
    }
    steps.push(Step { op: "replace", path: path.to_owned(), value: Some(to) });
    Ok(())
}

/// Whether both are the same string, perhaps written differently.
fn is_same_text(one: &RawValue, other: &RawValue) -> bool {
    let text = |value: &RawValue| serde_json::from_str::<String>(value.get()).ok();
    text(one).is_some_and(|one| text(other).is_some_and(|other| one == other))
}

/// A name as a part of a JSON pointer (RFC 6901).
fn escape(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(text: &str) -> &RawValue {
        serde_json::from_str(text).unwrap()
    }

    fn merged(target: &str, patch: &str) -> String {
        merge(raw(target), raw(patch)).unwrap().get().to_owned()
    }

    #[test]
    fn the_examples_of_the_specification() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, r"{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merged(target, patch), result, "{target} {patch}");
        }
    }

    #[test]
    fn numbers_and_strings_stay_as_they_were_written() {
        let target = r#"{"big":12345678901234567890123,"exact":1.50,"far":-0.0,"name":"\u00fc\/"}"#;
        let result = merged(target, r#"{"more":1E+2,"deep":{"n":0.10000000000000000000001}}"#);
        let more = r#","more":1E+2,"deep":{"n":0.10000000000000000000001}}"#;
        assert_eq!(result, format!("{}{more}", target.strip_suffix('}').unwrap()));
    }

    #[test]
    fn the_last_of_a_name_counts_and_names_are_compared_as_text() {
        assert_eq!(merged(r#"{"a":1,"a":2}"#, r#"{"\u0061":3,"b":null,"b":4}"#), r#"{"a":3,"b":4}"#);
    }

    #[test]
    fn many_members_are_merged_in_one_pass() {
        let members = |from: usize| (from..from + 20_000).map(|n| format!("\"{n}\":{n}")).collect::<Vec<_>>().join(",");
        let began = std::time::Instant::now();
        let result = merged(&format!("{{{}}}", members(0)), &format!("{{{}}}", members(10_000)));
        assert_eq!(
            result,
            format!(
                "{{{},{}}}",
                members(0),
                (20_000..30_000).map(|n| format!("\"{n}\":{n}")).collect::<Vec<_>>().join(",")
            )
        );
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }

    fn steps(from: &str, to: &str) -> String {
        serde_json::to_string(&diff(raw(from), raw(to)).unwrap()).unwrap()
    }

    #[test]
    fn the_steps_lead_from_one_document_to_the_other() {
        for (from, to) in [
            (r#"{"a":1,"b":{"c":[1,2,3]}}"#, r#"{"b":{"c":[1,4]},"d/~":"x"}"#),
            (r#"{"a":[]}"#, r#"{"a":[1,{"b":2}]}"#),
            (r#"{"a":[{"b":1}]}"#, r#"{"a":{"b":1}}"#),
            ("{}", "{}"),
        ] {
            let patch: json_patch::Patch = serde_json::from_str(&steps(from, to)).unwrap();
            let mut document: serde_json::Value = serde_json::from_str(from).unwrap();
            json_patch::patch(&mut document, &patch).unwrap();
            assert_eq!(document, serde_json::from_str::<serde_json::Value>(to).unwrap(), "{from}");
        }
    }

    #[test]
    fn numbers_beyond_a_machine_are_told_apart() {
        let (from, to) = (r#"{"n":12345678901234567890123}"#, r#"{"n":12345678901234567890124}"#);
        assert_eq!(steps(from, to), r#"[{"op":"replace","path":"/n","value":12345678901234567890124}]"#);
        assert_eq!(steps(r#"{"a":"\u0061"}"#, r#"{ "a": "a" }"#), "[]");
    }
}
