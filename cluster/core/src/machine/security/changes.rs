//! The changes of principals, roles, credentials and issuers: one revision counts them all.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use prost::Message as _;

use super::state::{CREDENTIAL, ISSUER, PRINCIPAL, REVISION, ROLE, Security};
use crate::command::{Done, Reply};
use crate::error::{Refusal, check_revision};
use crate::limits;
use crate::machine::Machine;
use crate::machine::effects::Effects;
use crate::rows::{Family, Writes};
use crate::security::builtin::{ROOT, is_built_in};
use crate::security::change::{Bootstrap, Change, CredentialsUsed, SecurityChange};
use crate::security::model::{Credential, Issuer, PrincipalRow, Proof, Role};
use crate::security::principal::{Kind, Principal};
use crate::security::right::Right;

fn key(prefix: &[u8], name: &str) -> Vec<u8> {
    [prefix, name.as_bytes()].concat()
}

fn not_found(what: &str, name: &str) -> Refusal {
    Refusal::SecurityNotFound(format!("{what} {name}"))
}

fn refused(text: String) -> Refusal {
    Refusal::Security(text)
}

fn check_rights(rights: &[String]) -> Result<(), Refusal> {
    if rights.len() > limits::RIGHTS_MAX {
        return Err(refused(format!("at most {} rights", limits::RIGHTS_MAX)));
    }
    rights.iter().try_for_each(|text| match text.parse::<Right>() {
        Ok(_) => Ok(()),
        Err(error) => Err(refused(format!("`{text}`: {error}"))),
    })
}

fn check_text(text: &str) -> Result<(), Refusal> {
    if text.len() > limits::TEXT_BYTES_MAX {
        return Err(refused(format!("a description has at most {} bytes", limits::TEXT_BYTES_MAX)));
    }
    Ok(())
}

/// The name of a role or issuer.
fn check_name(what: &str, name: &str) -> Result<(), Refusal> {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if (1..=limits::ROLE_NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(());
    }
    let most = limits::ROLE_NAME_BYTES_MAX;
    Err(refused(format!("the name of a {what} is 1 to {most} letters, digits, _, - or .")))
}

impl Machine {
    /// Who may do what.
    #[must_use]
    pub const fn security(&self) -> &Security {
        &self.security
    }

    /// Applies a change of the security state.
    pub(in crate::machine) fn security_change(&mut self, change: SecurityChange, effects: &mut Effects<'_>) -> Reply {
        let SecurityChange { if_revision, change } = change;
        let Some(change) = change else { return Err(Refusal::Malformed("no change".into())) };
        let writes = &mut *effects.writes;
        match change {
            Change::PrincipalSet(row) => self.principal_set(row, if_revision, writes)?,
            Change::PrincipalDelete(name) => self.principal_delete(&name, if_revision, writes)?,
            Change::RoleSet(role) => self.role_set(role, if_revision, writes)?,
            Change::RoleDelete(name) => self.role_delete(&name, if_revision, writes)?,
            Change::CredentialAdd(credential) => self.credential_add(credential, writes)?,
            Change::CredentialDelete(id) => self.credential_delete(&id, writes)?,
            Change::CredentialsUsed(used) => {
                self.credentials_used(&used, writes);
                return Ok(Done::Security(self.security.revision));
            }
            Change::IssuerSet(issuer) => self.issuer_set(issuer, if_revision, writes)?,
            Change::IssuerDelete(name) => self.issuer_delete(&name, if_revision, writes)?,
            Change::Bootstrap(bootstrap) => self.bootstrap(bootstrap, writes)?,
            Change::Audited(audited) => {
                self.append_lines(&audited, effects);
                return Ok(Done::Security(self.security.revision));
            }
        }
        Ok(Done::Security(self.security.revision))
    }

    /// Counts a change, and returns its revision.
    pub(in crate::machine) fn next_revision(&mut self, writes: &mut Writes) -> u64 {
        self.security.revision = self.security.revision.saturating_add(1);
        writes.put(Family::Meta, REVISION.into(), self.security.revision.to_be_bytes().into());
        self.security.revision
    }

    pub(in crate::machine) fn principal_set(
        &mut self,
        mut row: PrincipalRow,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<(), Refusal> {
        let principal: Principal =
            row.principal.parse().map_err(|error| refused(format!("`{}`: {error}", row.principal)))?;
        let present = self.security.principals.get(&row.principal);
        check_revision(if_revision, present.map_or(0, |present| present.revision))?;
        check_rights(&row.rights)?;
        check_text(&row.description)?;
        if row.roles.len() > limits::ROLES_PER_PRINCIPAL_MAX {
            return Err(refused(format!("at most {} roles", limits::ROLES_PER_PRINCIPAL_MAX)));
        }
        let known = |name: &&String| is_built_in(name) || self.security.roles.contains_key(*name);
        if let Some(unknown) = row.roles.iter().find(|name| !known(name)) {
            return Err(not_found("role", unknown));
        }
        if present.is_none() && self.security.principals.size() >= limits::PRINCIPALS_MAX {
            return Err(Refusal::Overloaded(format!("at most {} principals", limits::PRINCIPALS_MAX)));
        }
        let is_root = row.roles.iter().any(|role| role == ROOT);
        if principal.is_anonymous() && (is_root || row.disabled) {
            return Err(refused("anonymous cannot be root, and cannot be disabled: take its rights away".into()));
        }
        if !is_root || row.disabled {
            self.security.keeps_a_root(&row.principal, self.millis)?;
        }
        row.created = present.map_or(self.millis, |present| present.created);
        row.revision = self.next_revision(writes);
        writes.put(Family::Meta, key(PRINCIPAL, &row.principal), row.encode_to_vec());
        self.security.principals.insert_mut(row.principal.clone(), row);
        Ok(())
    }

    /// Lets a principal in or shuts it out. Nothing else of the principal is looked at, so that one whose roles are gone
    /// can be shut out too.
    pub(in crate::machine) fn principal_enable(
        &mut self,
        name: &str,
        enabled: bool,
        writes: &mut Writes,
    ) -> Result<(), Refusal> {
        let present = self.security.principals.get(name).filter(|present| present.disabled == enabled);
        let Some(mut row) = present.cloned() else { return Ok(()) };
        if !enabled {
            self.security.keeps_a_root(name, self.millis)?;
        }
        row.disabled = !enabled;
        row.revision = self.next_revision(writes);
        writes.put(Family::Meta, key(PRINCIPAL, name), row.encode_to_vec());
        self.security.principals.insert_mut(row.principal.clone(), row);
        Ok(())
    }

    /// Whether a principal can be made, if there is none of this name, and can get or replace this credential.
    pub(in crate::machine) fn check_certificate(&self, name: &str, credential: &str) -> Result<(), Refusal> {
        let present = self.security.credentials.get(credential);
        if present.is_some_and(|present| present.principal != name) {
            return Err(refused(format!("the credential {credential} belongs to another principal; revoke it")));
        }
        let counts = self.security.credentials_of(name).filter(|row| row.counts_at(self.millis));
        let count = counts.filter(|row| row.id != credential).count();
        if count >= limits::CREDENTIALS_PER_PRINCIPAL_MAX {
            let most = limits::CREDENTIALS_PER_PRINCIPAL_MAX;
            return Err(refused(format!("{name} has {most} credentials; revoke one")));
        }
        let is_new = !self.security.principals.contains_key(name);
        if is_new && self.security.principals.size() >= limits::PRINCIPALS_MAX {
            return Err(Refusal::Overloaded(format!("at most {} principals", limits::PRINCIPALS_MAX)));
        }
        Ok(())
    }

    pub(in crate::machine) fn principal_delete(
        &mut self,
        name: &str,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<(), Refusal> {
        let present = self.security.principals.get(name).ok_or_else(|| not_found("principal", name))?;
        check_revision(if_revision, present.revision)?;
        self.security.keeps_a_root(name, self.millis)?;
        let ids: Vec<String> = self.security.credentials_of(name).map(|credential| credential.id.clone()).collect();
        for id in ids {
            self.forget_credential(&id, writes);
        }
        self.security.principals.remove_mut(name);
        writes.delete(Family::Meta, key(PRINCIPAL, name));
        self.next_revision(writes);
        Ok(())
    }

    fn role_set(&mut self, mut role: Role, if_revision: Option<u64>, writes: &mut Writes) -> Result<(), Refusal> {
        check_name("role", &role.name)?;
        if is_built_in(&role.name) {
            return Err(refused(format!("the role {} is built in; make one with another name", role.name)));
        }
        let present = self.security.roles.get(&role.name);
        check_revision(if_revision, present.map_or(0, |present| present.revision))?;
        check_rights(&role.rights)?;
        check_text(&role.description)?;
        if present.is_none() && self.security.roles.size() >= limits::ROLES_MAX {
            return Err(Refusal::Overloaded(format!("at most {} roles", limits::ROLES_MAX)));
        }
        role.revision = self.next_revision(writes);
        writes.put(Family::Meta, key(ROLE, &role.name), role.encode_to_vec());
        self.security.roles.insert_mut(role.name.clone(), role);
        Ok(())
    }

    fn role_delete(&mut self, name: &str, if_revision: Option<u64>, writes: &mut Writes) -> Result<(), Refusal> {
        let present = self.security.roles.get(name).ok_or_else(|| not_found("role", name))?;
        check_revision(if_revision, present.revision)?;
        self.security.roles.remove_mut(name);
        writes.delete(Family::Meta, key(ROLE, name));
        self.next_revision(writes);
        Ok(())
    }

    pub(in crate::machine) fn credential_add(
        &mut self,
        mut row: Credential,
        writes: &mut Writes,
    ) -> Result<(), Refusal> {
        if row.proof.is_none() || row.id.is_empty() || row.encoded_len() > limits::METADATA_BYTES_MAX {
            return Err(Refusal::Malformed("credential".into()));
        }
        check_text(&row.description)?;
        let principal: Principal =
            row.principal.parse().map_err(|error| refused(format!("`{}`: {error}", row.principal)))?;
        if principal.is_anonymous() {
            return Err(refused("anonymous has no credentials".into()));
        }
        if !row.nkey_fits() {
            return Err(Refusal::Malformed("nkey: the public key of a user, U and 55 characters".into()));
        }
        if matches!(row.proof, Some(Proof::Password(_))) && principal.kind() != Kind::User {
            return Err(refused("passwords are for users; give a token to programs".into()));
        }
        if !self.security.principals.contains_key(&row.principal) {
            return Err(not_found("principal", &row.principal));
        }
        self.forget_expired(&row.principal, writes);
        let present = self.security.credentials.get(&row.id);
        if present
            .is_some_and(|present| present.principal != row.principal || matches!(row.proof, Some(Proof::Token(_))))
        {
            return Err(refused(format!("the credential {} exists", row.id)));
        }
        let count = self.security.credentials_of(&row.principal).count();
        if present.is_none() && count >= limits::CREDENTIALS_PER_PRINCIPAL_MAX {
            let most = limits::CREDENTIALS_PER_PRINCIPAL_MAX;
            return Err(refused(format!("{} has {most} credentials; revoke one", row.principal)));
        }
        (row.created, row.used) = (self.millis, 0);
        self.save_credential(row, writes);
        self.next_revision(writes);
        Ok(())
    }

    /// Removes the credentials of a principal that count no more, so that logins do not fill its share for ever.
    fn forget_expired(&mut self, principal: &str, writes: &mut Writes) {
        let millis = self.millis;
        let expired = self.security.credentials_of(principal).filter(|credential| !credential.counts_at(millis));
        let ids: Vec<String> = expired.map(|credential| credential.id.clone()).collect();
        ids.iter().for_each(|id| self.forget_credential(id, writes));
    }

    pub(in crate::machine) fn credential_delete(&mut self, id: &str, writes: &mut Writes) -> Result<(), Refusal> {
        let present = self.security.credentials.get(id).ok_or_else(|| not_found("credential", id))?;
        let owner = present.principal.clone();
        if self.security.credentials_of(&owner).count() == 1 {
            self.security.keeps_a_root(&owner, self.millis)?;
        }
        self.forget_credential(id, writes);
        self.next_revision(writes);
        Ok(())
    }

    fn save_credential(&mut self, row: Credential, writes: &mut Writes) {
        writes.put(Family::Meta, key(CREDENTIAL, &row.id), row.encode_to_vec());
        self.security.put_credential(row);
    }

    fn forget_credential(&mut self, id: &str, writes: &mut Writes) {
        if let Some(row) = self.security.credentials.get(id) {
            let owned = (row.principal.clone(), row.id.clone());
            self.security.owned.remove_mut(&owned);
            self.security.credentials.remove_mut(id);
            writes.delete(Family::Meta, key(CREDENTIAL, id));
        }
    }

    /// Notes when credentials were used. Ids that are gone are left out, and nobody's rights change.
    fn credentials_used(&mut self, used: &CredentialsUsed, writes: &mut Writes) {
        let millis = self.millis;
        for id in used.ids.iter().take(limits::CREDENTIALS_USED_MAX) {
            let Some(row) = self.security.credentials.get(id) else { continue };
            let row = Credential { used: millis, ..row.clone() };
            self.save_credential(row, writes);
        }
    }

    fn issuer_set(&mut self, mut row: Issuer, if_revision: Option<u64>, writes: &mut Writes) -> Result<(), Refusal> {
        check_name("issuer", &row.name)?;
        let present = self.security.issuers.get(&row.name);
        check_revision(if_revision, present.map_or(0, |present| present.revision))?;
        if row.encoded_len() > limits::ISSUER_BYTES_MAX {
            return Err(refused(format!("an issuer has at most {} bytes", limits::ISSUER_BYTES_MAX)));
        }
        if present.is_none() && self.security.issuers.size() >= limits::ISSUERS_MAX {
            return Err(Refusal::Overloaded(format!("at most {} issuers", limits::ISSUERS_MAX)));
        }
        row.revision = self.next_revision(writes);
        writes.put(Family::Meta, key(ISSUER, &row.name), row.encode_to_vec());
        self.security.issuers.insert_mut(row.name.clone(), row);
        Ok(())
    }

    fn issuer_delete(&mut self, name: &str, if_revision: Option<u64>, writes: &mut Writes) -> Result<(), Refusal> {
        let present = self.security.issuers.get(name).ok_or_else(|| not_found("issuer", name))?;
        check_revision(if_revision, present.revision)?;
        self.security.issuers.remove_mut(name);
        writes.delete(Family::Meta, key(ISSUER, name));
        self.next_revision(writes);
        Ok(())
    }

    /// Makes `user:root` with its first token. Only the first node that asks gets that, unless an operator asked for
    /// another token.
    fn bootstrap(&mut self, bootstrap: Bootstrap, writes: &mut Writes) -> Result<(), Refusal> {
        if self.security.revision > 0 && !bootstrap.again {
            return Err(refused("the cluster has its principals already".into()));
        }
        let principal = "user:root";
        let mut row = self.security.principals.get(principal).cloned().unwrap_or_default();
        row.principal = principal.into();
        row.disabled = false;
        if !row.roles.iter().any(|role| role == ROOT) {
            row.roles.push(ROOT.into());
        }
        self.principal_set(row, None, writes)?;
        let proof = Some(Proof::Token(bootstrap.hash));
        let description = "written by a node into its data directory".into();
        let token =
            Credential { id: bootstrap.id, principal: principal.into(), proof, description, ..Credential::default() };
        self.credential_add(token, writes)
    }
}
