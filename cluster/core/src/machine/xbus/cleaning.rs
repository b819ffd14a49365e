//! What becomes old: envelopes whose rest never came, and what nobody needs any more. Each in bounded steps.

use alloc::vec::Vec;

use prost::Message as _;

use super::keys::{self, FAMILY, Kind};
use crate::error::Refusal;
use crate::limits::ROLL_STEP_MAX;
use crate::machine::Machine;
use crate::machine::expire::Budget;
use crate::rows::{Rows, RowsError, Writes};
use crate::xbus::change::{Expire, Ids};
use crate::xbus::done::{EnvelopeStep, XbusDone};
use crate::xbus::envelope::row::{EnvelopeRow, EnvelopeStatus};
use crate::xbus::id::Id;
use crate::xbus::limits::STALL_MS;
use crate::xbus::process::event::{Event, JobName, JobOutput};
use crate::xbus::process::row::ProcessRow;

type Checked = Result<Result<XbusDone, Refusal>, RowsError>;

impl Machine {
    /// Lets time pass for the envelopes that are coming. `expire` says how long one waits for its rest.
    pub(super) fn envelopes_expire(&mut self, expire: Expire, rows: &impl Rows, writes: &mut Writes) -> Checked {
        let until = self.millis.saturating_sub(STALL_MS);
        let idle = self.xbus.touched.iter().take_while(|(touched, _)| *touched <= until);
        let due = |id: &Id| {
            let row = self.xbus.open_envelope(*id)?;
            // Those that are stalled already stay first until they are given up.
            let wait = if row.status() == EnvelopeStatus::Stalled { expire.millis } else { STALL_MS };
            (self.millis.saturating_sub(row.touched) >= wait).then(|| row.clone())
        };
        let mut due: Vec<EnvelopeRow> =
            idle.filter_map(|(_, id)| due(id)).take(ROLL_STEP_MAX.saturating_add(1)).collect();
        let mut done = XbusDone { more: due.len() > ROLL_STEP_MAX, ..XbusDone::default() };
        due.truncate(ROLL_STEP_MAX);
        let mut budget = Budget::of(self.level());
        for mut row in due {
            let process = Id::from_slice(&row.process).ok();
            if !budget.spend(process.and_then(|id| self.xbus.open_process(id)).map_or(0, |row| row.encoded_len())) {
                done.more = true;
                break;
            }
            if row.expire(expire.millis, self.millis).is_none() {
                continue;
            }
            done.envelopes.push(EnvelopeStep { id: row.id.clone(), status: row.status, new_data: false });
            if let Some(process) = process.filter(|_| row.is_final()) {
                let job = JobName { node: row.node.clone(), actor: row.actor.clone() };
                let output = JobOutput { job, output: row.output.clone(), envelope: row.id.clone() };
                done.steps.extend(self.advance(process, &Event::OutputFail(output), writes).ok());
            }
            self.save_envelope(row, rows, writes)?;
        }
        done.count = u64::try_from(done.envelopes.len()).unwrap_or(u64::MAX);
        Ok(Ok(done))
    }

    /// Removes the envelopes that ended before a time, as long as they are older than every process that goes on.
    pub(super) fn envelopes_purge(&self, before: Expire, rows: &impl Rows, writes: &mut Writes) -> Checked {
        let oldest = self.xbus.index.began.first().map_or(u64::MAX, |(began, _)| *began);
        let (from, _) = keys::bounds(Kind::ENVELOPE_ENDED, &[]);
        let to = keys::key(Kind::ENVELOPE_ENDED, &[&before.millis.min(oldest).to_be_bytes()]);
        let found = writes.scan(rows, FAMILY, &from, &to, ROLL_STEP_MAX)?;
        let count = found.len();
        for (key, _) in found {
            if let Some(id) = id_at_end(&key) {
                writes.delete(FAMILY, keys::of(Kind::ENVELOPE, id));
                for kind in [Kind::EVENT, Kind::FRAGMENT, Kind::LOG] {
                    keys::delete_all(kind, id, rows, writes)?;
                }
            }
            writes.delete(FAMILY, key);
        }
        Ok(Ok(XbusDone::count(count, count >= ROLL_STEP_MAX)))
    }

    /// Removes ended processes with their log. Those that go on, and those that are gone, are left out.
    pub(super) fn processes_purge(&self, ids: &Ids, rows: &impl Rows, writes: &mut Writes) -> Checked {
        let mut count = 0_usize;
        for id in ids.ids.iter().take(ROLL_STEP_MAX).filter_map(|id| Id::from_slice(id).ok()) {
            let key = keys::of(Kind::PROCESS, id);
            let Some(value) = writes.get(rows, FAMILY, &key)? else { continue };
            let row = ProcessRow::decode(value.as_slice()).map_err(|_| RowsError::corrupt("xbus"))?;
            writes.delete(FAMILY, key);
            writes.delete(FAMILY, keys::of(Kind::ATTENTION, id));
            let ended = keys::key(Kind::PROCESS_ENDED, &[&row.status_changed.to_be_bytes(), id.as_bytes()]);
            writes.delete(FAMILY, ended);
            keys::delete_all(Kind::LOG, id, rows, writes)?;
            count = count.saturating_add(1);
        }
        Ok(Ok(XbusDone::count(count, false)))
    }

    /// Removes the log entries before a time.
    pub(super) fn logs_purge(&self, before: Expire, rows: &impl Rows, writes: &mut Writes) -> Checked {
        let (from, _) = keys::bounds(Kind::LOG_BY_TIME, &[]);
        let to = keys::key(Kind::LOG_BY_TIME, &[&before.millis.to_be_bytes()]);
        let found = writes.scan(rows, FAMILY, &from, &to, ROLL_STEP_MAX)?;
        let count = found.len();
        for (key, _) in found {
            // Behind number and kind: time, id, ordinal. The entry itself has the id first.
            let millis = key.get(5..13);
            let (id, ordinal) = (key.get(13..29), key.get(29..));
            if let (Some(millis), Some(id), Some(ordinal)) = (millis, id, ordinal) {
                writes.delete(FAMILY, keys::key(Kind::LOG, &[id, millis, ordinal]));
            }
            writes.delete(FAMILY, key);
        }
        Ok(Ok(XbusDone::count(count, count >= ROLL_STEP_MAX)))
    }
}

/// The id behind the time in a key.
fn id_at_end(key: &[u8]) -> Option<Id> {
    Id::from_slice(key.get(13..)?).ok()
}
