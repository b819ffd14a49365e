//! Accounts and actors: registered by programs, decided about by operators.
//!
//! An account is the principal `actor:NAME` of the security model, and its certificate is the credential `xbus:NAME` of
//! that principal. Both are made, shut out and removed by the same entry as the account.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use prost::Message as _;

use super::keys::{ACCOUNT, ACTOR, REVISION};
use crate::error::Refusal;
use crate::machine::Machine;
use crate::rows::{Family, Writes};
use crate::security::model::{Credential, PrincipalRow, Proof};
use crate::xbus::account::register::{self, Registration};
use crate::xbus::account::row::{AccountRow, AccountStatus, ActorRow, ActorStatus, ConfigEntry};
use crate::xbus::change::{AccountAccept, ActorSet, ActorStatusSet, ApiKey, Enable, Ids};
use crate::xbus::done::{AccountDone, XbusDone};
use crate::xbus::id::Id;
use crate::xbus::limits::{ACCOUNTS_MAX, ACTORS_MAX, ACTORS_PER_ACCOUNT_MAX, CONFIG_BYTES_MAX, CONFIG_ENTRIES_MAX};

/// The principal of an account.
fn principal_of(name: &str) -> String {
    format!("actor:{name}")
}

/// The credential of the certificate of an account.
fn credential_of(name: &str) -> String {
    format!("xbus:{name}")
}

fn not_found(what: &str, id: &[u8]) -> Refusal {
    let id = Id::from_slice(id).map_or_else(|_| "of that id".to_string(), |id| id.to_string());
    Refusal::XbusNotFound(format!("{what} {id}"))
}

fn key(prefix: &[u8], id: &[u8]) -> Vec<u8> {
    [prefix, id].concat()
}

impl Machine {
    /// Counts a change of accounts, actors or pipelines.
    pub(super) fn xbus_changed(&mut self, writes: &mut Writes) {
        self.xbus.revision = self.xbus.revision.saturating_add(1);
        writes.put(Family::Meta, REVISION.into(), self.xbus.revision.to_be_bytes().into());
    }

    /// What somebody may do has changed, because an account or actor did.
    fn xbus_rights_changed(&mut self, writes: &mut Writes) {
        self.xbus_changed(writes);
        self.next_revision(writes);
    }

    fn save_account(&mut self, row: AccountRow, writes: &mut Writes) {
        writes.put(Family::Meta, key(ACCOUNT, &row.id), row.encode_to_vec());
        self.xbus.put_account(row);
    }

    fn save_actor(&mut self, row: ActorRow, writes: &mut Writes) {
        writes.put(Family::Meta, key(ACTOR, &row.id), row.encode_to_vec());
        self.xbus.put_actor(row);
    }

    fn account_row(&self, id: &[u8]) -> Result<AccountRow, Refusal> {
        let row = Id::from_slice(id).ok().and_then(|id| self.xbus.account(id));
        row.cloned().ok_or_else(|| not_found("account", id))
    }

    fn actor_row(&self, id: &[u8]) -> Result<ActorRow, Refusal> {
        let row = Id::from_slice(id).ok().and_then(|id| self.xbus.actor(id));
        row.cloned().ok_or_else(|| not_found("actor", id))
    }

    /// The account with its actors, as the reply has them.
    fn account_done(&self, row: AccountRow) -> AccountDone {
        let id = Id::from_slice(&row.id).unwrap_or_default();
        AccountDone { answer: 0, actors: self.xbus.actors_of(id).cloned().collect(), account: row }
    }

    /// Whether so many more accounts and actors fit.
    fn check_room(&self, accounts: usize, actors: usize, of: usize) -> Result<(), Refusal> {
        for (what, now, more, most) in [
            ("accounts", self.xbus.accounts.size(), accounts, ACCOUNTS_MAX),
            ("actors", self.xbus.actors.size(), actors, ACTORS_MAX),
            ("actors of an account", of, actors, ACTORS_PER_ACCOUNT_MAX),
        ] {
            if more > 0 && now.saturating_add(more) > most {
                return Err(Refusal::Overloaded(format!("at most {most} {what}")));
            }
        }
        Ok(())
    }

    pub(super) fn xbus_register(&mut self, request: &Registration, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        register::check(request).map_err(|error| Refusal::Xbus(error.to_string()))?;
        let present = self.xbus.account_named(&request.name).cloned();
        if present.is_none() {
            let id = Id::from_slice(&request.id).map_err(|_| Refusal::Malformed("id of an account".into()))?;
            if self.xbus.account(id).is_some() {
                return Err(Refusal::Malformed("an account has that id".into()));
            }
        }
        let is_new = present.is_none();
        let (account, changed, answer) = register::register(present, request, self.millis);
        let rejected = answer == register::Answer::Rejected;
        let known = |name: &str| self.xbus.actor_named(name);
        let mut rows = Vec::new();
        // Who is not let in changes nothing, the actors included.
        for wanted in request.actors.iter().filter(|_| !rejected) {
            let present = known(&wanted.name);
            if present.is_some_and(|present| present.account != account.id) {
                return Err(Refusal::Xbus(format!("actor {} belongs to another account", wanted.name)));
            }
            let id_of = |id: &[u8]| Id::from_slice(id).ok();
            if present.is_none() && id_of(&wanted.id).is_none_or(|id| self.xbus.actor(id).is_some()) {
                return Err(Refusal::Malformed("id of an actor".into()));
            }
            let row = register::actor(present.cloned(), &account, wanted);
            if present.is_none_or(|present| present.config != row.config) {
                rows.push((present.is_none(), row));
            }
        }
        let new = rows.iter().filter(|(new, _)| *new).count();
        let of = Id::from_slice(&account.id).map_or(0, |id| self.xbus.actors_of(id).count());
        self.check_room(usize::from(is_new), new, of)?;
        let touched = changed || !rows.is_empty();
        if changed {
            self.save_account(account.clone(), writes);
        }
        rows.into_iter().for_each(|(_, row)| self.save_actor(row, writes));
        if touched {
            self.xbus_rights_changed(writes);
        }
        let mut done = if rejected {
            AccountDone { account: AccountRow { name: account.name, ..AccountRow::default() }, ..Default::default() }
        } else {
            self.account_done(account)
        };
        done.set_answer(answer);
        Ok(XbusDone::account(done))
    }

    pub(super) fn account_accept(&mut self, accept: AccountAccept, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let mut row = self.account_row(&accept.id)?;
        if !row.accept(&accept.public_key, accept.certificate) {
            return Err(Refusal::Xbus(format!("account {} has another request by now", row.name)));
        }
        let name = principal_of(&row.name);
        let mut principal = self.security.principal(&name).cloned().unwrap_or_else(|| PrincipalRow {
            principal: name.clone(),
            description: "account of Xbus".into(),
            ..PrincipalRow::default()
        });
        principal.disabled = false;
        self.principal_set(principal, None, writes)?;
        let id = credential_of(&row.name);
        if self.security.credential(&id).is_some() {
            self.credential_delete(&id, writes)?;
        }
        let (description, proof) = ("certificate of Xbus".into(), Some(Proof::Certificate(accept.fingerprint)));
        let credential =
            Credential { id, principal: name, expires: accept.expires, description, proof, ..Credential::default() };
        self.credential_add(credential, writes)?;
        self.save_account(row.clone(), writes);
        self.xbus_rights_changed(writes);
        Ok(XbusDone::account(self.account_done(row)))
    }

    pub(super) fn account_enable(&mut self, enable: &Enable, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let mut row = self.account_row(&enable.id)?;
        if enable.enabled && row.certificate.is_empty() {
            return Err(Refusal::Xbus(format!("account {} has no certificate; accept the account", row.name)));
        }
        row.set_status(if enable.enabled { AccountStatus::Enabled } else { AccountStatus::Disabled });
        row.revision = row.revision.saturating_add(1);
        if let Some(mut principal) = self.security.principal(&principal_of(&row.name)).cloned() {
            principal.disabled = !enable.enabled;
            self.principal_set(principal, None, writes)?;
        }
        self.save_account(row.clone(), writes);
        self.xbus_rights_changed(writes);
        Ok(XbusDone::account(self.account_done(row)))
    }

    pub(super) fn account_delete(&mut self, id: &[u8], writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let row = self.account_row(id)?;
        let account = Id::from_slice(&row.id).map_err(|_| not_found("account", id))?;
        let name = principal_of(&row.name);
        if self.security.principal(&name).is_some() {
            self.principal_delete(&name, None, writes)?;
        }
        let done = self.account_done(row.clone());
        for actor in &done.actors {
            self.forget_actor(actor, writes);
        }
        self.xbus.account_names.remove_mut(&row.name);
        self.xbus.accounts.remove_mut(&account);
        writes.delete(Family::Meta, key(ACCOUNT, &row.id));
        self.xbus_rights_changed(writes);
        Ok(XbusDone::account(done))
    }

    pub(super) fn account_reset(&mut self, id: &[u8], writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let mut row = self.account_row(id)?;
        row.reset_certificate();
        if row.status() == AccountStatus::Enabled {
            row.set_status(AccountStatus::Pending);
        }
        let credential = credential_of(&row.name);
        if self.security.credential(&credential).is_some() {
            self.credential_delete(&credential, writes)?;
        }
        self.save_account(row.clone(), writes);
        self.xbus_rights_changed(writes);
        Ok(XbusDone::account(self.account_done(row)))
    }

    pub(super) fn account_api_key(&mut self, set: ApiKey, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let mut row = self.account_row(&set.id)?;
        if !set.hash.is_empty() && set.hash.len() != 32 {
            return Err(Refusal::Malformed("hash of an API key".into()));
        }
        row.api_key = set.hash;
        row.revision = row.revision.saturating_add(1);
        self.save_account(row.clone(), writes);
        self.xbus_changed(writes);
        Ok(XbusDone::account(self.account_done(row)))
    }

    pub(super) fn actor_set(
        &mut self,
        set: &ActorSet,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<XbusDone, Refusal> {
        let account = self.account_row(&set.account)?;
        register::check_actor(&set.actor).map_err(|error| Refusal::Xbus(error.to_string()))?;
        let id = Id::from_slice(&set.actor.id).map_err(|_| Refusal::Malformed("id of an actor".into()))?;
        let present = self.xbus.actor(id);
        check_revision(if_revision, present.map_or(0, |row| row.revision))?;
        if present.is_some_and(|row| row.account != account.id) {
            return Err(Refusal::Xbus("the actor belongs to another account".into()));
        }
        if self.xbus.actor_named(&set.actor.name).is_some_and(|other| other.id != set.actor.id) {
            return Err(Refusal::Xbus(format!("another actor has the name {}", set.actor.name)));
        }
        let row = match present.cloned() {
            Some(mut row) => {
                let wanted = set.actor.clone();
                (row.name, row.kind, row.roles, row.config) = (wanted.name, wanted.kind, wanted.roles, wanted.config);
                row.revision = row.revision.saturating_add(1);
                row
            }
            None => {
                let of = Id::from_slice(&account.id).map_or(0, |id| self.xbus.actors_of(id).count());
                self.check_room(0, 1, of)?;
                register::actor(None, &account, &set.actor)
            }
        };
        self.save_actor(row.clone(), writes);
        self.xbus_rights_changed(writes);
        Ok(XbusDone::actors(alloc::vec![row]))
    }

    pub(super) fn actor_status(&mut self, set: &ActorStatusSet, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let mut row = self.actor_row(&set.id)?;
        let status = ActorStatus::try_from(set.status).map_err(|_| Refusal::Malformed("status of an actor".into()))?;
        row.set_status(status);
        for ConfigEntry { key, value } in &set.config {
            row.config.retain(|entry| entry.key != *key);
            if !value.is_empty() {
                row.config.push(ConfigEntry { key: key.clone(), value: value.clone() });
            }
        }
        let bytes = |entry: &ConfigEntry| entry.key.len().saturating_add(entry.value.len());
        if row.config.len() > CONFIG_ENTRIES_MAX || row.config.iter().map(bytes).sum::<usize>() > CONFIG_BYTES_MAX {
            return Err(Refusal::Xbus("the configuration of the actor is too big".into()));
        }
        row.revision = row.revision.saturating_add(1);
        self.save_actor(row.clone(), writes);
        self.xbus_rights_changed(writes);
        Ok(XbusDone::actors(alloc::vec![row]))
    }

    pub(super) fn actor_delete(&mut self, id: &[u8], writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let row = self.actor_row(id)?;
        self.forget_actor(&row, writes);
        self.xbus_rights_changed(writes);
        Ok(XbusDone::actors(alloc::vec![row]))
    }

    fn forget_actor(&mut self, row: &ActorRow, writes: &mut Writes) {
        let (Ok(id), Ok(account)) = (Id::from_slice(&row.id), Id::from_slice(&row.account)) else { return };
        self.xbus.actor_names.remove_mut(&row.name);
        self.xbus.owned.remove_mut(&(account, id));
        self.xbus.actors.remove_mut(&id);
        writes.delete(Family::Meta, key(ACTOR, &row.id));
    }

    /// Notes that actors were seen. Ids that are gone are left out.
    pub(super) fn actors_seen(&mut self, seen: &Ids, writes: &mut Writes) -> XbusDone {
        for id in seen.ids.iter().take(crate::limits::ROLL_STEP_MAX) {
            let Ok(mut row) = self.actor_row(id) else { continue };
            row.last_seen = self.millis;
            self.save_actor(row, writes);
        }
        XbusDone::default()
    }
}

/// Checks the revision that the caller expects.
pub(super) fn check_revision(wanted: Option<u64>, present: u64) -> Result<(), Refusal> {
    match wanted.filter(|wanted| *wanted != present) {
        Some(wanted) => Err(Refusal::RevisionMismatch(format!("revision is {present}, not {wanted}"))),
        None => Ok(()),
    }
}
