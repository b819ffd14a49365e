//! Schemas of types of events are set and deleted.

use alloc::format;
use alloc::string::ToString as _;
use alloc::sync::Arc;

use prost::Message as _;

use super::keys::SCHEMA;
use super::state::Xbus;
use crate::error::{Refusal, check_revision};
use crate::machine::Machine;
use crate::rows::{Family, Writes};
use crate::xbus::change::SchemaSet;
use crate::xbus::done::XbusDone;
use crate::xbus::limits::{SCHEMAS_BYTES_MAX, SCHEMAS_MAX};
use crate::xbus::schema::SchemaRow;

impl Xbus {
    /// The schema of a type of events.
    #[must_use]
    pub fn schema(&self, event_type: &str) -> Option<&Arc<SchemaRow>> {
        self.schemas.get(event_type)
    }

    /// All schemas, by the type of their events.
    pub fn schemas(&self) -> impl Iterator<Item = &Arc<SchemaRow>> {
        self.schemas.values()
    }

    pub(super) fn put_schema(&mut self, row: SchemaRow) {
        self.remove_schema(&row.event_type);
        self.schema_bytes = self.schema_bytes.saturating_add(row.encoded_len());
        self.schemas.insert_mut(row.event_type.clone(), Arc::new(row));
    }

    pub(super) fn remove_schema(&mut self, event_type: &str) {
        let Some(bytes) = self.schemas.get(event_type).map(|row| row.encoded_len()) else { return };
        self.schema_bytes = self.schema_bytes.saturating_sub(bytes);
        self.schemas.remove_mut(event_type);
    }
}

impl Machine {
    pub(super) fn schema_set(
        &mut self,
        set: SchemaSet,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<XbusDone, Refusal> {
        let present = self.xbus.schema(&set.event_type).cloned();
        check_revision(if_revision, present.as_ref().map_or(0, |row| row.revision))?;
        if present.is_none() && self.xbus.schemas.size() >= SCHEMAS_MAX {
            return Err(Refusal::Overloaded(format!("at most {SCHEMAS_MAX} schemas")));
        }
        let row = SchemaRow::set(present.as_deref(), set, self.millis).map_err(|error| {
            // The caller checks what operators write before.
            Refusal::Xbus(error.to_string())
        })?;
        let before = present.as_ref().map_or(0, |row| row.encoded_len());
        let bytes = self.xbus.schema_bytes.saturating_sub(before).saturating_add(row.encoded_len());
        if bytes > SCHEMAS_BYTES_MAX {
            return Err(Refusal::Overloaded(format!("all schemas have at most {SCHEMAS_BYTES_MAX} bytes")));
        }
        writes.put(Family::Meta, [SCHEMA, row.event_type.as_bytes()].concat(), row.encode_to_vec());
        self.xbus.put_schema(row.clone());
        self.xbus_changed(writes);
        Ok(XbusDone::schema(row))
    }

    pub(super) fn schema_delete(
        &mut self,
        event_type: &str,
        if_revision: Option<u64>,
        writes: &mut Writes,
    ) -> Result<XbusDone, Refusal> {
        let Some(present) = self.xbus.schema(event_type).cloned() else {
            return Err(Refusal::XbusNotFound(format!("schema {event_type}")));
        };
        check_revision(if_revision, present.revision)?;
        self.xbus.remove_schema(event_type);
        writes.delete(Family::Meta, [SCHEMA, event_type.as_bytes()].concat());
        self.xbus_changed(writes);
        Ok(XbusDone::schema(SchemaRow::clone(&present)))
    }
}
