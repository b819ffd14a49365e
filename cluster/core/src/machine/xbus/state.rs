//! Accounts, actors, pipelines, envelopes that are coming and processes that go on, in memory.

use alloc::string::{String, ToString as _};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Bound;

use prost::Message as _;

use super::index::Index;
use super::keys::{self, ACCOUNT, ACTOR, Kind, LOGS, PIPELINE, REVISION, SCHEMA};
use super::waiting::Waiting;
use crate::node::Owner;
use crate::persistent::{Map, Set};
use crate::rows::{Row, RowsError};
use crate::xbus::account::row::{AccountRow, AccountStatus, ActorRow, ActorStatus};
use crate::xbus::envelope::row::{EnvelopeRow, EnvelopeStatus};
use crate::xbus::id::Id;
use crate::xbus::pipeline::graph::{Graph, Node};
use crate::xbus::pipeline::version::{PipelineRow, PipelineStatus};
use crate::xbus::process::event::Actors;
use crate::xbus::process::row::{JobState, ProcessRow};
use crate::xbus::schema::SchemaRow;

/// A version of a pipeline, with its graph when it has no faults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// The version.
    pub row: PipelineRow,
    /// Its graph; none when the text has faults.
    pub graph: Option<Graph>,
}

/// The state of Xbus.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Xbus {
    /// Counts the changes of accounts, actors, pipelines and schemas, for caches beside the machine.
    pub(super) revision: u64,
    pub(super) accounts: Map<Id, Arc<AccountRow>>,
    pub(super) account_names: Map<String, Id>,
    pub(super) actors: Map<Id, Arc<ActorRow>>,
    pub(super) actor_names: Map<String, Id>,
    /// Account and actor.
    pub(super) owned: Set<(Id, Id)>,
    /// Bytes of the rows of all accounts and actors.
    pub(super) account_bytes: usize,
    pub(super) pipelines: Map<Id, Arc<Pipeline>>,
    /// By name and version.
    pub(super) versions: Map<(String, String), Id>,
    /// The active version of each pipeline that has one, by name.
    pub(super) active: Map<String, Id>,
    /// Bytes of all texts of pipelines, and of what these say.
    pub(super) pipeline_bytes: usize,
    /// Schemas by the type of their events.
    pub(super) schemas: Map<String, Arc<SchemaRow>>,
    /// Bytes of the rows of all schemas.
    pub(super) schema_bytes: usize,
    /// Envelopes that are coming.
    pub(super) envelopes: Map<Id, EnvelopeRow>,
    /// Those by the time of their newest fragment.
    pub(super) touched: Set<(u64, Id)>,
    /// Processes that go on, and those in error of which an actor still has a job.
    pub(super) processes: Map<Id, Arc<ProcessRow>>,
    /// About the bytes of these.
    pub(super) process_bytes: usize,
    pub(super) index: Index,
    /// Counts the log entries, so that no two have one key.
    pub(super) logs: u64,
}

impl Xbus {
    /// The state with these rows, for tests of those who read it.
    #[doc(hidden)]
    #[must_use]
    pub fn with_rows(
        accounts: impl IntoIterator<Item = AccountRow>,
        actors: impl IntoIterator<Item = ActorRow>,
    ) -> Self {
        let mut state = Self::default();
        accounts.into_iter().for_each(|row| state.put_account(row));
        actors.into_iter().for_each(|row| state.put_actor(row));
        state
    }

    /// Counts the changes of accounts, actors, pipelines and schemas.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// An account.
    #[must_use]
    pub fn account(&self, id: Id) -> Option<&AccountRow> {
        self.accounts.get(&id).map(|row| &**row)
    }

    /// The account of a name.
    #[must_use]
    pub fn account_named(&self, name: &str) -> Option<&AccountRow> {
        self.account(*self.account_names.get(name)?)
    }

    /// All accounts, by name.
    pub fn accounts(&self) -> impl Iterator<Item = &AccountRow> {
        self.account_names.values().filter_map(|id| self.account(*id))
    }

    /// An actor.
    #[must_use]
    pub fn actor(&self, id: Id) -> Option<&ActorRow> {
        self.actors.get(&id).map(|row| &**row)
    }

    /// The actor of a name.
    #[must_use]
    pub fn actor_named(&self, name: &str) -> Option<&ActorRow> {
        self.actor(*self.actor_names.get(name)?)
    }

    /// All actors, by name.
    pub fn actors(&self) -> impl Iterator<Item = &ActorRow> {
        self.actor_names.values().filter_map(|id| self.actor(*id))
    }

    /// The actors behind a name, by name.
    pub fn actors_after(&self, name: &str) -> impl Iterator<Item = &ActorRow> {
        let from = (Bound::Excluded(name), Bound::Unbounded);
        self.actor_names.range::<str, _>(from).filter_map(|(_, id)| self.actor(*id))
    }

    /// The actors of an account.
    pub fn actors_of(&self, account: Id) -> impl Iterator<Item = &ActorRow> {
        let of = self.owned.range((account, Id::default())..).take_while(move |(owner, _)| *owner == account);
        of.filter_map(|(_, actor)| self.actor(*actor))
    }

    /// Whether the actor and its account are enabled.
    #[must_use]
    pub fn is_enabled(&self, actor: &ActorRow) -> bool {
        let account = Id::from_slice(&actor.account).ok().and_then(|id| self.account(id));
        actor.status() == ActorStatus::Enabled
            && account.is_some_and(|account| account.status() == AccountStatus::Enabled)
    }

    /// A version of a pipeline.
    #[must_use]
    pub fn pipeline(&self, id: Id) -> Option<&Arc<Pipeline>> {
        self.pipelines.get(&id)
    }

    /// The version of a pipeline of this name.
    #[must_use]
    pub fn pipeline_named(&self, name: &str, version: &str) -> Option<&Arc<Pipeline>> {
        self.pipeline(*self.versions.get(&(name.to_string(), version.to_string()))?)
    }

    /// All versions, by name and version.
    pub fn pipelines(&self) -> impl Iterator<Item = &Arc<Pipeline>> {
        self.versions.values().filter_map(|id| self.pipeline(*id))
    }

    /// The active versions, by name.
    pub fn active_pipelines(&self) -> impl Iterator<Item = &Arc<Pipeline>> {
        self.active.values().filter_map(|id| self.pipeline(*id))
    }

    /// An envelope that is coming.
    #[must_use]
    pub fn open_envelope(&self, id: Id) -> Option<&EnvelopeRow> {
        self.envelopes.get(&id)
    }

    /// The envelopes that are coming, those without a new fragment for the longest time first.
    pub fn open_envelopes(&self) -> impl Iterator<Item = &EnvelopeRow> {
        self.touched.iter().filter_map(|(_, id)| self.envelopes.get(id))
    }

    /// When the next envelope is stalled, or given up after `retention_ms`; milliseconds since 1970.
    #[must_use]
    pub fn next_stalled(&self, stall_ms: u64, retention_ms: u64) -> Option<u64> {
        let due = |row: &EnvelopeRow| match row.status() {
            EnvelopeStatus::Stalled => row.touched.saturating_add(retention_ms),
            _ => row.touched.saturating_add(stall_ms),
        };
        // The oldest ones are stalled already: they come first, and the first one that is not follows them.
        self.open_envelopes().map(due).min()
    }

    /// A process that goes on.
    #[must_use]
    pub fn open_process(&self, id: Id) -> Option<&Arc<ProcessRow>> {
        self.processes.get(&id)
    }

    /// The processes that go on.
    pub fn open_processes(&self) -> impl Iterator<Item = &Arc<ProcessRow>> {
        self.processes.values()
    }

    /// How many processes go on.
    #[must_use]
    pub fn open_processes_count(&self) -> usize {
        self.processes.size()
    }

    /// About the bytes of the processes that go on.
    #[must_use]
    pub const fn open_processes_bytes(&self) -> usize {
        self.process_bytes
    }

    /// How many jobs wait for an actor.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.index.waiting.size()
    }

    /// The jobs of a node of a version of a pipeline that wait for any actor, or for this one; oldest first.
    pub fn waiting(&self, pipeline: Id, node: u32, actor: Id) -> impl Iterator<Item = &Waiting> {
        let from = Waiting { pipeline, node, actor, since: 0, process: Id::default() };
        let same = move |job: &&Waiting| (job.pipeline, job.node, job.actor) == (pipeline, node, actor);
        self.index.waiting.range(from..).take_while(same)
    }

    /// Which nodes of which pipelines have jobs that wait: version, node and actor, the actor all zero for any.
    pub fn waiting_nodes(&self) -> impl Iterator<Item = (Id, u32, Id)> {
        let mut next = self.index.waiting.first();
        core::iter::from_fn(move || {
            let job = next?;
            let behind = Waiting { since: u64::MAX, process: Id::new([0xff; 16]), ..*job };
            next = self.index.waiting.range((Bound::Excluded(behind), Bound::Unbounded)).next();
            Some((job.pipeline, job.node, job.actor))
        })
    }

    /// How many jobs an actor has.
    #[must_use]
    pub fn load(&self, actor: Id) -> u32 {
        self.index.load.get(&actor).copied().unwrap_or_default()
    }

    /// The processes of which an actor has a job, or for which one waits that is for it alone.
    pub fn processes_of(&self, actor: Id) -> impl Iterator<Item = Id> {
        let of = self.index.concerned.range((actor, Id::default())..).take_while(move |(of, _)| *of == actor);
        of.map(|(_, process)| *process)
    }

    /// The actors that some process concerns.
    pub fn concerned(&self) -> impl Iterator<Item = Id> {
        let mut next = self.index.concerned.first();
        core::iter::from_fn(move || {
            let (actor, _) = *next?;
            let behind = (actor, Id::new([0xff; 16]));
            next = self.index.concerned.range((Bound::Excluded(behind), Bound::Unbounded)).next();
            Some(actor)
        })
    }

    /// The jobs that actors have which are connected to this life of a node: process and actor.
    pub fn served_by(&self, owner: Owner) -> impl Iterator<Item = (Id, Id)> {
        let of = move |key: &&(Owner, Id, Id)| key.0 == owner;
        let served = self.index.served.range((owner, Id::default(), Id::default())..).take_while(of);
        served.map(|(_, process, actor)| (*process, *actor))
    }

    /// The processes of which an actor that is away has a job without a stream.
    pub fn detached_of(&self, actor: Id) -> impl Iterator<Item = Id> {
        let detached = move |id: &Id| {
            let nodes = self.processes.get(id).into_iter().flat_map(|row| &row.nodes);
            let mut jobs = nodes.flat_map(|node| &node.jobs);
            jobs.any(|job| job.actor == actor.as_bytes() && job.state() == JobState::Detached)
        };
        self.processes_of(actor).filter(detached)
    }

    /// The processes with a job that is given back when this life of a node ends: not those that their actor does
    /// without a stream, and of which is noted already that the actor is away.
    pub fn losable(&self, owner: Owner) -> impl Iterator<Item = Id> {
        let loses = move |id: &Id| {
            let jobs = self.processes.get(id).into_iter().flat_map(|row| row.nodes.iter().flat_map(|node| &node.jobs));
            jobs.into_iter().any(|job| job.owner == Some(owner) && job.state().is_live() && job.away_since == 0)
        };
        let mut last = None;
        let once = move |id: &Id| last.replace(*id) != Some(*id);
        self.served_by(owner).map(|(process, _)| process).filter(once).filter(loses)
    }

    /// The lives of nodes to which an actor with a job is connected.
    pub fn serving(&self) -> impl Iterator<Item = Owner> {
        let mut next = self.index.served.first();
        core::iter::from_fn(move || {
            let (owner, ..) = *next?;
            let behind = (owner, Id::new([0xff; 16]), Id::new([0xff; 16]));
            next = self.index.served.range((Bound::Excluded(behind), Bound::Unbounded)).next();
            Some(owner)
        })
    }

    /// The processes with a node that waits for the first actor of its roles.
    pub fn without_actor(&self) -> impl Iterator<Item = Id> {
        self.index.without_actor.iter().copied()
    }

    /// Since when the longest absent actor of a detached job is away; milliseconds since 1970.
    #[must_use]
    pub fn away_since(&self) -> Option<u64> {
        self.index.away.first().map(|(since, _)| *since)
    }

    /// The lowest sequence number in the book of which an envelope or a process still has need.
    #[must_use]
    pub fn pinned(&self) -> Option<u64> {
        self.index.pins.first().map(|(sequence, _)| *sequence)
    }

    /// Takes a row of [`crate::rows::Family::Meta`]. Whether it was one of Xbus.
    pub(in crate::machine) fn load_meta(&mut self, key: &[u8], value: &[u8]) -> Result<bool, RowsError> {
        let corrupt = |_| RowsError::corrupt("xbus");
        if key == REVISION {
            let bytes = value.first_chunk().ok_or_else(|| RowsError::corrupt("xbus"))?;
            self.revision = u64::from_be_bytes(*bytes);
        } else if key == LOGS {
            let bytes = value.first_chunk().ok_or_else(|| RowsError::corrupt("xbus"))?;
            self.logs = u64::from_be_bytes(*bytes);
        } else if key.starts_with(ACCOUNT) {
            self.put_account(AccountRow::decode(value).map_err(corrupt)?);
        } else if key.starts_with(ACTOR) {
            self.put_actor(ActorRow::decode(value).map_err(corrupt)?);
        } else if key.starts_with(PIPELINE) {
            self.put_pipeline(PipelineRow::decode(value).map_err(corrupt)?);
        } else if key.starts_with(SCHEMA) {
            self.put_schema(SchemaRow::decode(value).map_err(corrupt)?);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Takes the rows that are read at the start.
    pub(in crate::machine) fn load_open(&mut self, rows: &[Row]) -> Result<(), RowsError> {
        let corrupt = |_| RowsError::corrupt("xbus");
        for (key, value) in rows {
            match keys::parse_open(key).ok_or_else(|| RowsError::corrupt("xbus"))?.0 {
                Kind::ENVELOPE_OPEN => self.put_envelope(EnvelopeRow::decode(value.as_slice()).map_err(corrupt)?),
                _ => self.put_process(&Arc::new(ProcessRow::decode(value.as_slice()).map_err(corrupt)?)),
            }
        }
        Ok(())
    }

    /// Keys of [`crate::rows::Family::Ids`] between which the rows are that are read at the start.
    #[must_use]
    pub fn open_bounds() -> (Vec<u8>, Vec<u8>) {
        keys::open_bounds()
    }

    /// The ordinal of the next log entry.
    pub(super) const fn next_log(&mut self) -> u64 {
        self.logs = self.logs.saturating_add(1);
        self.logs
    }

    pub(super) fn put_account(&mut self, row: AccountRow) {
        let id = Id::from_slice(&row.id).unwrap_or_default();
        self.remove_account(id);
        self.account_bytes = self.account_bytes.saturating_add(row.encoded_len());
        self.account_names.insert_mut(row.name.clone(), id);
        self.accounts.insert_mut(id, Arc::new(row));
    }

    pub(super) fn remove_account(&mut self, id: Id) {
        let Some(was) = self.accounts.get(&id).cloned() else { return };
        self.account_bytes = self.account_bytes.saturating_sub(was.encoded_len());
        self.account_names.remove_mut(&was.name);
        self.accounts.remove_mut(&id);
    }

    pub(super) fn put_actor(&mut self, row: ActorRow) {
        let id = Id::from_slice(&row.id).unwrap_or_default();
        self.remove_actor(id);
        self.account_bytes = self.account_bytes.saturating_add(row.encoded_len());
        self.actor_names.insert_mut(row.name.clone(), id);
        self.owned.insert_mut((Id::from_slice(&row.account).unwrap_or_default(), id));
        self.actors.insert_mut(id, Arc::new(row));
    }

    pub(super) fn remove_actor(&mut self, id: Id) {
        let Some(was) = self.actors.get(&id).cloned() else { return };
        self.account_bytes = self.account_bytes.saturating_sub(was.encoded_len());
        self.actor_names.remove_mut(&was.name);
        self.owned.remove_mut(&(Id::from_slice(&was.account).unwrap_or_default(), id));
        self.actors.remove_mut(&id);
    }

    pub(super) fn put_pipeline(&mut self, row: PipelineRow) {
        let id = Id::from_slice(&row.id).unwrap_or_default();
        self.remove_pipeline(id);
        self.pipeline_bytes = self.pipeline_bytes.saturating_add(bytes_of(&row));
        self.versions.insert_mut((row.name.clone(), row.version.clone()), id);
        if row.status() == PipelineStatus::Active {
            self.active.insert_mut(row.name.clone(), id);
        }
        let graph = Graph::parse(&row.document).ok();
        self.pipelines.insert_mut(id, Arc::new(Pipeline { row, graph }));
    }

    pub(super) fn remove_pipeline(&mut self, id: Id) {
        let Some(was) = self.pipelines.get(&id).cloned() else { return };
        self.pipelines.remove_mut(&id);
        self.pipeline_bytes = self.pipeline_bytes.saturating_sub(bytes_of(&was.row));
        self.versions.remove_mut(&(was.row.name.clone(), was.row.version.clone()));
        if self.active.get(&was.row.name) == Some(&id) {
            self.active.remove_mut(&was.row.name);
        }
    }

    pub(super) fn put_envelope(&mut self, row: EnvelopeRow) {
        let id = row.id();
        self.remove_envelope(id);
        self.touched.insert_mut((row.touched, id));
        self.index.pin(row.first_sequence, id);
        self.envelopes.insert_mut(id, row);
    }

    pub(super) fn remove_envelope(&mut self, id: Id) {
        let Some(was) = self.envelopes.get(&id) else { return };
        let (touched, sequence) = (was.touched, was.first_sequence);
        self.touched.remove_mut(&(touched, id));
        self.index.unpin(sequence, id);
        self.envelopes.remove_mut(&id);
    }

    pub(super) fn put_process(&mut self, row: &Arc<ProcessRow>) {
        let id = row.id();
        let was = self.processes.get(&id).cloned();
        self.process_bytes = self.process_bytes.saturating_add(row.encoded_len());
        self.process_bytes = self.process_bytes.saturating_sub(was.as_ref().map_or(0, |was| was.encoded_len()));
        self.index.replace(was.as_deref(), Some(row));
        self.processes.insert_mut(id, Arc::clone(row));
    }

    pub(super) fn remove_process(&mut self, id: Id) {
        let Some(was) = self.processes.get(&id).cloned() else { return };
        self.process_bytes = self.process_bytes.saturating_sub(was.encoded_len());
        self.index.replace(Some(&was), None);
        self.processes.remove_mut(&id);
    }
}

/// The bytes of a version of a pipeline that count.
pub(super) fn bytes_of(row: &PipelineRow) -> usize {
    row.source.len().saturating_add(row.document.encoded_len())
}

impl Actors for Xbus {
    fn of(&self, node: &Node) -> Vec<Id> {
        let mut all: Vec<Id> = self
            .actors
            .values()
            .filter(|actor| actor.may_work(node) && self.is_enabled(actor))
            .filter_map(|actor| Id::from_slice(&actor.id).ok())
            .collect();
        all.sort_unstable();
        all
    }

    fn may_work(&self, node: &Node, actor: Id) -> bool {
        self.actor(actor).is_some_and(|actor| actor.may_work(node) && self.is_enabled(actor))
    }
}
