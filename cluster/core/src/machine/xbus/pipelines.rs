//! Versions of pipelines are saved, activated and deleted.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use prost::Message as _;

use super::keys::PIPELINE;
use super::state::bytes_of;
use crate::error::{Refusal, check_revision};
use crate::machine::Machine;
use crate::rows::{Family, Writes};
use crate::xbus::change::{PipelineSave, PipelineStatusSet};
use crate::xbus::done::{PipelineDone, XbusDone};
use crate::xbus::id::Id;
use crate::xbus::limits::{PIPELINES_BYTES_MAX, PIPELINES_MAX};
use crate::xbus::pipeline::graph::Graph;
use crate::xbus::pipeline::version::{PipelineRow, PipelineStatus, VersionError};

/// What is wrong with a version, for people.
fn faults(row: &PipelineRow) -> Vec<String> {
    let parsed = Graph::parse(&row.document);
    parsed.err().into_iter().flatten().map(|fault| fault.to_string()).collect()
}

fn refused(error: &VersionError) -> Refusal {
    let text = match error {
        VersionError::Faults(faults) => {
            let texts: Vec<String> = faults.iter().take(4).map(ToString::to_string).collect();
            format!("the pipeline has faults: {}", texts.join("; "))
        }
        other => other.to_string(),
    };
    Refusal::Xbus(text)
}

impl Machine {
    fn pipeline_row(&self, id: &[u8]) -> Result<PipelineRow, Refusal> {
        let row = Id::from_slice(id).ok().and_then(|id| self.xbus.pipeline(id));
        row.map(|pipeline| pipeline.row.clone()).ok_or_else(|| Refusal::XbusNotFound("version of a pipeline".into()))
    }

    fn save_pipeline(&mut self, row: PipelineRow, writes: &mut Writes) {
        writes.put(Family::Meta, [PIPELINE, &row.id].concat(), row.encode_to_vec());
        self.xbus.put_pipeline(row);
    }

    pub(super) fn pipeline_save(
        &mut self,
        save: PipelineSave,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<XbusDone, Refusal> {
        let present = self.xbus.pipeline_named(&save.name, &save.version).map(|pipeline| pipeline.row.clone());
        check_revision(if_revision, present.as_ref().map_or(0, |row| row.revision))?;
        let id = Id::from_slice(&save.id).map_err(|_| Refusal::Malformed("id of a pipeline".into()))?;
        if present.is_none() {
            if self.xbus.pipeline(id).is_some() {
                return Err(Refusal::Malformed("a pipeline has that id".into()));
            }
            if self.xbus.pipelines.size() >= PIPELINES_MAX {
                return Err(Refusal::Overloaded(format!("at most {PIPELINES_MAX} versions of pipelines")));
            }
        }
        let before = present.as_ref().map_or(0, bytes_of);
        let PipelineSave { id, name, version, source, document } = save;
        let saved = PipelineRow { id, name, version, source, document, ..PipelineRow::default() };
        let bytes = self.xbus.pipeline_bytes.saturating_sub(before).saturating_add(bytes_of(&saved));
        if bytes > PIPELINES_BYTES_MAX {
            return Err(Refusal::Overloaded(format!("all pipelines have at most {PIPELINES_BYTES_MAX} bytes")));
        }
        let row = PipelineRow::save(present.as_ref(), saved, self.millis).map_err(|error| refused(&error))?;
        let faults = faults(&row);
        self.save_pipeline(row.clone(), writes);
        self.xbus_changed(writes);
        Ok(XbusDone::pipeline(PipelineDone { row, faults }))
    }

    pub(super) fn pipeline_status(
        &mut self,
        set: &PipelineStatusSet,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<XbusDone, Refusal> {
        let mut row = self.pipeline_row(&set.id)?;
        check_revision(if_revision, row.revision)?;
        let status = PipelineStatus::try_from(set.status).map_err(|_| Refusal::Malformed("status".into()))?;
        let change = row.change_status(status, self.millis).map_err(|error| refused(&error))?;
        if change.changed {
            let other = self.xbus.active.get(&row.name).copied().filter(|_| change.others_end);
            if let Some(mut other) = other.and_then(|id| self.xbus.pipeline(id)).map(|other| other.row.clone())
                && other.superseded(self.millis)
            {
                self.save_pipeline(other, writes);
            }
            self.save_pipeline(row.clone(), writes);
            self.xbus_changed(writes);
        }
        Ok(XbusDone::pipeline(PipelineDone { row, faults: Vec::new() }))
    }

    pub(super) fn pipeline_delete(
        &mut self,
        id: &[u8],
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<XbusDone, Refusal> {
        let row = self.pipeline_row(id)?;
        check_revision(if_revision, row.revision)?;
        if row.status() == PipelineStatus::Active {
            return Err(Refusal::Xbus("the version is active; make it inactive first".into()));
        }
        if self.xbus.processes.values().any(|process| process.pipeline == row.id) {
            return Err(Refusal::Xbus("a process goes along the version".into()));
        }
        self.xbus.remove_pipeline(Id::from_slice(&row.id).unwrap_or_default());
        writes.delete(Family::Meta, [PIPELINE, &row.id].concat());
        self.xbus_changed(writes);
        Ok(XbusDone::pipeline(PipelineDone { row, faults: Vec::new() }))
    }
}
