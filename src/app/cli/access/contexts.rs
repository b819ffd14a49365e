//! The saved contexts: named clusters with their addresses and the credential of this user, in one file of the user.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Serialize};

use super::secret::Secret;
use crate::app::cli::shared::error::Usage;

/// Largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Longest name of a context in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The permissions of anybody but the owner.
const OF_OTHERS: u32 = 0o077;

/// All contexts of a user.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Contexts {
    /// Name of the context that commands use.
    pub(crate) current: Option<String>,
    /// The contexts by name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, SavedContext>,
}

/// How to reach one cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SavedContext {
    /// REST and health of a node.
    pub(crate) web_url: String,
    /// Event log of a node.
    pub(crate) log_url: String,
    /// File of the CAs that are trusted; `None` means those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// File of the client certificate.
    pub(crate) certificate: Option<PathBuf>,
    /// File of the key of that certificate.
    pub(crate) key: Option<PathBuf>,
    /// The token, until `rollbook logout`.
    pub(crate) token: Option<Secret>,
    /// When the token ends, as the node said it.
    pub(crate) expires_at: Option<String>,
}

impl Contexts {
    /// Reads the file. A file that does not exist holds no contexts.
    ///
    /// # Errors
    /// Others can read or write the file, or the file is no list of contexts. The text shows nothing of the file.
    pub(crate) fn load(path: &Path) -> anyhow::Result<Self> {
        let cannot = || format!("cannot read {}", path.display());
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(cannot),
        };
        if file.metadata().with_context(cannot)?.mode() & OF_OTHERS != 0 {
            let shown = path.display();
            bail!(Usage(format!(
                "{shown} may hold tokens, and others have rights on the file: run `chmod 600 {shown}`"
            )));
        }
        let mut text = String::new();
        file.take(FILE_BYTES_MAX).read_to_string(&mut text).with_context(cannot)?;
        toml::from_str(&text).map_err(|error| {
            // The text of the error itself would quote the line, which may be that of a token.
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count().saturating_add(1);
            Usage(format!("{}:{line}: not a list of contexts; mend the line, or remove the file", path.display()))
                .into()
        })
    }

    /// Replaces the file, which only its owner may read. A reader sees the old list or the new one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn save(&self, path: &Path) -> anyhow::Result<()> {
        let text = toml::to_string(self).context("cannot write the contexts as TOML")?;
        // A link to a file elsewhere stays a link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
        let cannot = || format!("cannot write {}", path.display());
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(cannot)?;
        }
        let new = path.with_extension(format!("{}.new", process::id()));
        let written = write_new(&new, &text).and_then(|()| fs::rename(&new, &path));
        if written.is_err() {
            // The error that is reported says more than a failed removal.
            fs::remove_file(&new).ok();
        }
        written.with_context(cannot)
    }

    /// The context of that name.
    ///
    /// # Errors
    /// There is none. The text lists the names.
    pub(crate) fn get(&self, name: &str) -> Result<&SavedContext, Usage> {
        self.contexts.get(name).ok_or_else(|| self.unknown(name))
    }

    /// The error of a name that no context has.
    pub(crate) fn unknown(&self, name: &str) -> Usage {
        let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        Usage(match &names[..] {
            [] => format!("there is no context {name}: make one with `rollbook login --name {name}`"),
            names => format!("there is no context {name}; there are {}", names.join(", ")),
        })
    }
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Checks the name of a context.
///
/// # Errors
/// The name is empty, too long, or has characters that need quotes in a shell.
pub(crate) fn check_name(name: &str) -> Result<(), Usage> {
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(fine) {
        return Ok(());
    }
    Err(Usage(format!("the name of a context has 1 to {NAME_BYTES_MAX} letters, digits, dots, dashes and underscores")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn saved() -> Contexts {
        let context = SavedContext {
            web_url: "https://bus.example:7440".to_owned(),
            log_url: "https://bus.example:2021".to_owned(),
            ca: Some(PathBuf::from("/etc/ca.pem")),
            token: Some(Secret::new("rb1_k7_s3cr3t".to_owned())),
            ..SavedContext::default()
        };
        Contexts { current: Some("prod".to_owned()), contexts: [("prod".to_owned(), context)].into() }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn contexts_are_read_as_they_were_saved_and_only_the_owner_can_read_them() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("a/rollbook/config.toml");
        assert_eq!(Contexts::load(&path).unwrap(), Contexts::default());
        for _ in 0..2 {
            saved().save(&path).unwrap();
            assert_eq!(Contexts::load(&path).unwrap(), saved());
        }
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "a file was left behind");
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_until_they_cannot() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("config.toml");
        saved().save(&path).unwrap();
        for wide in [0o640, 0o604, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(wide)).unwrap();
            let error = Contexts::load(&path).unwrap_err();
            let told = error.to_string();
            assert!(error.is::<Usage>() && told.ends_with(&format!("run `chmod 600 {}`", path.display())), "{told}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        Contexts::load(&path).unwrap();
    }

    #[test]
    fn the_error_of_a_bad_line_does_not_quote_the_line() {
        let here = tempfile::tempdir().unwrap();
        let path = here.path().join("config.toml");
        for bad in [
            "[contexts.a]\nweb_url = \"u\"\nlog_url = \"u\"\ntoken = s3cr3t\n",
            "[contexts.a]\nweb_url = \"u\"\nlog_url = \"u\"\ntokn = \"s3cr3t\"\n",
        ] {
            write_new(&path, bad).unwrap();
            let told = format!("{:#}", Contexts::load(&path).unwrap_err());
            assert!(told.contains("config.toml:4: ") && !told.contains("s3cr3t"), "{told}");
            fs::remove_file(&path).unwrap();
        }
    }

    #[test]
    fn a_link_to_the_file_stays_a_link() {
        let here = tempfile::tempdir().unwrap();
        let (link, target) = (here.path().join("config.toml"), here.path().join("elsewhere.toml"));
        Contexts::default().save(&target).unwrap();
        symlink(&target, &link).unwrap();
        saved().save(&link).unwrap();
        assert!(link.is_symlink());
        assert_eq!(Contexts::load(&target).unwrap(), saved());
    }

    #[test]
    fn a_name_that_no_context_has_is_told_with_those_that_are_there() {
        let told = saved().get("prd").unwrap_err().to_string();
        assert_eq!(told, "there is no context prd; there are prod");
        let told = Contexts::default().get("x").unwrap_err().to_string();
        assert!(told.ends_with("`rollbook login --name x`"), "{told}");
        for bad in ["", "a b", "a/b", "\u{e4}", &"a".repeat(65)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert!(check_name("prod-1.eu_west").is_ok());
    }
}
