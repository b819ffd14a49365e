//! Replaces the central configuration: a new revision, and the roll event with the whole document for all services.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use prost::Message as _;
use serde::Serialize;
use serde_json::value::RawValue;

use super::Machine;
use super::effects::Effects;
use crate::central::{ConfigRevision, ConfigSet, without_secrets};
use crate::command::{Done, Reply};
use crate::error::{Refusal, check_revision};
use crate::level::FeatureLevel;
use crate::limits;
use crate::rows::Family;

/// Payload of `roll.config.updated`.
#[derive(Serialize)]
struct ConfigEvent<'a> {
    revision: u64,
    config: &'a RawValue,
    #[serde(skip_serializing_if = "str::is_empty")]
    reason: &'a str,
    at: String,
}

impl Machine {
    /// The newest revision of the central configuration; revision 0 before the first change.
    #[must_use]
    pub fn config(&self) -> &ConfigRevision {
        &self.config
    }

    /// Replaces the document: checks revision, size and JSON, keeps the newest revisions, and announces the new one.
    pub(super) fn config_set(&mut self, set: ConfigSet, effects: &mut Effects<'_>) -> Reply {
        let present = self.config.revision;
        check_revision(set.if_revision, present)?;
        let wrong = |what: &str| Refusal::Malformed(format!("config: {what}"));
        if set.document.len() > limits::CONFIG_BYTES_MAX {
            return Err(wrong(&format!("at most {} bytes", limits::CONFIG_BYTES_MAX)));
        }
        if set.reason.len() > limits::FIELD_BYTES_MAX {
            return Err(wrong(&format!("reason: at most {} bytes", limits::FIELD_BYTES_MAX)));
        }
        let config: &RawValue =
            serde_json::from_slice(&set.document).map_err(|error| wrong(&format!("not JSON: {error}")))?;
        let revision = present.saturating_add(1);
        // From this level on secrets are not in the book, where whoever may read the roll would find them.
        let public = if self.level >= FeatureLevel::SECURED { without_secrets(&set.document) } else { Vec::new() };
        let config = if public.is_empty() { config } else { serde_json::from_slice(&public).unwrap_or(config) };
        let payload = ConfigEvent { revision, config, reason: &set.reason, at: self.time_text() };
        self.append_roll_event("config.updated", &payload, effects);
        let changed = ConfigRevision { revision, millis: self.millis, document: set.document, reason: set.reason };
        effects.writes.put(Family::Config, revision.to_be_bytes().into(), changed.encode_to_vec());
        if let Some(oldest) = revision.checked_sub(limits::CONFIG_REVISIONS_KEPT) {
            effects.writes.delete(Family::Config, oldest.to_be_bytes().into());
        }
        self.config = Arc::new(changed);
        Ok(Done::Config(revision))
    }
}
