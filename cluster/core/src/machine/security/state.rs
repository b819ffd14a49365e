//! Principals, roles, credentials and issuers in memory.
//!
//! Their rows are in [`crate::rows::Family::Meta`], whose other rows no older release minds.

use alloc::format;
use alloc::string::{String, ToString as _};
use prost::Message as _;

use crate::error::Refusal;
use crate::persistent::{Map, Set};
use crate::rows::RowsError;
use crate::security::builtin::ROOT;
use crate::security::model::{Credential, Issuer, NKEY, PrincipalRow, Role};

/// Beginning of the keys of all rows of this file, and of each kind of row.
pub(super) const REVISION: &[u8] = b"security/revision";
pub(super) const PRINCIPAL: &[u8] = b"security/principal/";
pub(super) const ROLE: &[u8] = b"security/role/";
pub(super) const CREDENTIAL: &[u8] = b"security/credential/";
pub(super) const ISSUER: &[u8] = b"security/issuer/";

/// Who may do what.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Security {
    /// Counts the changes that may change what somebody may do.
    pub(super) revision: u64,
    pub(super) principals: Map<String, PrincipalRow>,
    pub(super) roles: Map<String, Role>,
    pub(super) credentials: Map<String, Credential>,
    /// Principal and id of each credential.
    pub(super) owned: Set<(String, String)>,
    pub(super) issuers: Map<String, Issuer>,
}

impl Security {
    /// The state with these rows, for tests of those who read it.
    #[doc(hidden)]
    #[must_use]
    pub fn with_rows(
        principals: impl IntoIterator<Item = PrincipalRow>,
        roles: impl IntoIterator<Item = Role>,
    ) -> Self {
        let mut state = Self::default();
        principals.into_iter().for_each(|row| state.principals.insert_mut(row.principal.clone(), row));
        roles.into_iter().for_each(|row| state.roles.insert_mut(row.name.clone(), row));
        state
    }

    /// Counts the changes that may change what somebody may do.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// A principal.
    #[must_use]
    pub fn principal(&self, principal: &str) -> Option<&PrincipalRow> {
        self.principals.get(principal)
    }

    /// All principals, by name.
    pub fn principals(&self) -> impl Iterator<Item = &PrincipalRow> {
        self.principals.values()
    }

    /// A role that is not built in.
    #[must_use]
    pub fn role(&self, name: &str) -> Option<&Role> {
        self.roles.get(name)
    }

    /// All roles that are not built in, by name.
    pub fn roles(&self) -> impl Iterator<Item = &Role> {
        self.roles.values()
    }

    /// A credential.
    #[must_use]
    pub fn credential(&self, id: &str) -> Option<&Credential> {
        self.credentials.get(id)
    }

    /// The credentials of a principal, by id.
    pub fn credentials_of<'a>(&'a self, principal: &str) -> impl Iterator<Item = &'a Credential> + use<'a> {
        let (from, of) = ((principal.to_string(), String::new()), principal.to_string());
        let owned = self.owned.range(from..).take_while(move |(owner, _)| *owner == of);
        owned.filter_map(|(_, id)| self.credentials.get(id))
    }

    /// Whether some principal has a key of NATS.
    #[must_use]
    pub fn has_nkeys(&self) -> bool {
        let first = self.credentials.range(NKEY.to_string()..).next();
        first.is_some_and(|(id, _)| id.starts_with(NKEY))
    }

    /// An issuer.
    #[must_use]
    pub fn issuer(&self, name: &str) -> Option<&Issuer> {
        self.issuers.get(name)
    }

    /// All issuers, by name.
    pub fn issuers(&self) -> impl Iterator<Item = &Issuer> {
        self.issuers.values()
    }

    /// Takes a row of [`Family::Meta`]; other rows are left alone.
    pub(in crate::machine) fn load(&mut self, key: &[u8], value: &[u8]) -> Result<(), RowsError> {
        let corrupt = |_| RowsError::corrupt("security");
        if key == REVISION {
            let bytes = value.first_chunk().ok_or_else(|| RowsError::corrupt("security"))?;
            self.revision = u64::from_be_bytes(*bytes);
        } else if key.starts_with(PRINCIPAL) {
            let row = PrincipalRow::decode(value).map_err(corrupt)?;
            self.principals.insert_mut(row.principal.clone(), row);
        } else if key.starts_with(ROLE) {
            let row = Role::decode(value).map_err(corrupt)?;
            self.roles.insert_mut(row.name.clone(), row);
        } else if key.starts_with(CREDENTIAL) {
            self.put_credential(Credential::decode(value).map_err(corrupt)?);
        } else if key.starts_with(ISSUER) {
            let row = Issuer::decode(value).map_err(corrupt)?;
            self.issuers.insert_mut(row.name.clone(), row);
        }
        Ok(())
    }

    pub(super) fn put_credential(&mut self, row: Credential) {
        self.owned.insert_mut((row.principal.clone(), row.id.clone()));
        self.credentials.insert_mut(row.id.clone(), row);
    }

    /// Whether a principal other than this one can log in and has the role `root`.
    fn has_other_root(&self, but: &str, millis: u64) -> bool {
        let can =
            |row: &&PrincipalRow| row.principal != but && !row.disabled && row.roles.iter().any(|role| role == ROOT);
        self.principals
            .values()
            .filter(can)
            .any(|row| self.credentials_of(&row.principal).any(|credential| credential.counts_at(millis)))
    }

    /// Refuses to take the last root away, by whom everything else can be mended.
    pub(super) fn keeps_a_root(&self, without: &str, millis: u64) -> Result<(), Refusal> {
        let was = self.principals.get(without).is_some_and(|row| row.roles.iter().any(|role| role == ROOT));
        if !was || self.has_other_root(without, millis) {
            return Ok(());
        }
        Err(Refusal::Security(format!(
            "{without} is the last principal with the role root and a credential; give the role to another one first"
        )))
    }
}
