//! The service document: what hubs store about a service, with the keys that only this dock knows.

use std::time::Duration;

use serde_json::{Map, Value};

use super::arguments::{ArgumentsError, parse_arguments};
use super::duration::parse_duration;
use super::readiness::Readiness;
use super::restart_policy::RestartPolicy;

/// How long a service may take to stop after SIGTERM, unless the document says otherwise.
const DEFAULT_STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The keys that `update` takes over, which are those of stock docks and our own. `tags` and `limit` are not among
/// them: only `sync` moves a service between docks.
const UPDATED: [&str; 11] =
    ["start", "build", "env", "docks", "after", "ready", "user", "stop_timeout", "nofile", "memory", "restart"];

/// A service document in types. Unknown keys are kept in [`Definition::document`] and otherwise ignored.
#[derive(Debug, Clone)]
pub(crate) struct Definition {
    /// The document as the hub gave it.
    document: Map<String, Value>,
    /// The command line.
    pub(crate) start: Option<String>,
    /// The variables of the service, in the order of the document.
    pub(crate) env: Vec<(String, String)>,
    /// The docks or groups of docks that run the service. None at all stands for docks that are `default`.
    pub(crate) tags: Vec<String>,
    /// The revision that the user named for the build.
    pub(crate) revision: Option<String>,
    /// True when the service was stopped by command.
    pub(crate) stopped: bool,
    /// The time of the build, which names the build's folder.
    pub(crate) deployed: Option<String>,
    /// The services that must be ready before this service starts.
    pub(crate) after: Vec<String>,
    /// What shows that the service is ready. None: a spawned process is ready.
    pub(crate) ready: Option<Readiness>,
    /// The user, and after `:` the group, that the process runs as.
    pub(crate) user: Option<String>,
    /// How long the process may take to end after SIGTERM.
    pub(crate) stop_timeout: Duration,
    /// The limit of open files.
    pub(crate) nofile: Option<u64>,
    /// The limit of memory in bytes.
    pub(crate) memory: Option<u64>,
    /// Whether and when the process is started again.
    pub(crate) restart: RestartPolicy,
}

impl Definition {
    /// Reads a document.
    ///
    /// # Errors
    ///
    /// The sentence names the key and what the key must be.
    pub(crate) fn parse(document: Map<String, Value>) -> Result<Self, String> {
        let get = |key: &str| document.get(key).unwrap_or(&Value::Null);
        let stop_timeout = match get("stop_timeout") {
            Value::Null => DEFAULT_STOP_TIMEOUT,
            value => parse_duration("stop_timeout", value)?,
        };
        Ok(Self {
            start: text("start", get("start"))?.filter(|start| !start.trim().is_empty()),
            env: env(get("env"))?,
            tags: texts("tags", get("tags"))?,
            revision: text("revision", get("revision"))?,
            stopped: get("stopped").as_bool().unwrap_or(false),
            deployed: text("deployed", get("deployed"))?.filter(|deployed| !deployed.is_empty()),
            after: texts("after", get("after"))?,
            ready: Readiness::parse(get("ready"))?,
            user: text("user", get("user"))?.filter(|user| !user.is_empty()),
            stop_timeout,
            nofile: count("nofile", get("nofile"))?,
            memory: count("memory", get("memory"))?,
            restart: RestartPolicy::parse(get("restart"))?,
            document,
        })
    }

    /// The definition of a service that is not started, whatever the document says.
    pub(crate) fn empty(document: Map<String, Value>) -> Self {
        Self {
            // Known even so, because the build is kept.
            deployed: document.get("deployed").and_then(Value::as_str).map(str::to_owned),
            document,
            start: None,
            env: Vec::new(),
            tags: Vec::new(),
            revision: None,
            stopped: false,
            after: Vec::new(),
            ready: None,
            user: None,
            stop_timeout: DEFAULT_STOP_TIMEOUT,
            nofile: None,
            memory: None,
            restart: RestartPolicy::default(),
        }
    }

    /// The document as the hub gave it.
    pub(crate) fn document(&self) -> &Map<String, Value> {
        &self.document
    }

    /// The definition after an `update` with `changes`.
    ///
    /// # Errors
    ///
    /// As [`Definition::parse`].
    pub(crate) fn updated(&self, changes: &Map<String, Value>) -> Result<Self, String> {
        let mut document = self.document.clone();
        for key in UPDATED {
            if let Some(value) = changes.get(key) {
                document.insert(key.to_owned(), value.clone());
            }
        }
        Self::parse(document)
    }

    /// The definition with the flag that a stop or start by command leaves.
    pub(crate) fn with_stopped(&self, stopped: bool) -> Self {
        let mut definition = self.clone();
        definition.document.insert("stopped".into(), Value::Bool(stopped));
        definition.stopped = stopped;
        definition
    }

    /// True when a dock with this id and these tags runs the service.
    pub(crate) fn belongs_to(&self, dock: &str, tags: &[String], default: bool) -> bool {
        match self.tags.is_empty() {
            true => default,
            false => self.tags.iter().any(|tag| tag == dock || tags.contains(tag)),
        }
    }

    /// The program and its arguments.
    ///
    /// # Errors
    ///
    /// The command line needs a shell, or its quotes are not closed.
    pub(crate) fn arguments(&self, service: &str) -> Result<Vec<String>, ArgumentsError> {
        let lookup = |name: &str| {
            let own = self.env.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str());
            own.or((name == "SERVICE_NAME").then_some(service))
        };
        parse_arguments(self.start.as_deref().unwrap_or_default(), lookup)
    }
}

fn text(key: &str, value: &Value) -> Result<Option<String>, String> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) if text.contains('\0') => Err(format!("`{key}` must not have a zero byte")),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Number(number) => Ok(Some(number.to_string())),
        _ => Err(format!("`{key}` must be a text")),
    }
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>, String> {
    let wrong = || format!("`{key}` must be a list of texts");
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Array(items) => items.iter().map(|item| item.as_str().map(str::to_owned).ok_or_else(wrong)).collect(),
        _ => Err(wrong()),
    }
}

fn count(key: &str, value: &Value) -> Result<Option<u64>, String> {
    match value {
        Value::Null => Ok(None),
        value => match value.as_u64() {
            Some(number) if number > 0 => Ok(Some(number)),
            _ => Err(format!("`{key}` must be a whole number above 0")),
        },
    }
}

/// Reads the variables. A value of null deletes a variable, as everywhere in the protocol.
fn env(value: &Value) -> Result<Vec<(String, String)>, String> {
    let keys = match value {
        Value::Null => return Ok(Vec::new()),
        Value::Object(keys) => keys,
        _ => return Err("`env` must be an object".into()),
    };
    let mut env = Vec::new();
    for (name, value) in keys {
        let value = match value {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Bool(_) | Value::Number(_) => value.to_string(),
            _ => return Err(format!("`env.{name}` must be a text")),
        };
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(format!("`env` has a name or value that no process can have: {name:?}"));
        }
        env.push((name.clone(), value));
    }
    Ok(env)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(value: Value) -> Result<Definition, String> {
        Definition::parse(value.as_object().unwrap().clone())
    }

    #[test]
    fn a_stock_document_is_read_and_unknown_keys_are_kept() {
        let document = json!({"id": "app", "start": "node $SERVICE_NAME $A", "env": {"A": "1", "B": null, "C": 2},
            "tags": ["web"], "limit": 2, "stopped": false, "deployed": "2024-01-01T10:00:00.000Z", "new": [1]});
        let definition = parse(document.clone()).unwrap();
        assert_eq!(definition.env, [("A".into(), "1".into()), ("C".into(), "2".into())]);
        assert_eq!(definition.arguments("app").unwrap(), ["node", "app", "1"]);
        assert_eq!(Value::Object(definition.document().clone()), document);
        assert_eq!(definition.stop_timeout, Duration::from_secs(30));
    }

    #[test]
    fn a_wrong_key_is_named() {
        for (wrong, key) in [
            (json!({"start": ["node"]}), "start"),
            (json!({"env": []}), "env"),
            (json!({"env": {"A=B": "1"}}), "A=B"),
            (json!({"tags": [1]}), "tags"),
            (json!({"nofile": 0}), "nofile"),
            (json!({"memory": "1g"}), "memory"),
            (json!({"ready": {}}), "ready"),
            (json!({"restart": 1}), "restart"),
            (json!({"stop_timeout": "x"}), "stop_timeout"),
        ] {
            let error = parse(wrong).unwrap_err();
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn an_update_changes_all_but_the_tags() {
        let definition = parse(json!({"start": "a", "tags": ["x"], "env": {"A": "1"}})).unwrap();
        let changes = json!({"start": "b", "tags": ["y"], "env": {}, "limit": 1, "nofile": 7});
        let updated = definition.updated(changes.as_object().unwrap()).unwrap();
        assert_eq!((updated.start.as_deref(), updated.nofile), (Some("b"), Some(7)));
        assert_eq!((updated.tags.as_slice(), updated.env.len()), (["x".to_owned()].as_slice(), 0));
    }

    #[test]
    fn tags_choose_the_docks() {
        let belongs = |tags: Value, default| {
            parse(json!({"tags": tags})).unwrap().belongs_to("dock1", &["web".to_owned()], default)
        };
        assert!(belongs(json!(["web", "x"]), false));
        assert!(belongs(json!(["dock1"]), false));
        assert!(!belongs(json!(["db"]), true));
        assert!(belongs(json!([]), true));
        assert!(!belongs(json!([]), false));
    }
}
