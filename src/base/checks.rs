//! Findings about settings that are wrong together although each value by itself is valid.

/// Findings, as pairs of the key of a setting and a message that says what to write.
#[derive(Debug, Default)]
pub struct Checks(Vec<(&'static str, String)>);

impl Checks {
    /// Notes `message` for the setting `key` unless the condition holds.
    pub fn require(&mut self, holds: bool, key: &'static str, message: impl Into<String>) {
        if !holds {
            self.0.push((key, message.into()));
        }
    }

    /// Every finding, in the order of the checks.
    #[must_use]
    pub fn into_findings(self) -> Vec<(&'static str, String)> {
        self.0
    }
}
