//! Maps the attributes of CloudEvents to fields and headers of events.

/// The names of headers that hold attributes begin with this.
pub(super) const PREFIX: &str = "ce-";
/// The header that names an attribute whose value is a boolean or an integer. No attribute has a hyphen in its name,
/// so none can have this name.
pub(super) const LITERAL: &str = "ce-json-literal";
/// The only supported version.
pub(super) const SPECVERSION: &str = "1.0";
/// The extension that holds the subject in the log, when the subject is not the type.
pub(super) const SUBJECT_EXTENSION: &str = "rollbooksubject";

/// Attributes that are a field of the event, or that mean something else in JSON.
const MAPPED: [&str; 7] = ["specversion", "id", "source", "type", "time", SUBJECT_EXTENSION, "data"];
/// Attributes of the specification that are stored in a header.
const HEADER_ATTRIBUTES: [&str; 3] = ["subject", "datacontenttype", "dataschema"];

/// Whether a text is a valid name of an attribute.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// Whether an attribute is written from a field instead of a header.
pub(super) fn is_mapped(name: &str) -> bool {
    MAPPED.contains(&name)
}

/// Whether the specification defines an attribute. A header of that name without the prefix is not an attribute then.
pub(super) fn is_core(name: &str) -> bool {
    is_mapped(name) || HEADER_ATTRIBUTES.contains(&name)
}

/// Whether a value is a boolean or an integer as JSON writes it.
pub(super) fn is_literal(value: &str) -> bool {
    matches!(value, "true" | "false") || value.parse::<i32>().is_ok_and(|number| number.to_string() == value)
}

/// Whether data of this content type is JSON. Data without a content type is JSON.
pub(super) fn is_json(content_type: Option<&str>) -> bool {
    let Some(kind) = content_type.map(|kind| super::essence(kind).to_ascii_lowercase()) else { return true };
    kind.ends_with("/json") || kind.ends_with("+json")
}
