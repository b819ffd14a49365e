//! Accounts and actors: registered by programs, decided about by operators.
//!
//! An account is the principal `actor:NAME` of the security model, and its certificate is the credential `xbus:NAME` of
//! that principal. Both are made, shut out and removed by the same entry as the account.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use prost::Message as _;

use super::keys::{ACCOUNT, ACTOR, REVISION};
use crate::error::{Refusal, check_revision};
use crate::machine::Machine;
use crate::rows::{Family, Writes};
use crate::security::model::{Credential, PrincipalRow, Proof};
use crate::xbus::account::register::{self, ActorRequest, Registration};
use crate::xbus::account::row::{AccountRow, AccountStatus, ActorRow, ActorStatus, ConfigEntry};
use crate::xbus::change::{AccountAccept, ActorSet, ActorStatusSet, ApiKey, Enable, Ids};
use crate::xbus::done::{AccountDone, XbusDone};
use crate::xbus::id::Id;
use crate::xbus::limits::{
    ACCOUNTS_BYTES_MAX, ACCOUNTS_MAX, ACTORS_MAX, ACTORS_PER_ACCOUNT_MAX, CONFIG_BYTES_MAX, CONFIG_ENTRIES_MAX,
    FINGERPRINT_BYTES_MAX, PEM_BYTES_MAX,
};

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

/// The id of an actor. All zero is none: the indexes have that for any actor.
fn new_actor_id(id: &[u8]) -> Result<Id, Refusal> {
    let id = Id::from_slice(id).ok().filter(|id| *id != Id::default());
    id.ok_or_else(|| Refusal::Malformed("id of an actor".into()))
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

    /// Whether a row of an account or actor fits that takes the place of one of `before` bytes.
    fn check_bytes(&self, before: usize, after: usize) -> Result<(), Refusal> {
        let all = self.xbus.account_bytes.saturating_sub(before).saturating_add(after);
        if after > before && all > ACCOUNTS_BYTES_MAX {
            return Err(Refusal::Overloaded(format!(
                "all accounts and actors have at most {ACCOUNTS_BYTES_MAX} bytes"
            )));
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
        let (is_new, before) = (present.is_none(), present.as_ref().map_or(0, AccountRow::encoded_len));
        let (account, changed, answer) = register::register(present, request, self.millis);
        let rejected = answer == register::Answer::Rejected;
        // Who is not let in changes nothing, the actors included.
        let wanted = if rejected { &[][..] } else { &request.actors };
        let rows = self.registered_actors(&account, wanted)?;
        let new = rows.iter().filter(|(before, _)| *before == 0).count();
        let of = Id::from_slice(&account.id).map_or(0, |id| self.xbus.actors_of(id).count());
        self.check_room(usize::from(is_new), new, of)?;
        let bytes = |(was, now): (usize, usize), (before, row): &(usize, ActorRow)| {
            (was.saturating_add(*before), now.saturating_add(row.encoded_len()))
        };
        let (before, after) = rows.iter().fold((before, account.encoded_len()), bytes);
        self.check_bytes(before, after)?;
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

    /// The rows of the actors of a registration that change, each with the bytes of the row before; 0: a new one.
    fn registered_actors(
        &self,
        account: &AccountRow,
        wanted: &[ActorRequest],
    ) -> Result<Vec<(usize, ActorRow)>, Refusal> {
        let (mut rows, mut ids) = (Vec::new(), BTreeSet::new());
        for wanted in wanted {
            let present = self.xbus.actor_named(&wanted.name);
            if present.is_some_and(|present| present.account != account.id) {
                return Err(Refusal::Xbus(format!("actor {} belongs to another account", wanted.name)));
            }
            if present.is_none() {
                let id = new_actor_id(&wanted.id)?;
                if self.xbus.actor(id).is_some() || !ids.insert(id) {
                    return Err(Refusal::Malformed("an actor has that id".into()));
                }
            }
            let row = register::actor(present.cloned(), account, wanted);
            if present.is_none_or(|present| present.config != row.config) {
                rows.push((present.map_or(0, ActorRow::encoded_len), row));
            }
        }
        Ok(rows)
    }

    pub(super) fn account_accept(&mut self, accept: AccountAccept, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let mut row = self.account_row(&accept.id)?;
        let before = row.encoded_len();
        if !(1..=PEM_BYTES_MAX).contains(&accept.certificate.len())
            || !(1..=FINGERPRINT_BYTES_MAX).contains(&accept.fingerprint.len())
        {
            return Err(Refusal::Malformed("certificate of an account".into()));
        }
        if !row.accept(&accept.public_key, accept.certificate) {
            return Err(Refusal::Xbus(format!("account {} has another request by now", row.name)));
        }
        self.check_bytes(before, row.encoded_len())?;
        let (name, id) = (principal_of(&row.name), credential_of(&row.name));
        // All that could be refused is asked before the first row is written.
        self.check_certificate(&name, &id)?;
        if self.security.principal(&name).is_some() {
            self.principal_enable(&name, true, writes)?;
        } else {
            let (principal, description) = (name.clone(), "account of Xbus".into());
            self.principal_set(PrincipalRow { principal, description, ..PrincipalRow::default() }, None, writes)?;
        }
        let (description, proof) = ("certificate of Xbus".into(), Some(Proof::Certificate(accept.fingerprint)));
        let credential =
            Credential { id, principal: name, expires: accept.expires, description, proof, ..Credential::default() };
        self.credential_add(credential, writes)?;
        self.save_account(row.clone(), writes);
        self.xbus_rights_changed(writes);
        Ok(XbusDone::account(self.account_done(row)))
    }

    /// The credential of an account, unless somebody gave that id to another principal.
    fn certificate_of(&self, account: &AccountRow) -> Option<String> {
        let (name, id) = (principal_of(&account.name), credential_of(&account.name));
        self.security.credential(&id).is_some_and(|row| row.principal == name).then_some(id)
    }

    pub(super) fn account_enable(&mut self, enable: &Enable, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let mut row = self.account_row(&enable.id)?;
        if enable.enabled && (row.certificate.is_empty() || self.certificate_of(&row).is_none()) {
            return Err(Refusal::Xbus(format!("account {} has no certificate; accept the account", row.name)));
        }
        row.set_status(if enable.enabled { AccountStatus::Enabled } else { AccountStatus::Disabled });
        row.revision = row.revision.saturating_add(1);
        self.principal_enable(&principal_of(&row.name), enable.enabled, writes)?;
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
        self.xbus.remove_account(account);
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
        if let Some(credential) = self.certificate_of(&row) {
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
        let id = new_actor_id(&set.actor.id)?;
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
        self.check_bytes(present.map_or(0, ActorRow::encoded_len), row.encoded_len())?;
        self.save_actor(row.clone(), writes);
        self.xbus_rights_changed(writes);
        Ok(XbusDone::actors(alloc::vec![row]))
    }

    pub(super) fn actor_status(&mut self, set: &ActorStatusSet, writes: &mut Writes) -> Result<XbusDone, Refusal> {
        let mut row = self.actor_row(&set.id)?;
        let before = row.encoded_len();
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
        self.check_bytes(before, row.encoded_len())?;
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
        let Ok(id) = Id::from_slice(&row.id) else { return };
        self.xbus.remove_actor(id);
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
