//! What an index row points at: records in an entry of the log, or made by the rules.

use std::ops::ControlFlow;

use openraft::impls::EntryPayload;
use rocksdb::DB;
use rollbook_core::entry::Entry;
use rollbook_core::namespace::Head;
use rollbook_core::rows::{Family, IndexRow, index_key};

use crate::error::ReadError;
use crate::log::store::LogStore;
use crate::store::layout::family;

/// Sees the number of events and their records, one behind the other.
pub(crate) type Visit<'v> = dyn FnMut(u64, &[u8]) -> Result<ControlFlow<()>, ReadError> + 'v;

/// Shows the records of a row of the state `db`, the first of which has the sequence number `first`. `false` when they
/// are not there: settled, trimmed or purged meanwhile.
pub(crate) fn visit(
    db: &DB,
    log: &LogStore,
    head: &Head,
    first: u64,
    row: &IndexRow,
    visit: &mut Visit<'_>,
) -> Result<bool, ReadError> {
    if row.made {
        return visit_made(db, head, first, row, visit);
    }
    let Some(EntryPayload::Normal(data)) = log.entry(row.entry)?.map(|entry| entry.payload) else {
        return Ok(false);
    };
    let entry = Entry::parse_trusted(&data.0).map_err(|e| ReadError(format!("entry {}: {e}", row.entry)))?;
    for publish in row.frames(&entry, &head.name) {
        if visit(u64::from(publish.events), publish.records)?.is_break() {
            break;
        }
    }
    Ok(true)
}

fn visit_made(db: &DB, head: &Head, first: u64, row: &IndexRow, visit: &mut Visit<'_>) -> Result<bool, ReadError> {
    for sequence in first..first.saturating_add(row.events) {
        let record = db.get_pinned_cf(family(db, Family::Made.name())?, index_key(head.id, sequence))?;
        let Some(record) = record else { return Ok(false) };
        if visit(1, &record)?.is_break() {
            break;
        }
    }
    Ok(true)
}
