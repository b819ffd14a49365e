//! JSON Schemas of types of events, compiled, and items of envelopes held against them.
//!
//! Nothing is fetched: a `$ref` leads to a place of the same schema, or to a draft of JSON Schema itself. Patterns are
//! those of the crate `regex`, whose time is linear, so that no item holds a node up.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use jsonschema::{PatternOptions, Retrieve, Uri, Validator};
use rollbook_core::xbus::log;
use rollbook_core::xbus::schema::{SchemaMode, SchemaRow};
use serde_json::Value;

use crate::bus::xbus::client::XbusClient;

/// Most schemas that are kept compiled. From one more on all are compiled again as they are needed.
const COMPILED_MAX: usize = 256;
/// Most bytes that one pattern takes when it is compiled.
const PATTERN_BYTES_MAX: usize = 1 << 20;
/// Most items of a fragment that a log entry names.
const FAULTS_MAX: usize = 8;

/// Refuses to fetch anything.
struct Nowhere;

impl Retrieve for Nowhere {
    fn retrieve(&self, uri: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err(format!("{uri} is outside of the schema, and nothing is fetched").into())
    }
}

/// Compiles the text of a schema.
///
/// # Errors
/// The text is no JSON or no JSON Schema, or refers to something outside of it; the text for people.
pub fn compile(schema: &str) -> Result<Validator, String> {
    let schema: Value = serde_json::from_str(schema).map_err(|error| format!("the schema is not JSON: {error}"))?;
    let patterns = PatternOptions::regex().size_limit(PATTERN_BYTES_MAX).dfa_size_limit(PATTERN_BYTES_MAX);
    let options = jsonschema::options().with_retriever(Nowhere).with_pattern_options(patterns);
    options.build(&schema).map_err(|error| {
        let place = error.instance_path().to_string();
        format!("the schema is not one, at {}: {}", named(&place), cut(error.masked().to_string()))
    })
}

/// A JSON pointer as people read it.
fn named(place: &str) -> &str {
    if place.is_empty() { "/" } else { place }
}

fn cut(mut text: String) -> String {
    log::cut(&mut text);
    text
}

/// A schema and what it was compiled from.
struct Compiled {
    row: Arc<SchemaRow>,
    validator: Result<Validator, String>,
}

impl Compiled {
    /// What is wrong with an item.
    fn fault(&self, item: &[u8]) -> Option<String> {
        let validator = match &self.validator {
            Ok(validator) => validator,
            Err(reason) => return Some(reason.clone()),
        };
        let document: Value = match serde_json::from_slice(item) {
            Ok(document) => document,
            Err(error) => return Some(format!("the item is not JSON: {error}")),
        };
        let error = validator.validate(&document).err()?;
        // The values of an item are not for logs.
        Some(format!("at {}: {}", named(&error.instance_path().to_string()), error.masked()))
    }
}

/// What is wrong with the items of a fragment.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Why the fragment is not taken; `None`: it is.
    pub refused: Option<String>,
    /// What is wrong with items that are taken nevertheless: the first ones.
    pub warnings: Vec<String>,
}

/// The compiled schemas of a node.
#[derive(Default)]
pub struct Schemas {
    compiled: Mutex<HashMap<String, Arc<Compiled>>>,
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schemas").finish_non_exhaustive()
    }
}

impl Schemas {
    /// Holds the items of a fragment against the schemas of their types: each event by its type and its items, one
    /// document each. Runs at once, because fragments have to keep their order.
    pub fn check<'e>(
        &self,
        client: &XbusClient,
        events: impl IntoIterator<Item = (&'e str, &'e [Vec<u8>])>,
    ) -> Verdict {
        let with_row = |(event_type, items)| {
            let row = client.look(|xbus| xbus.schema(event_type).cloned());
            row.filter(|row| row.mode() != SchemaMode::Off).map(|row| (row, items))
        };
        self.judge(events.into_iter().filter_map(with_row))
    }

    fn judge<'e>(&self, events: impl Iterator<Item = (Arc<SchemaRow>, &'e [Vec<u8>])>) -> Verdict {
        let mut verdict = Verdict::default();
        for (row, items) in events {
            let compiled = self.compiled(&row);
            let faults = (1_usize..).zip(items).filter_map(|(number, item)| Some((number, compiled.fault(item)?)));
            for (number, fault) in faults {
                let text = format!("event type {}, item {number}, {fault}", row.event_type);
                let text = cut(text);
                if row.mode() == SchemaMode::Enforce {
                    return Verdict { refused: Some(text), warnings: Vec::new() };
                }
                if verdict.warnings.len() >= FAULTS_MAX {
                    break;
                }
                verdict.warnings.push(text);
            }
        }
        verdict
    }

    fn compiled(&self, row: &Arc<SchemaRow>) -> Arc<Compiled> {
        let mut all = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(&row.event_type).filter(|known| known.row == *row) {
            return Arc::clone(known);
        }
        let validator = compile(&row.schema);
        if let Err(reason) = &validator {
            tracing::error!(event_type = row.event_type, reason, "a schema cannot be compiled; its items have faults");
        }
        let compiled = Arc::new(Compiled { row: Arc::clone(row), validator });
        if all.len() >= COMPILED_MAX {
            all.clear();
        }
        all.insert(row.event_type.clone(), Arc::clone(&compiled));
        compiled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(mode: SchemaMode, schema: &str, revision: u64) -> Arc<SchemaRow> {
        let mut row = SchemaRow { event_type: "order".into(), schema: schema.into(), revision, ..SchemaRow::default() };
        row.set_mode(mode);
        Arc::new(row)
    }

    fn judge(schemas: &Schemas, row: &Arc<SchemaRow>, items: &[&str]) -> Verdict {
        let items: Vec<Vec<u8>> = items.iter().map(|item| item.as_bytes().to_vec()).collect();
        schemas.judge([(Arc::clone(row), items.as_slice())].into_iter())
    }

    const ORDER: &str = r##"{
        "type": "object", "required": ["lines"],
        "properties": { "lines": { "type": "array", "items": { "$ref": "#/$defs/line" } } },
        "$defs": { "line": { "type": "object", "properties": { "count": { "type": "integer", "minimum": 1 } } } }
    }"##;

    #[test]
    fn an_item_that_breaks_the_schema_is_refused_with_type_number_and_path() {
        let (schemas, row) = (Schemas::default(), row(SchemaMode::Enforce, ORDER, 1));
        assert_eq!(judge(&schemas, &row, &[r#"{"lines":[{"count":2}]}"#]), Verdict::default());
        let verdict = judge(&schemas, &row, &[r#"{"lines":[]}"#, r#"{"lines":[{"count":1},{"count":"secret"}]}"#]);
        let reason = verdict.refused.unwrap();
        assert!(reason.starts_with("event type order, item 2, at /lines/1/count: "), "{reason}");
        assert!(!reason.contains("secret"), "values are not told: {reason}");
        let reason = judge(&schemas, &row, &["{}"]).refused.unwrap();
        assert!(reason.starts_with("event type order, item 1, at /: "), "{reason}");
        assert!(judge(&schemas, &row, &["no"]).refused.unwrap().contains("is not JSON"));
    }

    #[test]
    fn a_warning_names_the_first_items_and_refuses_none() {
        let (schemas, row) = (Schemas::default(), row(SchemaMode::Warn, "false", 1));
        let verdict = judge(&schemas, &row, &["1"; 20]);
        assert_eq!((verdict.refused, verdict.warnings.len()), (None, FAULTS_MAX));
    }

    #[test]
    fn a_schema_counts_as_it_is_now() {
        let schemas = Schemas::default();
        assert!(judge(&schemas, &row(SchemaMode::Enforce, "false", 1), &["1"]).refused.is_some());
        assert!(judge(&schemas, &row(SchemaMode::Enforce, "true", 2), &["1"]).refused.is_none());
        // It was deleted, and set anew.
        assert!(judge(&schemas, &row(SchemaMode::Enforce, r#"{"type":"string"}"#, 2), &["1"]).refused.is_some());
    }

    #[test]
    fn nothing_is_fetched_and_a_broken_schema_is_named() {
        for (schema, part) in [
            (r#"{"$ref":"http://example.com/a.json"}"#, "nothing is fetched"),
            (r#"{"$ref":"file:///etc/passwd"}"#, "nothing is fetched"),
            (r#"{"type":"odd"}"#, "/type"),
            ("{", "not JSON"),
            (r#"{"pattern":"(a{1000}){1000}{1000}"}"#, "the schema is not one"),
        ] {
            let error = compile(schema).err().unwrap_or_else(|| panic!("{schema} is a schema"));
            assert!(error.contains(part), "{schema}: {error}");
        }
    }

    #[test]
    fn a_schema_that_leads_back_to_itself_ends() {
        let list = compile(r##"{"type":"object","properties":{"next":{"$ref":"#"}}}"##).unwrap();
        assert!(list.is_valid(&serde_json::json!({ "next": { "next": {} } })));
        assert!(!list.is_valid(&serde_json::json!({ "next": { "next": 1 } })));
        if let Ok(circle) = compile(r##"{"$ref":"#"}"##) {
            let ends = circle.is_valid(&serde_json::json!(1));
            assert!([true, false].contains(&ends));
        }
    }
}
