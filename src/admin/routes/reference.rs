//! Completes the description of `/api`: a short summary of each operation, examples, and the meaning of path
//! parameters. The page `/docs/` shows all of it.

use serde_json::{Map, Value, json};

/// Examples of requests and answers, by operation. A reader may send each example without harm.
const EXAMPLES: &str = include_str!("../pages/examples.json");

/// The meaning of path parameters, by the tag of the operation.
const PARTS: [(&str, &str, &str); 25] = [
    ("services", "id", "Id of the service, as in `GET /api/services`."),
    ("commands", "id", "Id of the service, as in `GET /api/services`."),
    ("commands", "service", "Name of a capability, or id of a service, of any door."),
    ("commands", "method", "What is asked of it: an action or method."),
    ("connections", "id", "Id of the connection, as in `GET /api/connections`."),
    ("consumers", "namespace", "Namespace of the consumer."),
    ("consumers", "name", "Name of the durable consumer or group, as in `GET /api/consumers`."),
    ("dead-letters", "id", "Id of the dead letter, or its index in the namespace `_dead_`; or id of the job, a UUID."),
    ("delayed", "id", "Id of the waiting event, as in `GET /api/delayed`."),
    ("namespaces", "name", "Name of the namespace: the first part of its subjects."),
    ("events", "namespace", "Name of the namespace: the first part of its subjects."),
    ("events", "event", "Id of the event, or its index in the namespace."),
    ("schedules", "name", "Name of the schedule, as in `GET /api/schedules`."),
    ("security", "principal", "The principal, as in `service:billing` or `anonymous`."),
    ("security", "name", "Name of the role or issuer."),
    ("security", "id", "Id of the credential, as in the list of those of its principal."),
    ("processes", "id", "Id of the definition, as in `GET /api/definitions`."),
    ("xbus", "account", "Name or id of the account, as in `GET /api/xbus/accounts`."),
    ("xbus", "actor", "Name or id of the actor, as in `GET /api/xbus/actors`."),
    ("xbus", "name", "Name of the pipeline, as in `GET /api/xbus/pipelines`."),
    ("xbus", "version", "The version of the pipeline: any text."),
    ("xbus", "id", "Id of the process, envelope or replay, a UUID."),
    ("xbus", "type", "The type of events, as in `GET /api/xbus/schemas`."),
    ("cluster", "id", "Number of the node, as in `GET /api/cluster`."),
    ("cluster", "force", "Make the change in spite of what speaks against it, as far as raft can."),
];

/// Completes a description of OpenAPI 3.1.
pub(super) fn complete(mut described: Value) -> Value {
    let examples: Value = serde_json::from_str(EXAMPLES).unwrap_or_default();
    let operations = described.get_mut("paths").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
    for operation in operations.filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
        let Some(operation) = operation.as_object_mut() else { continue };
        say(operation);
        name_parts(operation);
        let id = operation.get("operationId").and_then(Value::as_str).unwrap_or_default();
        let own = examples.get(id).cloned().unwrap_or_default();
        show(operation, &own);
    }
    described
}

/// Makes the first sentence of the text the summary.
fn say(operation: &mut Map<String, Value>) {
    let texts = ["summary", "description"].into_iter().filter_map(|part| operation.get(part)?.as_str());
    let text = texts.collect::<Vec<_>>().join(" ").replace('\n', " ");
    let first = text.split_inclusive(['.', ':', ';']).next().unwrap_or_default();
    let summary = first.trim_end_matches(['.', ':', ';']).to_owned();
    operation.insert("summary".to_owned(), summary.into());
    operation.insert("description".to_owned(), text.into());
}

fn name_parts(operation: &mut Map<String, Value>) {
    let tag = operation.get("tags").and_then(|tags| tags.get(0)?.as_str()).unwrap_or_default().to_owned();
    let parameters = operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten();
    for parameter in parameters.filter_map(Value::as_object_mut) {
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default();
        let known = PARTS.iter().find(|(of, part, _)| *of == tag && *part == name);
        if let Some((.., meaning)) = known.filter(|_| !parameter.contains_key("description")) {
            parameter.insert("description".to_owned(), (*meaning).into());
        }
    }
}

/// Adds the examples to the bodies of a request, of its answer, and of its problems.
fn show(operation: &mut Map<String, Value>, own: &Value) {
    if let (Some(body), Some(request)) = (operation.get_mut("requestBody"), own.get("request")) {
        put(body, request);
    }
    let responses = operation.get_mut("responses").and_then(Value::as_object_mut).into_iter().flatten();
    for (status, answer) in responses {
        match status.as_bytes() {
            [b'2', ..] => own.get("response").into_iter().for_each(|example| put(answer, example)),
            [b'4', ..] => put(answer, &problem(400, "Bad Request", "limit=0: 1 to 1000", "bad_request")),
            [b'5', ..] => put(answer, &problem(503, "Service Unavailable", "unavailable: no leader", "unavailable")),
            _ => {}
        }
    }
}

fn put(of: &mut Value, example: &Value) {
    let contents = of.get_mut("content").and_then(Value::as_object_mut).into_iter().flat_map(Map::values_mut);
    for content in contents.filter_map(Value::as_object_mut) {
        content.insert("example".to_owned(), example.clone());
    }
}

fn problem(status: u16, title: &str, detail: &str, code: &str) -> Value {
    json!({ "type": "about:blank", "title": title, "status": status, "detail": detail, "code": code })
}

#[cfg(test)]
mod tests {
    use super::super::openapi::description;
    use super::*;

    /// Method and path, and what is said of each operation.
    fn operations(described: &Value) -> Vec<(String, Value)> {
        let paths = described["paths"].as_object().unwrap();
        let each = |(path, methods): (&String, &Value)| {
            let methods = methods.as_object().unwrap().clone();
            methods.into_iter().map(|(method, operation)| (format!("{method} {path}"), operation)).collect::<Vec<_>>()
        };
        let found: Vec<_> = paths.iter().flat_map(each).collect();
        assert!(found.len() > 35, "only {} operations", found.len());
        found
    }

    fn text<'v>(of: &'v Value, member: &str) -> &'v str {
        of[member].as_str().unwrap_or_default()
    }

    #[test]
    fn every_operation_has_a_summary_a_description_and_parameters_that_say_what_they_are() {
        for (name, operation) in operations(&description()) {
            let (summary, whole) = (text(&operation, "summary"), text(&operation, "description"));
            assert!((10..=120).contains(&summary.len()) && !summary.contains('\n'), "{name}: {summary:?}");
            assert!(
                whole.starts_with(summary) && whole.len() > summary.len() + 10 && whole.ends_with('.'),
                "{name}: {whole:?}"
            );
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                assert!(text(parameter, "description").len() > 10, "{name}: {parameter}");
            }
            for (status, answer) in operation["responses"].as_object().unwrap() {
                assert!(text(answer, "description").len() > 7, "{name}: {status}: {answer}");
            }
        }
    }

    #[test]
    fn no_text_names_what_only_the_source_knows() {
        let described = description().to_string();
        for odd in ["::", "[`", "crate", "super"] {
            assert!(
                !described.contains(odd),
                "{odd} in {}",
                described.split(odd).next().map_or("", |at| &at[at.len() - 80..])
            );
        }
    }

    #[test]
    fn every_body_has_an_example_that_is_as_its_schema_says() {
        let described = description();
        let mut seen = 0;
        for (name, operation) in operations(&described) {
            let mut bodies = vec![operation["requestBody"].clone()];
            bodies.extend(operation["responses"].as_object().unwrap().values().cloned());
            for content in bodies.iter().filter_map(|body| body["content"].as_object()).flat_map(Map::values) {
                seen += 1;
                assert!(content.get("example").is_some(), "{name} has no example: {content}");
                let wrong = differs(&described, &content["schema"], &content["example"], &mut String::new());
                assert_eq!(wrong, None, "{name}: {}", content["example"]);
            }
        }
        assert!(seen > 100, "only {seen} bodies");
        let known: Vec<String> =
            operations(&described).iter().map(|(_, one)| text(one, "operationId").to_owned()).collect();
        for id in serde_json::from_str::<Map<String, Value>>(EXAMPLES).unwrap().keys() {
            assert!(known.contains(id), "an example of {id}, which is no operation");
        }
    }

    /// The first place where a value is not as a schema says: as far as the schemas of this description go.
    fn differs(described: &Value, schema: &Value, value: &Value, at: &mut String) -> Option<String> {
        if let Some(path) = schema["$ref"].as_str() {
            return differs(described, described.pointer(path.trim_start_matches('#'))?, value, at);
        }
        if let Some(choices) = schema["oneOf"].as_array().or_else(|| schema["anyOf"].as_array()) {
            let fits = |choice: &&Value| differs(described, choice, value, &mut at.clone()).is_none();
            return if choices.iter().any(|choice| fits(&choice)) { None } else { Some(format!("{at}: no choice")) };
        }
        let kinds: Vec<&str> = match &schema["type"] {
            Value::String(one) => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => return None,
        };
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let is_number = kind == "integer" && kinds.contains(&"number");
        if !is_number && !kinds.contains(&kind) {
            return Some(format!("{at}: {kind} and not {kinds:?}"));
        }
        let inside =
            |name: &str, schema: &Value, value: &Value| differs(described, schema, value, &mut format!("{at}/{name}"));
        if let (Some(items), Some(values)) = (schema.get("items"), value.as_array()) {
            return values.iter().find_map(|value| inside("items", items, value));
        }
        let (Some(known), Some(members)) = (schema["properties"].as_object(), value.as_object()) else { return None };
        let required = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
        if let Some(missing) = required.clone().find(|name| !members.contains_key(*name)) {
            return Some(format!("{at}: {missing} is missing"));
        }
        members.iter().find_map(|(name, value)| match known.get(name) {
            Some(schema) => inside(name, schema, value),
            None => Some(format!("{at}: there is no {name}")),
        })
    }
}
