//! Whether and when a service that ended is started again.

use std::time::Duration;

use serde_json::Value;

use super::duration::parse_duration;

/// Which ends of a process are followed by a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RestartMode {
    /// None.
    Never,
    /// An exit code other than 0, or a signal.
    OnFailure,
    /// All.
    Always,
}

/// The `restart` key of a service document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RestartPolicy {
    /// Which ends are followed by a restart.
    pub(crate) mode: RestartMode,
    /// How many restarts 60 s of run time may see before the service counts as crashed.
    pub(crate) max: usize,
    /// The wait before the first restart. Each further one waits twice as long.
    pub(crate) delay: Duration,
    /// The longest wait.
    pub(crate) max_delay: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self { mode: RestartMode::Always, max: 10, delay: Duration::from_secs(1), max_delay: Duration::from_secs(60) }
    }
}

impl RestartPolicy {
    /// Reads `"never"`, `"on-failure"`, `"always"`, or `{policy, max, delay, max_delay}`.
    ///
    /// # Errors
    ///
    /// The sentence says what the key must be.
    pub(crate) fn parse(value: &Value) -> Result<Self, String> {
        let mut policy = Self::default();
        match value {
            Value::Null => {}
            Value::String(mode) => policy.mode = parse_mode(mode)?,
            Value::Object(keys) => {
                if let Some(mode) = keys.get("policy") {
                    policy.mode = parse_mode(mode.as_str().unwrap_or_default())?;
                }
                if let Some(max) = keys.get("max") {
                    policy.max = max
                        .as_u64()
                        .and_then(|max| usize::try_from(max).ok())
                        .filter(|max| *max <= 10_000)
                        .ok_or("`restart.max` must be a number of restarts within 60 s, at most 10000")?;
                }
                if let Some(delay) = keys.get("delay") {
                    policy.delay = parse_duration("restart.delay", delay)?;
                }
                if let Some(delay) = keys.get("max_delay") {
                    policy.max_delay = parse_duration("restart.max_delay", delay)?;
                }
            }
            _ => return Err("`restart` must be \"never\", \"on-failure\", \"always\" or an object".into()),
        }
        Ok(policy)
    }
}

fn parse_mode(text: &str) -> Result<RestartMode, String> {
    match text {
        "never" => Ok(RestartMode::Never),
        "on-failure" => Ok(RestartMode::OnFailure),
        "always" => Ok(RestartMode::Always),
        _ => Err("`restart` must be \"never\", \"on-failure\" or \"always\"".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_policy_is_a_word_or_an_object() {
        assert_eq!(RestartPolicy::parse(&json!(null)), Ok(RestartPolicy::default()));
        assert_eq!(RestartPolicy::parse(&json!("never")).unwrap().mode, RestartMode::Never);
        let policy = RestartPolicy::parse(&json!({"policy": "on-failure", "max": 3, "delay": "10ms"})).unwrap();
        assert_eq!((policy.mode, policy.max, policy.delay), (RestartMode::OnFailure, 3, Duration::from_millis(10)));
        for wrong in [json!("sometimes"), json!(3), json!({"max": -1}), json!({"max": 1e9}), json!({"policy": 1})] {
            assert!(RestartPolicy::parse(&wrong).is_err(), "{wrong}");
        }
    }
}
