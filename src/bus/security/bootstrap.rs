//! The first token of a cluster, which a node writes into its data directory.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rollbook_core::security::actor::Actor;
use rollbook_core::security::change::{Bootstrap, Change};

use super::credentials::token::{MintedToken, mint};
use crate::bus::error::Fault;

/// Name of the file in the data directory.
pub const FILE: &str = "root.token";

/// A root token that is written to the disk before the cluster hears of it.
#[derive(Debug)]
pub struct RootToken {
    /// Where the token will be.
    path: PathBuf,
    minted: MintedToken,
    again: bool,
}

impl RootToken {
    /// Makes a token for the data directory. With `again` the cluster gets it although it has principals.
    ///
    /// # Errors
    /// There is no randomness.
    pub fn mint(data: &Path, again: bool) -> Result<Self, Fault> {
        let minted = mint().map_err(|error| Fault::internal(error.to_string()))?;
        Ok(Self { path: data.join(FILE), minted, again })
    }

    /// Where the token will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn unconfirmed(&self) -> PathBuf {
        self.path.with_extension("token.new")
    }

    /// Writes the token under another name, for the owner of the directory alone.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self) -> io::Result<()> {
        let path = self.unconfirmed();
        // An earlier start may have ended in between.
        if let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        writeln!(file, "{}", self.minted.text.expose())?;
        file.sync_all()
    }

    /// The change that makes the token one of `user:root`.
    #[must_use]
    pub fn change(&self) -> Change {
        let (hash, id) = (self.minted.hash.as_bytes().to_vec(), self.minted.id.as_str().to_owned());
        Change::Bootstrap(Bootstrap { hash, id, again: self.again })
    }

    /// Who has that done, for the audit.
    #[must_use]
    pub fn actor(node: u64) -> Actor {
        Actor { principal: format!("node:{node}"), door: "start".to_owned(), ..Actor::default() }
    }

    /// The cluster has taken the token: the file gets its name.
    ///
    /// # Errors
    /// The file cannot be renamed.
    pub fn confirm(&self) -> io::Result<()> {
        fs::rename(self.unconfirmed(), &self.path)
    }

    /// The cluster has not taken the token: the file is removed.
    pub fn discard(&self) {
        // A token that nobody knows is worth nothing.
        drop(fs::remove_file(self.unconfirmed()));
    }
}
