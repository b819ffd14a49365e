//! Definitions and processes, in one file that is replaced as a whole.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of the form of the file.
const VERSION: u32 = 1;

/// What the file says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct State {
    version: u32,
    /// Names the directory, so that agents with one id do not touch each other's processes.
    directory: String,
    services: BTreeMap<String, ServiceRow>,
}

/// One service.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ServiceRow {
    /// The document of the service, as the hub gave it.
    pub(crate) service: Map<String, Value>,
    /// The process of the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) process: Option<ProcessRow>,
    /// Earlier processes that are being stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) retiring: Vec<ProcessRow>,
}

/// One process. Written without a number before the process is started, so that an agent that is killed in between
/// finds the process by its variable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ProcessRow {
    /// The boot of the machine on which the numbers are valid.
    pub(crate) boot: String,
    /// `NAME=value` in the environment of the process and of no other.
    pub(crate) variable: String,
    /// The number of the process; 0 before the process is started.
    pub(crate) pid: i32,
    /// The start time of the process in clock ticks.
    pub(crate) start_time: u64,
    /// When the process was started, in milliseconds since 1970.
    pub(crate) started_ms: u64,
    /// The cgroup of the process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cgroup: Option<PathBuf>,
    /// The program and its arguments.
    pub(crate) command: Vec<String>,
    /// The folder in which the process runs.
    pub(crate) folder: PathBuf,
}

/// The file, and the state in memory that it follows.
#[derive(Debug)]
pub(crate) struct StateFile {
    path: PathBuf,
    inner: Mutex<Inner>,
    /// The number of the change that is in the file. Held while the file is written, also when nobody waits for that
    /// any more: two writes at a time would mix in one file.
    saved: Arc<tokio::sync::Mutex<u64>>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    changes: u64,
}

impl StateFile {
    /// Reads the file, or begins with `directory` as the name of the directory.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or has another form. Nothing is changed then.
    pub(crate) fn open(path: &Path, directory: impl FnOnce() -> String) -> io::Result<Self> {
        let state = match fs::read(path) {
            Ok(text) => {
                let state: State = serde_json::from_slice(&text).map_err(|error| {
                    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {error}", path.display()))
                })?;
                if state.version != VERSION {
                    let text = format!("{} has version {}, and this is {VERSION}", path.display(), state.version);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                state
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let state = State { version: VERSION, directory: directory(), services: BTreeMap::new() };
                write(path, &state)?;
                state
            }
            Err(error) => return Err(error),
        };
        let inner = Mutex::new(Inner { state, changes: 0 });
        Ok(Self { path: path.to_owned(), inner, saved: Arc::default() })
    }

    /// The name of the directory.
    pub(crate) fn directory(&self) -> String {
        self.lock().state.directory.clone()
    }

    /// All services.
    pub(crate) fn services(&self) -> BTreeMap<String, ServiceRow> {
        self.lock().state.services.clone()
    }

    /// Replaces the row of a service, or removes it, in memory. Gives the number of the change, for
    /// [`StateFile::flush`].
    pub(crate) fn put(&self, service: &str, row: Option<ServiceRow>) -> u64 {
        let mut inner = self.lock();
        match row {
            Some(row) => inner.state.services.insert(service.to_owned(), row),
            None => inner.state.services.remove(service),
        };
        inner.changes = inner.changes.saturating_add(1);
        inner.changes
    }

    /// Returns when the file has the change with this number. Changes that come while the file is written are written
    /// together.
    ///
    /// # Errors
    ///
    /// The file cannot be written. The state in memory has the change nevertheless, and a later write brings the change
    /// into the file.
    pub(crate) async fn flush(&self, change: u64) -> io::Result<()> {
        let mut saved = Arc::clone(&self.saved).lock_owned().await;
        if *saved >= change {
            return Ok(());
        }
        let (state, change) = {
            let inner = self.lock();
            (inner.state.clone(), inner.changes)
        };
        let path = self.path.clone();
        let work = move || {
            write(&path, &state)?;
            *saved = change;
            Ok(())
        };
        tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes a new file beside the old one and gives it the name of the old one. The file has the environment of services,
/// so only the user of the agent may read it.
fn write(path: &Path, state: &State) -> io::Result<()> {
    let fresh = path.with_extension("json.new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
    file.write_all(&serde_json::to_vec_pretty(state)?)?;
    file.sync_all()?;
    fs::rename(&fresh, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(start: &str) -> ServiceRow {
        ServiceRow { service: json!({"start": start}).as_object().unwrap().clone(), ..ServiceRow::default() }
    }

    #[tokio::test]
    async fn rows_are_found_again_and_removed_ones_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dock.json");
        let file = StateFile::open(&path, || "first".into()).unwrap();
        let (a, b) = (file.put("a", Some(row("x"))), file.put("b", Some(row("y"))));
        let (a, b) = tokio::join!(file.flush(a), file.flush(b));
        a.unwrap();
        b.unwrap();
        file.flush(file.put("a", None)).await.unwrap();
        let again = StateFile::open(&path, || "second".into()).unwrap();
        assert_eq!(again.directory(), "first");
        assert_eq!(again.services(), BTreeMap::from([("b".to_owned(), row("y"))]));
    }

    #[tokio::test]
    async fn what_could_not_be_written_is_written_with_the_next_change() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dock.json");
        let file = StateFile::open(&path, || "first".into()).unwrap();
        let obstacle = folder.path().join("dock.json.new");
        fs::create_dir(&obstacle).unwrap();
        assert!(file.flush(file.put("a", Some(row("x")))).await.is_err());
        fs::remove_dir(&obstacle).unwrap();
        file.flush(file.put("b", Some(row("y")))).await.unwrap();
        assert_eq!(StateFile::open(&path, String::new).unwrap().services().len(), 2);
    }

    #[test]
    fn a_broken_or_newer_file_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dock.json");
        for text in ["", "{", r#"{"version":2,"directory":"x","services":{}}"#] {
            fs::write(&path, text).unwrap();
            assert!(StateFile::open(&path, String::new).is_err());
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
