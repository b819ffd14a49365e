//! Which attribute of a CloudEvent is what of an event of the log.

/// What names of headers begin with that are attributes.
pub(super) const PREFIX: &str = "ce-";
/// The header that names an attribute whose value is a boolean or an integer: the hyphen keeps it apart from attributes.
pub(super) const LITERAL: &str = "ce-json-literal";
/// The only version that is understood.
pub(super) const SPECVERSION: &str = "1.0";
/// The extension that says the subject in the log, where that is not the type.
pub(super) const SUBJECT_EXTENSION: &str = "rollbooksubject";

/// Attributes that have a place of their own in an event, or mean something else in JSON.
const PLACED: [&str; 7] = ["specversion", "id", "source", "type", "time", SUBJECT_EXTENSION, "data"];
/// Attributes of the specification that are kept in a header.
const KEPT: [&str; 3] = ["subject", "datacontenttype", "dataschema"];

/// Whether a text can be the name of an attribute.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Whether an attribute is written from somewhere else than its header.
pub(super) fn is_placed(name: &str) -> bool {
    PLACED.contains(&name)
}

/// Whether the specification says what an attribute means, so that a header of that name alone is not meant.
pub(super) fn is_core(name: &str) -> bool {
    is_placed(name) || KEPT.contains(&name)
}

/// Whether a value is a boolean or an integer as JSON writes it.
pub(super) fn is_literal(value: &str) -> bool {
    matches!(value, "true" | "false") || value.parse::<i32>().is_ok_and(|number| number.to_string() == value)
}

/// Whether data of this content type is JSON; without one it is.
pub(super) fn is_json(content_type: Option<&str>) -> bool {
    let Some(kind) = content_type.map(|kind| super::essence(kind).to_ascii_lowercase()) else { return true };
    kind.ends_with("/json") || kind.ends_with("+json")
}
