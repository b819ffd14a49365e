//! A definition: what a process is, as clients write it and docks read it.
//!
//! The document is a JSON object whose members keep their order. Sources: the service object of hms 0.4.4, whose members
//! keep their names; the members from `after` on are of rollbook.

use serde_json::{Map, Value};

use crate::bus::error::Fault;

/// The members that a client may set. Whatever else a client sends is left out, because the stock client sends its whole
/// command line.
const SETTABLE: [&str; 14] = [
    "start",
    "build",
    "limit",
    "docks",
    "tags",
    "revision",
    "env",
    "after",
    "ready",
    "user",
    "stop_timeout",
    "nofile",
    "memory",
    "restart",
];

/// The members that docks get with an `update`.
const UPDATED: [&str; 13] = [
    "start",
    "build",
    "env",
    "tags",
    "limit",
    "docks",
    "after",
    "ready",
    "user",
    "stop_timeout",
    "nofile",
    "memory",
    "restart",
];

/// What a process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition(Map<String, Value>);

impl Definition {
    /// The definition of this id, with nothing in it.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let mut document = Map::new();
        document.insert("id".to_owned(), id.into());
        Self(document)
    }

    /// Whether a process counts as ready when it has registered on the bus.
    #[must_use]
    pub fn is_ready_by_registration(&self) -> bool {
        self.0.get("ready").and_then(|ready| ready.get("bus")) == Some(&Value::Bool(true))
    }

    /// Reads a stored document.
    ///
    /// # Errors
    /// The document is no JSON object.
    pub fn read(document: &[u8]) -> Result<Self, Fault> {
        serde_json::from_slice(document)
            .map(Self)
            .map_err(|error| Fault::internal(format!("a definition cannot be read: {error}")))
    }

    /// The document.
    #[must_use]
    pub fn json(&self) -> Vec<u8> {
        Value::Object(self.0.clone()).to_string().into_bytes()
    }

    /// The document as a value.
    #[must_use]
    pub fn value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// What docks get with an `update`.
    #[must_use]
    pub fn update_json(&self) -> Vec<u8> {
        let members =
            UPDATED.iter().filter_map(|name| self.0.get(*name).map(|value| ((*name).to_owned(), value.clone())));
        Value::Object(members.collect()).to_string().into_bytes()
    }

    /// Takes what a client wants to set. Members that a client may not set are left out; `env` is replaced as a whole.
    ///
    /// # Errors
    /// A member is not what it must be; nothing is changed then.
    pub fn merge(&mut self, wanted: Map<String, Value>) -> Result<(), Fault> {
        let settable = |name: &String| SETTABLE.contains(&name.as_str());
        let wanted: Vec<(String, Value)> = wanted.into_iter().filter(|(name, _)| settable(name)).collect();
        wanted.iter().try_for_each(|(name, value)| check(name, value))?;
        for (name, value) in wanted {
            self.0.insert(name, value);
        }
        Ok(())
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty())
    }

    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text("id").unwrap_or_default()
    }

    /// The command that builds an archive, if there is one.
    #[must_use]
    pub fn build(&self) -> Option<&str> {
        self.text("build")
    }

    /// The environment of the command that builds, and of the process.
    pub fn env(&self) -> impl Iterator<Item = (&str, String)> {
        let env = self.0.get("env").and_then(Value::as_object).into_iter().flatten();
        env.filter_map(|(name, value)| match value {
            Value::String(text) => Some((name.as_str(), text.clone())),
            Value::Null => None,
            other => Some((name.as_str(), other.to_string())),
        })
    }

    /// When it was deployed, as text; `None` when it never was.
    #[must_use]
    pub fn deployed(&self) -> Option<&str> {
        self.text("deployed")
    }

    /// On how many docks it runs; `None`: on all that fit.
    #[must_use]
    pub fn limit(&self) -> Option<usize> {
        let limit = self.0.get("limit")?;
        let whole = limit.as_u64().or_else(|| limit.as_f64().filter(|limit| *limit >= 0.0).and_then(floor))?;
        usize::try_from(whole).ok()
    }

    /// Whether it was told to stop.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.get("stopped").and_then(Value::as_bool).unwrap_or_default()
    }

    /// The docks on which it was put by the last sync.
    pub fn docks(&self) -> impl Iterator<Item = &str> {
        self.list("docks")
    }

    /// Whether it may run on a dock with this id and these tags. Without tags it runs on the docks for everything.
    #[must_use]
    pub fn fits(&self, dock: &str, tags: &[String], is_default: bool) -> bool {
        if self.list("tags").next().is_none() {
            return is_default;
        }
        self.list("tags").any(|tag| tag == dock || tags.iter().any(|own| own == tag))
    }

    /// Says whether it is told to stop.
    pub fn set_stopped(&mut self, stopped: bool) {
        self.0.insert("stopped".to_owned(), stopped.into());
    }

    /// Puts it on these docks.
    pub fn set_docks(&mut self, docks: &[String]) {
        self.0.insert("docks".to_owned(), docks.into());
    }

    /// A build of this revision was deployed at this time.
    pub fn set_deployed(&mut self, revision: &str, at: &str) {
        self.0.insert("revision".to_owned(), revision.into());
        self.0.insert("deployed".to_owned(), at.into());
    }
}

/// The whole part of a number that is not negative.
fn floor(number: f64) -> Option<u64> {
    format!("{:.0}", number.floor()).parse().ok()
}

/// Checks the value of a member. `null` says that there is none.
fn check(name: &str, value: &Value) -> Result<(), Fault> {
    let texts = |value: &Value| value.as_array().is_some_and(|list| list.iter().all(Value::is_string));
    let scalar = |value: &Value| !value.is_object() && !value.is_array();
    let (fits, must) = match name {
        "start" | "build" | "revision" | "user" => (value.is_string(), "a text"),
        "limit" => (value.is_number() || value.is_boolean(), "a number, or false for no limit"),
        "docks" | "tags" | "after" => (texts(value), "a list of texts"),
        "env" => (value.as_object().is_some_and(|env| env.values().all(scalar)), "an object of texts"),
        "ready" => (value.is_object(), "an object"),
        "stop_timeout" | "nofile" | "memory" => (value.is_number() || value.is_string(), "a number or a text"),
        _ => (value.is_string() || value.is_object(), "a text or an object"),
    };
    if fits || value.is_null() { Ok(()) } else { Err(Fault::bad(format!("{name} must be {must}"))) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn a_client_sets_the_members_of_a_definition_and_no_others() {
        let mut definition = Definition::new("app1");
        let sent =
            json!({"_": ["add"], "start": "node .", "limit": 2, "env": {"A": "1"}, "tags": ["web"], "stopped": true});
        definition.merge(object(&sent)).unwrap();
        assert_eq!(
            definition.value(),
            json!({"id": "app1", "start": "node .", "limit": 2, "env": {"A": "1"}, "tags": ["web"]})
        );
        definition.merge(object(&json!({"env": {"B": "2"}, "limit": false}))).unwrap();
        assert_eq!((definition.value()["env"].clone(), definition.limit()), (json!({"B": "2"}), None));
    }

    #[test]
    fn a_member_of_the_wrong_kind_is_refused_and_changes_nothing() {
        for (member, value) in [
            ("start", json!(["a"])),
            ("env", json!("A=1")),
            ("env", json!({"A": {"b": 1}})),
            ("tags", json!("web")),
            ("tags", json!([1])),
            ("limit", json!("two")),
        ] {
            let mut definition = Definition::new("app1");
            let mut sent = object(&json!({"revision": "r1"}));
            sent.insert(member.to_owned(), value.clone());
            let fault = definition.merge(sent).expect_err(&format!("{member}={value}"));
            assert!(fault.text.starts_with(member), "{fault}");
            assert_eq!(definition, Definition::new("app1"));
        }
    }

    #[test]
    fn without_tags_a_process_runs_on_docks_for_everything_and_with_tags_where_one_is_the_same() {
        let mut definition = Definition::new("app1");
        assert!(definition.fits("dock1", &[], true) && !definition.fits("dock1", &["web".to_owned()], false));
        definition.merge(object(&json!({"tags": ["web", "dock2"]}))).unwrap();
        assert!(definition.fits("dock1", &["web".to_owned()], false));
        assert!(definition.fits("dock2", &[], false) && !definition.fits("dock1", &[], true));
    }

    #[test]
    fn a_limit_is_a_number_that_is_not_negative() {
        for (limit, read) in [(json!(2), Some(2)), (json!(2.5), Some(2)), (json!(-1), None), (json!(false), None)] {
            let mut definition = Definition::new("app1");
            definition.merge(object(&json!({"limit": limit}))).unwrap();
            assert_eq!(definition.limit(), read, "{limit}");
        }
    }
}
