//! Reads of envelopes and processes: those in memory, and those that have ended and are on the disk alone.
//!
//! Memory is looked at first, because what ended since then is on the disk. Rows are read outside the async threads.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::sync::Arc;

use rollbook_cluster::error::ReadError;
use rollbook_cluster::node::xbus_reader::XbusReader;
use rollbook_core::machine::xbus::query::LogEntry;
use rollbook_core::machine::xbus::state::Xbus;
use rollbook_core::xbus::change::Attention;
use rollbook_core::xbus::envelope::row::{EnvelopeRow, EventRow};
use rollbook_core::xbus::id::Id;
use rollbook_core::xbus::process::row::ProcessRow;

use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::filter::ProcessFilter;

/// Most processes that have ended and are looked at for one page.
const EXAMINED_MAX: usize = 10_000;
/// Processes that have ended, of one read.
const BATCH: usize = 256;

/// Where a process stands in lists, which begin with the newest change of a status: the time of the change, milliseconds
/// since 1970, and the id.
pub type ProcessAt = (u64, Id);

/// A page of processes.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct ProcessPage {
    /// The processes, those whose status changed last first. There may be fewer than wanted before the last page, when
    /// many others were looked at.
    pub items: Vec<Arc<ProcessRow>>,
    /// Where the next page begins; `None`: this is the last one.
    pub next: Option<ProcessAt>,
}

/// Where a process stands in lists.
#[must_use]
pub fn place(process: &ProcessRow) -> ProcessAt {
    (process.status_changed, process.id())
}

/// The processes in memory that fit, the `limit` newest ones of those before `before`.
fn open(xbus: &Xbus, filter: &ProcessFilter, before: ProcessAt, limit: usize) -> Vec<Arc<ProcessRow>> {
    let mut newest: BinaryHeap<Reverse<ProcessAt>> = BinaryHeap::new();
    let fitting = xbus.open_processes().filter(|process| place(process) < before && filter.fits(process));
    for process in fitting {
        newest.push(Reverse(place(process)));
        if newest.len() > limit {
            newest.pop();
        }
    }
    newest.into_iter().filter_map(|Reverse((_, id))| xbus.open_process(id).cloned()).collect()
}

/// A page of the processes that have ended and fit.
fn ended(
    reader: &XbusReader,
    filter: &ProcessFilter,
    before: ProcessAt,
    limit: usize,
) -> Result<ProcessPage, ReadError> {
    let mut page = ProcessPage::default();
    let mut before = filter.changed_to.map_or(before, |to| before.min((to, Id::default())));
    let mut examined = 0_usize;
    loop {
        let batch = reader.processes_ended(filter.changed_from, before, BATCH)?;
        let is_last = batch.len() < BATCH;
        for at in batch {
            before = at;
            examined = examined.saturating_add(1);
            // None: removed since the key was read.
            let row = reader.process(at.1)?.filter(|process| filter.fits(process));
            page.items.extend(row.map(Arc::new));
            if page.items.len() >= limit {
                page.next = Some(before);
                return Ok(page);
            }
        }
        if is_last {
            return Ok(page);
        }
        if examined >= EXAMINED_MAX {
            page.next = Some(before);
            return Ok(page);
        }
    }
}

/// Makes one page of both.
fn merge(open: Vec<Arc<ProcessRow>>, ended: ProcessPage, limit: usize) -> ProcessPage {
    let open_is_full = open.len() >= limit;
    // A process may have ended between the looks: the row on the disk is the newer one.
    let mut by_id: BTreeMap<Id, Arc<ProcessRow>> = open.into_iter().map(|row| (row.id(), row)).collect();
    by_id.extend(ended.items.into_iter().map(|row| (row.id(), row)));
    let mut items: Vec<Arc<ProcessRow>> = by_id.into_values().collect();
    items.sort_unstable_by_key(|row| Reverse(place(row)));
    // Behind the last one that was looked at on the disk, others may come first.
    items.retain(|row| ended.next.is_none_or(|looked| place(row) >= looked));
    let cut = items.len() > limit;
    items.truncate(limit);
    let last = items.last().map(|row| place(row));
    let next = if cut || (open_is_full && ended.next.is_none()) { last } else { ended.next };
    ProcessPage { items, next }
}

impl XbusClient {
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&XbusReader) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let reader = self.bus().node().state().xbus();
        self.bus().read(move || read(&reader)).await
    }

    /// A process, whether it goes on or has ended.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub async fn process(&self, id: Id) -> Result<Option<Arc<ProcessRow>>, ReadError> {
        if let Some(open) = self.look(|xbus| xbus.open_process(id).cloned()) {
            return Ok(Some(open));
        }
        self.read(move |reader| Ok(reader.process(id)?.map(Arc::new))).await
    }

    /// At most `limit` processes that fit, newest change of the status first: those behind the place `behind` of a page
    /// before, or the first ones.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub async fn processes(
        &self,
        filter: ProcessFilter,
        behind: Option<ProcessAt>,
        limit: usize,
    ) -> Result<ProcessPage, ReadError> {
        let (client, before) = (self.clone(), behind.unwrap_or((u64::MAX, Id::new([0xff; 16]))));
        let read = move |reader: &XbusReader| {
            let open = client.look(|xbus| open(xbus, &filter, before, limit));
            let ended =
                if filter.wants_ended() { ended(reader, &filter, before, limit)? } else { ProcessPage::default() };
            Ok(merge(open, ended, limit))
        };
        self.read(read).await
    }

    /// An envelope, whether it is coming or has ended.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub async fn envelope(&self, id: Id) -> Result<Option<EnvelopeRow>, ReadError> {
        if let Some(open) = self.look(|xbus| xbus.open_envelope(id).cloned()) {
            return Ok(Some(open));
        }
        self.read(move |reader| reader.envelope(id)).await
    }

    /// The events of an envelope that is coming or complete, by id.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub async fn envelope_events(&self, id: Id) -> Result<Vec<EventRow>, ReadError> {
        self.read(move |reader| reader.events(id)).await
    }

    /// Where fragments of an envelope are: number, and sequence number of the event in the namespace of Xbus. Those from
    /// number `from` on, the first one being 0; at most `limit`, in their order. An envelope in error has none.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub async fn fragments(&self, envelope: Id, from: u32, limit: usize) -> Result<Vec<(u32, u64)>, ReadError> {
        self.read(move |reader| reader.fragments(envelope, from, limit)).await
    }

    /// Log entries of a process or envelope, oldest first: those behind the entry of this time and ordinal, at most
    /// `limit`.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub async fn logs(&self, about: Id, behind: Option<(u64, u64)>, limit: usize) -> Result<Vec<LogEntry>, ReadError> {
        self.read(move |reader| reader.logs(about, behind, limit)).await
    }

    /// What operators make of a process; none of one that never failed.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub async fn attention(&self, process: Id) -> Result<Option<Attention>, ReadError> {
        self.read(move |reader| reader.attention(process)).await
    }

    /// What operators make of processes that failed, by the ids of these: those behind `behind`, at most `limit`.
    ///
    /// # Errors
    /// The store failed or is damaged.
    pub async fn attentions(&self, behind: Option<Id>, limit: usize) -> Result<Vec<Attention>, ReadError> {
        self.read(move |reader| reader.attentions(behind, limit)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(id: u8, changed: u64) -> Arc<ProcessRow> {
        Arc::new(ProcessRow { id: vec![id; 16], status_changed: changed, ..ProcessRow::default() })
    }

    fn places(page: &ProcessPage) -> Vec<u64> {
        page.items.iter().map(|row| row.status_changed).collect()
    }

    #[test]
    fn open_and_ended_processes_are_one_list_by_the_change_of_their_status() {
        let ended = ProcessPage { items: vec![process(2, 80), process(4, 60)], next: None };
        let page = merge(vec![process(1, 90), process(3, 70)], ended, 10);
        assert_eq!((places(&page), page.next), (vec![90, 80, 70, 60], None));
    }

    #[test]
    fn a_page_ends_where_processes_were_not_looked_at() {
        let next = Some((60, Id::new([4; 16])));
        let ended = || ProcessPage { items: vec![process(4, 60)], next };
        let page = merge(vec![process(1, 90), process(3, 50)], ended(), 10);
        assert_eq!((places(&page), page.next), (vec![90, 60], next), "50 comes on the next page");
        let page = merge(vec![process(1, 90), process(3, 50)], ended(), 1);
        assert_eq!((places(&page), page.next), (vec![90], Some((90, Id::new([1; 16])))));
    }

    #[test]
    fn a_process_that_ended_between_the_looks_is_there_once() {
        let ended = ProcessPage { items: vec![process(1, 95)], next: None };
        let page = merge(vec![process(1, 90)], ended, 10);
        assert_eq!(places(&page), [95]);
    }

    #[test]
    fn a_full_page_of_open_processes_has_a_next_page() {
        let page = merge(vec![process(1, 90), process(2, 80)], ProcessPage::default(), 2);
        assert_eq!(page.next, Some((80, Id::new([2; 16]))));
    }
}
