//! The builds of services: one folder for each service and time of deployment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What stands before the name of a build that is under way.
const INCOMING: &str = ".incoming-";

/// The folder of all builds.
#[derive(Debug)]
pub(crate) struct Builds {
    folder: PathBuf,
}

impl Builds {
    /// Opens the folder, and removes what an earlier start of the agent did not complete.
    pub(crate) fn open(folder: PathBuf) -> Self {
        let builds = Self { folder };
        for path in builds.entries(INCOMING) {
            discard(&path);
        }
        builds
    }

    /// The folder of the build of a service that was deployed at `deployed`. None when the text is no time: the text
    /// becomes the name of a folder, and comes from elsewhere.
    pub(crate) fn path(&self, service: &str, deployed: &str) -> Option<PathBuf> {
        let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | ':' | '.' | '+' | '_');
        let is_time = !deployed.is_empty() && deployed.len() <= 64 && deployed.chars().all(plain);
        is_time.then(|| self.folder.join(format!("{service}@{}", deployed.replace(':', "-"))))
    }

    /// A place for a download, and one for what is unpacked of it.
    pub(crate) fn incoming(&self, name: &str) -> (PathBuf, PathBuf) {
        let place = |ending: &str| self.folder.join(format!("{INCOMING}{name}{ending}"));
        (place(".tgz"), place(""))
    }

    /// Gives an unpacked build its place.
    ///
    /// # Errors
    ///
    /// The folder cannot be moved.
    pub(crate) fn install(&self, unpacked: &Path, path: &Path) -> io::Result<()> {
        fs::rename(unpacked, path)?;
        fs::File::open(&self.folder)?.sync_all()
    }

    /// Removes the builds of a service but those in `kept`.
    pub(crate) fn prune(&self, service: &str, kept: &[PathBuf]) {
        for path in self.entries(&format!("{service}@")) {
            if !kept.contains(&path) {
                discard(&path);
            }
        }
    }

    fn entries(&self, beginning: &str) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return Vec::new() };
        entries
            .flatten()
            .filter(|entry| entry.file_name().to_str().is_some_and(|name| name.starts_with(beginning)))
            .map(|entry| entry.path())
            .collect()
    }
}

/// Removes a file or a folder.
pub(crate) fn discard(path: &Path) {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "could not remove");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_becomes_a_folder_and_anything_else_does_not() {
        let builds = Builds { folder: "/b".into() };
        let path = builds.path("app", "2024-01-01T10:00:00.000Z");
        assert_eq!(path, Some(PathBuf::from("/b/app@2024-01-01T10-00-00.000Z")));
        for wrong in ["", "../x", "a/b", "a\0", "a b", "é"] {
            assert_eq!(builds.path("app", wrong), None, "{wrong}");
        }
    }

    #[test]
    fn old_builds_go_and_those_of_other_services_stay() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["app@1", "app@2", "app@3", "app2@1", ".incoming-x"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join(".incoming-y.tgz"), "x").unwrap();
        let builds = Builds::open(folder.path().to_owned());
        builds.prune("app", &[folder.path().join("app@2")]);
        let mut names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["app2@1", "app@2"]);
    }
}
