//! Xbus as the rules keep it: `state` in memory, `keys` of its rows, and one file for each kind of change.
//!
//! ```text
//! state      accounts, actors, pipelines; envelopes that are coming and processes that go on
//! index      which processes concern an actor, wait for one, or are served by a node
//! accounts   registrations, and what operators decide about accounts and actors
//! pipelines  versions of pipelines
//! envelopes  fragments become envelopes, and complete ones begin processes
//! processes  events of processes
//! replay     a process that has ended goes along again, as a new process
//! schemas    what items of events have to look like
//! cleaning   what becomes old is removed, in bounded steps
//! query      where the rows are that are not in memory, for readers
//! ```
//!
//! The rules of each single account, pipeline, envelope and process are in [`crate::xbus`]. This room loads their rows,
//! applies those rules, writes the rows and keeps the indexes.

mod accounts;
#[cfg(test)]
mod check;
mod cleaning;
mod envelopes;
mod index;
pub(in crate::machine) mod keys;
mod pipelines;
mod processes;
pub mod query;
mod replay;
mod schemas;
pub mod state;
pub mod waiting;

use alloc::boxed::Box;

use super::Machine;
use super::effects::Effects;
use crate::command::{Done, Reply};
use crate::error::{Refusal, check_revision};
use crate::rows::{Rows, RowsError};
use crate::xbus::change::{Change, XbusChange};
use crate::xbus::done::XbusDone;
use crate::xbus::id::Id;
use state::Xbus;

impl Machine {
    /// Accounts, actors, pipelines, envelopes and processes.
    #[must_use]
    pub const fn xbus(&self) -> &Xbus {
        &self.xbus
    }

    /// The revision of the account or actor that a change of an operator is about. The changes that are not here look at
    /// the revision themselves, or are about no row that has one.
    fn revision_before(&self, change: &Change) -> Option<u64> {
        let account = |id: &[u8]| Some(self.xbus.account(Id::from_slice(id).ok()?)?.revision);
        let actor = |id: &[u8]| Some(self.xbus.actor(Id::from_slice(id).ok()?)?.revision);
        match change {
            Change::AccountAccept(accept) => account(&accept.id),
            Change::AccountEnable(enable) => account(&enable.id),
            Change::AccountApiKey(key) => account(&key.id),
            Change::AccountDelete(id) | Change::AccountResetCertificate(id) => account(id),
            Change::ActorStatus(set) => actor(&set.id),
            Change::ActorDelete(id) => actor(id),
            _ => None,
        }
    }

    /// Applies a change of the state of Xbus.
    pub(super) fn xbus_change(
        &mut self,
        change: XbusChange,
        rows: &impl Rows,
        effects: &mut Effects<'_>,
    ) -> Result<Reply, RowsError> {
        let XbusChange { if_revision, change } = change;
        let Some(change) = change else { return Ok(Err(Refusal::Malformed("no change".into()))) };
        if let Some(present) = self.revision_before(&change)
            && let Err(refusal) = check_revision(if_revision, present)
        {
            return Ok(Err(refusal));
        }
        let writes = &mut *effects.writes;
        let done = match change {
            Change::Register(request) => self.xbus_register(&request, writes),
            Change::AccountAccept(accept) => self.account_accept(accept, writes),
            Change::AccountEnable(enable) => self.account_enable(&enable, writes),
            Change::AccountDelete(id) => self.account_delete(&id, writes),
            Change::AccountResetCertificate(id) => self.account_reset(&id, writes),
            Change::AccountApiKey(key) => self.account_api_key(key, writes),
            Change::ActorSet(set) => self.actor_set(&set, if_revision, writes),
            Change::ActorStatus(set) => self.actor_status(&set, writes),
            Change::ActorDelete(id) => self.actor_delete(&id, writes),
            Change::ActorsSeen(ids) => Ok(self.actors_seen(&ids, writes)),
            Change::PipelineSave(save) => self.pipeline_save(save, if_revision, writes),
            Change::PipelineStatus(set) => self.pipeline_status(&set, if_revision, writes),
            Change::PipelineDelete(id) => self.pipeline_delete(&id, if_revision, writes),
            Change::Fragment(received) => return self.fragment(&received, rows, writes),
            Change::EnvelopesExpire(expire) => self.envelopes_expire(expire, rows, writes)?,
            Change::EnvelopesPurge(expire) => self.envelopes_purge(expire, rows, writes)?,
            Change::Process(change) => self.process_event(&change, writes),
            Change::Processes(change) => self.processes_event(&change, writes),
            Change::ProcessesExpire(_) => Ok(self.processes_expire(writes)),
            Change::ProcessesPurge(ids) => self.processes_purge(&ids, rows, writes)?,
            Change::Log(log) => self.xbus_log(log, writes),
            Change::LogsPurge(before) => self.logs_purge(before, rows, writes)?,
            Change::Attention(attention) => self.attention(attention, rows, writes)?,
            Change::Replay(replay) => self.process_replay(&replay, rows, writes)?,
            Change::SchemaSet(set) => self.schema_set(set, if_revision, writes),
            Change::SchemaDelete(event_type) => self.schema_delete(&event_type, if_revision, writes),
        };
        Ok(done.map(|done: XbusDone| Done::Xbus(Box::new(done))))
    }
}
