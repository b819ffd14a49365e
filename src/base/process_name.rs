//! The name of a process that a dock has started: `DOCK/DEFINITION/NUMBER`, `ROLLBOOK_PROCESS` of its environment. Pure.

use serde_json::Value;

/// The name of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessName {
    /// The dock.
    pub dock: String,
    /// The definition.
    pub definition: String,
    number: String,
}

impl ProcessName {
    /// The process that a program says it is when it registers as a service: `process` of its metadata, a JSON text.
    #[must_use]
    pub fn of_metadata(metadata: &str) -> Option<Self> {
        // Most services are no such process, and need no parser.
        if !metadata.contains("\"process\"") {
            return None;
        }
        let metadata: Value = serde_json::from_str(metadata).ok()?;
        let mut parts = metadata.get("process")?.as_str()?.splitn(3, '/').map(str::to_owned);
        Some(Self { dock: parts.next()?, definition: parts.next()?, number: parts.next()? })
    }

    /// The name as it is in the environment.
    #[must_use]
    pub fn value(&self) -> String {
        format!("{}/{}/{}", self.dock, self.definition, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_of_an_instance_is_what_it_said_when_it_registered() {
        let name = ProcessName::of_metadata(r#"{"zone":"eu","process":"d1/shop.web/0d4e"}"#).unwrap();
        assert_eq!((name.dock.as_str(), name.definition.as_str()), ("d1", "shop.web"));
        assert_eq!(name.value(), "d1/shop.web/0d4e");
        for none in ["", "{}", "\"process\"", r#"{"process":7}"#, r#"{"process":"d1"}"#, r#"{"process":"d1/app"}"#] {
            assert_eq!(ProcessName::of_metadata(none), None, "{none}");
        }
    }
}
