//! What `ps` shows of a service.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

/// The state of a service, in the words of stock docks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Status {
    /// A process runs.
    Running,
    /// The next start is waited for.
    Sleeping,
    /// The process was told to stop.
    Stopping,
    /// Nothing runs.
    #[default]
    Stopped,
    /// Nothing runs, because the service ended too often.
    Crashed,
}

impl Status {
    fn text(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Sleeping => "sleeping",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Crashed => "crashed",
        }
    }
}

/// What `ps` shows of a service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    /// False when the service is not defined here.
    pub(crate) defined: bool,
    /// The state.
    pub(crate) status: Status,
    /// The number of the process, and when it was started.
    pub(crate) process: Option<(i32, SystemTime)>,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// The folder in which the service runs.
    pub(crate) cwd: PathBuf,
    /// The variables of the service.
    pub(crate) env: Vec<(String, String)>,
    /// The revision of the build.
    pub(crate) revision: Option<String>,
    /// The time of the build.
    pub(crate) deployed: Option<String>,
    /// Restarts since the last command.
    pub(crate) restarts: u64,
}

/// The snapshot of one service, which its actor changes and `ps` reads.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedSnapshot(Arc<Mutex<Snapshot>>);

impl SharedSnapshot {
    /// False when the service is not defined here.
    pub(super) fn is_defined(&self) -> bool {
        self.lock().defined
    }

    pub(super) fn get(&self) -> Snapshot {
        self.lock().clone()
    }

    pub(super) fn set(&self, snapshot: Snapshot) {
        *self.lock() = snapshot;
    }

    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    /// The element of the list of `ps`. `usage` is CPU in percent and resident bytes.
    pub(crate) fn to_json(&self, service: &str, usage: Option<(f64, u64)>, ready: bool) -> Value {
        let mut keys = Map::new();
        let mut add = |key: &str, value: Value| {
            keys.insert(key.to_owned(), value);
        };
        add("id", service.into());
        add("status", self.status.text().into());
        if let Some((pid, started)) = self.process {
            add("started", iso_time(started).into());
            add("pid", pid.into());
        }
        add("command", self.command.clone().into());
        add("cwd", self.cwd.to_string_lossy().into());
        let mut env = Map::new();
        env.insert("SERVICE_NAME".into(), service.into());
        env.extend(self.env.iter().map(|(name, value)| (name.clone(), value.as_str().into())));
        add("env", env.into());
        if let Some(revision) = &self.revision {
            add("revision", revision.as_str().into());
        }
        if let Some(deployed) = &self.deployed {
            add("deployed", deployed.as_str().into());
        }
        add("restarts", self.restarts.into());
        add("ready", ready.into());
        if let Some((cpu, rss)) = usage {
            add("cpu", cpu.into());
            add("rss", rss.into());
        }
        keys.into()
    }
}

/// Milliseconds since 1970.
pub(crate) fn to_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// The time that is `ms` milliseconds after 1970.
pub(crate) fn from_ms(ms: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_millis(ms)).unwrap_or(UNIX_EPOCH)
}

fn iso_time(time: SystemTime) -> String {
    let ms = i64::try_from(to_ms(time)).unwrap_or_default();
    jiff::Timestamp::from_millisecond(ms).map(|time| format!("{time:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_element_has_the_shape_of_a_stock_dock() {
        let mut snapshot = Snapshot {
            defined: true,
            status: Status::Running,
            process: Some((7, from_ms(1_704_103_200_000))),
            command: vec!["node".into(), "x".into()],
            cwd: "/b".into(),
            env: vec![("A".into(), "1".into())],
            revision: Some("r".into()),
            deployed: Some("2024".into()),
            restarts: 2,
        };
        assert_eq!(
            snapshot.to_json("app", Some((1.5, 4096)), true).to_string(),
            r#"{"id":"app","status":"running","started":"2024-01-01T10:00:00.000Z","pid":7,"command":["node","x"],"cwd":"/b","env":{"SERVICE_NAME":"app","A":"1"},"revision":"r","deployed":"2024","restarts":2,"ready":true,"cpu":1.5,"rss":4096}"#
        );
        (snapshot.process, snapshot.status) = (None, Status::Crashed);
        let json = snapshot.to_json("app", None, false);
        assert!(json.get("pid").is_none() && json.get("started").is_none() && json["status"] == "crashed");
    }
}
