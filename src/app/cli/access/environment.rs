//! What a command takes from the environment beside the variables of its flags: the token, and the place of the contexts.

use std::ffi::OsString;
use std::path::PathBuf;

use super::contexts::Contexts;
use super::secret::Secret;
use crate::app::cli::shared::error::Usage;

/// The variable that holds a token. There is no flag: every user of the machine sees the flags of a process.
pub(crate) const TOKEN_VARIABLE: &str = "ROLLBOOK_TOKEN";

/// What a command takes from the environment beside the variables of its flags.
#[derive(Debug, Clone, Default)]
pub(crate) struct Environment {
    /// The value of `ROLLBOOK_TOKEN`.
    pub(crate) token: Option<Secret>,
    /// The file of the contexts. `None` means that the user has no home.
    pub(crate) contexts: Option<PathBuf>,
}

impl Environment {
    /// The environment of this process.
    pub(crate) fn of_process() -> Self {
        let filled = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        // A token that is no text stays a token that is wrong, and not a missing one.
        let token = filled(TOKEN_VARIABLE).map(|value| Secret::new(value.to_string_lossy().into_owned()));
        Self { token, contexts: contexts_file(filled("XDG_CONFIG_HOME"), filled("HOME")) }
    }

    /// The contexts of the user.
    ///
    /// # Errors
    /// The file cannot be used, as [`Contexts::load`] says.
    pub(crate) fn contexts(&self) -> anyhow::Result<Contexts> {
        self.contexts.as_ref().map_or_else(|| Ok(Contexts::default()), |path| Contexts::load(path))
    }

    /// The file for the contexts.
    ///
    /// # Errors
    /// The user has no home.
    pub(crate) fn contexts_file(&self) -> Result<&PathBuf, Usage> {
        self.contexts
            .as_ref()
            .ok_or_else(|| Usage("there is no home for contexts: set HOME or XDG_CONFIG_HOME".to_owned()))
    }
}

fn contexts_file(config: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    // As the base directory specification says, a relative path counts as none.
    let config = config.map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = config.or_else(|| Some(PathBuf::from(home?).join(".config")))?;
    Some(folder.join("rollbook").join("config.toml"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_of_the_contexts_is_where_the_base_directories_say() {
        let path =
            |config: Option<&str>, home: Option<&str>| contexts_file(config.map(Into::into), home.map(Into::into));
        assert_eq!(path(Some("/c"), Some("/h")), Some(PathBuf::from("/c/rollbook/config.toml")));
        assert_eq!(path(Some("c"), Some("/h")), Some(PathBuf::from("/h/.config/rollbook/config.toml")));
        assert_eq!(path(None, None), None);
    }
}
