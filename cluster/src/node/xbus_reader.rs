//! Reads of what Xbus keeps on the disk alone.

use std::sync::Arc;

use rollbook_core::machine::xbus::query::{self, KeyRange, LogEntry};
use rollbook_core::rows::{Family, RowsError};
use rollbook_core::xbus::change::Attention;
use rollbook_core::xbus::envelope::row::{EnvelopeRow, EventRow};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::limits::EVENTS_MAX;
use rollbook_core::xbus::process::row::ProcessRow;

use crate::error::ReadError;
use crate::state::state::State;

/// Reads envelopes and processes that have ended, events and fragments of envelopes, and log entries. All functions
/// read from the disk, so they are not for async threads.
///
/// Rows are never older than the machine that was looked at before: what a caller did not find in memory is here, or
/// nowhere.
#[derive(Clone)]
pub struct XbusReader {
    state: Arc<State>,
}

impl std::fmt::Debug for XbusReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("XbusReader").finish_non_exhaustive()
    }
}

fn damaged(error: RowsError) -> ReadError {
    ReadError(error.0)
}

impl XbusReader {
    pub(crate) const fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    fn one<T>(&self, key: &[u8], decode: fn(&[u8]) -> Result<T, RowsError>) -> Result<Option<T>, ReadError> {
        let row = self.state.row(Family::Ids, key)?;
        row.map(|row| decode(&row).map_err(damaged)).transpose()
    }

    fn some<T>(
        &self,
        range: &KeyRange,
        limit: usize,
        from_end: bool,
        decode: impl Fn(&[u8], &[u8]) -> Result<T, RowsError>,
    ) -> Result<Vec<T>, ReadError> {
        let rows = self.state.rows_between(Family::Ids, (&range.from, &range.to), limit, from_end)?;
        rows.iter().map(|(key, value)| decode(key, value).map_err(damaged)).collect()
    }

    /// A process that has ended.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn process(&self, id: Id) -> Result<Option<ProcessRow>, ReadError> {
        self.one(&query::process_key(id), query::process)
    }

    /// When processes ended and which, newest first: those that ended at `from` or later, milliseconds since 1970, and
    /// before `before`; of one time those with a lower id than that of `before`. At most `limit`.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn processes_ended(&self, from: u64, before: (u64, Id), limit: usize) -> Result<Vec<(u64, Id)>, ReadError> {
        if from > before.0 {
            return Ok(Vec::new());
        }
        self.some(&query::processes_ended(from, before), limit, true, |key, _| query::process_ended(key))
    }

    /// An envelope that is complete or in error.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn envelope(&self, id: Id) -> Result<Option<EnvelopeRow>, ReadError> {
        self.one(&query::envelope_key(id), query::envelope)
    }

    /// The events of an envelope that is coming or complete, by id.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn events(&self, envelope: Id) -> Result<Vec<EventRow>, ReadError> {
        self.some(&query::events(envelope), EVENTS_MAX, false, |_, value| query::event(value))
    }

    /// Where fragments of an envelope are in the book, in their order: number, and sequence number of the event in the
    /// namespace of Xbus. Those with this number or a larger one, at most `limit`; the first fragment has number 0.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn fragments(&self, envelope: Id, from: u32, limit: usize) -> Result<Vec<(u32, u64)>, ReadError> {
        self.some(&query::fragments(envelope, from), limit, false, query::fragment)
    }

    /// Log entries of a process or envelope, oldest first: those behind the entry of this time and ordinal, at most
    /// `limit`.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn logs(&self, about: Id, behind: Option<(u64, u64)>, limit: usize) -> Result<Vec<LogEntry>, ReadError> {
        self.some(&query::logs(about, behind), limit, false, query::log)
    }

    /// What operators make of a process; none of one that never failed.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn attention(&self, process: Id) -> Result<Option<Attention>, ReadError> {
        self.one(&query::attention_key(process), query::attention)
    }

    /// What operators make of processes that failed, by the ids of these: those behind `behind`, at most `limit`.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub fn attentions(&self, behind: Option<Id>, limit: usize) -> Result<Vec<Attention>, ReadError> {
        self.some(&query::attentions(behind), limit, false, |_, value| query::attention(value))
    }
}
