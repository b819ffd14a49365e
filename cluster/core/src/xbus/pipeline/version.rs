//! Versions of a pipeline.

use alloc::string::String;

use prost::Message as _;

use super::check::Fault;
use super::document::Document;
use super::graph::Graph;
use crate::xbus::limits::{NAME_BYTES_MAX, PIPELINE_BYTES_MAX};
use alloc::vec::Vec;

/// What a version is used for. The numbers are those of the Xbus protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum PipelineStatus {
    /// Being written. It may have faults, and it may be saved again.
    Draft = 0,
    /// Envelopes go along it. Of all versions of a pipeline at most one is active.
    Active = 1,
    /// Was active. Processes that began with it go on.
    Inactive = 2,
}

/// One version of a pipeline.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct PipelineRow {
    /// The id of the version, 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub id: Vec<u8>,
    /// The name of the pipeline.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The version; unique among those of its name.
    #[prost(string, tag = "3")]
    pub version: String,
    /// What the version is used for.
    #[prost(enumeration = "PipelineStatus", tag = "4")]
    pub status: i32,
    /// The text as it was saved.
    #[prost(string, tag = "5")]
    pub source: String,
    /// What the text says.
    #[prost(message, required, tag = "6")]
    pub document: Document,
    /// When the version was saved first, milliseconds since 1970.
    #[prost(uint64, tag = "7")]
    pub created: u64,
    /// When it was saved or its status was changed last.
    #[prost(uint64, tag = "8")]
    pub changed: u64,
    /// Counts the changes of the version, so that two operators do not overwrite each other.
    #[prost(uint64, tag = "9")]
    pub revision: u64,
}

/// Why a version cannot be saved or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionError {
    /// Name or version cannot be one.
    #[error("the {0} of a pipeline is 1 to 128 bytes without control characters")]
    Name(&'static str),
    /// The text is too long.
    #[error("a pipeline has at most {PIPELINE_BYTES_MAX} bytes")]
    TooLong,
    /// The version was active once: processes rely on it.
    #[error("version {1} of pipeline {0} is no draft; save another version")]
    NoDraft(String, String),
    /// No way leads back to a draft.
    #[error("version {1} of pipeline {0} was active and cannot be a draft again")]
    BackToDraft(String, String),
    /// The pipeline has faults.
    #[error("the pipeline has faults")]
    Faults(Vec<Fault>),
}

impl PipelineRow {
    /// The row of a version that is saved: a new draft, or a draft anew. The caller gives id, revision and times.
    ///
    /// # Errors
    /// Name, version or length break a rule, or `present` is no draft.
    pub fn save(present: Option<&Self>, mut saved: Self, millis: u64) -> Result<Self, VersionError> {
        for (what, text) in [("name", &saved.name), ("version", &saved.version)] {
            if !(1..=NAME_BYTES_MAX).contains(&text.len()) || text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
                return Err(VersionError::Name(what));
            }
        }
        if saved.source.len() > PIPELINE_BYTES_MAX || saved.document.encoded_len() > PIPELINE_BYTES_MAX {
            return Err(VersionError::TooLong);
        }
        if let Some(present) = present {
            if present.status() != PipelineStatus::Draft {
                return Err(VersionError::NoDraft(saved.name, saved.version));
            }
            saved.id.clone_from(&present.id);
        }
        saved.created = present.map_or(millis, |present| present.created);
        saved.revision = present.map_or(1, |present| present.revision.saturating_add(1));
        saved.changed = millis;
        saved.set_status(PipelineStatus::Draft);
        Ok(saved)
    }

    /// Gives a version another status. The caller makes all other active versions of the name inactive when the answer
    /// says so.
    ///
    /// # Errors
    /// A version with faults cannot be active, and one that was active cannot be a draft.
    pub fn change_status(&mut self, status: PipelineStatus, millis: u64) -> Result<StatusChange, VersionError> {
        if status == self.status() {
            return Ok(StatusChange { changed: false, others_end: false });
        }
        match status {
            PipelineStatus::Draft => return Err(VersionError::BackToDraft(self.name.clone(), self.version.clone())),
            PipelineStatus::Active => drop(Graph::parse(&self.document).map_err(VersionError::Faults)?),
            PipelineStatus::Inactive => {}
        }
        self.set_status(status);
        self.changed = millis;
        self.revision = self.revision.saturating_add(1);
        Ok(StatusChange { changed: true, others_end: status == PipelineStatus::Active })
    }

    /// Makes the version inactive because another one became active. Whether that changed the row.
    pub fn superseded(&mut self, millis: u64) -> bool {
        let was = self.status() == PipelineStatus::Active;
        if was {
            self.set_status(PipelineStatus::Inactive);
            self.changed = millis;
            self.revision = self.revision.saturating_add(1);
        }
        was
    }
}

/// What [`PipelineRow::change_status`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusChange {
    /// Whether the row is another one now.
    pub changed: bool,
    /// Whether the other active version of the name must become inactive, with [`PipelineRow::superseded`].
    pub others_end: bool,
}
