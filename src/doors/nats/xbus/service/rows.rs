//! Rows of the state as messages.

use rollbook_core::xbus::account::row::{AccountRow, ActorRow};
use rollbook_core::xbus::pipeline::version::PipelineRow;

use crate::doors::nats::xbus::proto::account::{Account, Actor};
use crate::doors::nats::xbus::proto::log::{ConfigEntry, Timestamp};
use crate::doors::nats::xbus::proto::process::PipelineInfo;

/// An account. Its API key is not known: the state has a hash of the key alone.
#[must_use]
pub fn account(row: &AccountRow) -> Account {
    Account {
        id: row.id.clone(),
        name: row.name.clone(),
        kind: row.kind,
        status: row.status,
        csr: row.csr.clone(),
        cert: row.certificate.clone(),
        api_key: String::new(),
        csr_origin: row.origin,
    }
}

/// An actor, and whether it is connected.
#[must_use]
pub fn actor(row: &ActorRow, online: bool) -> Actor {
    let entry = |entry: &rollbook_core::xbus::account::row::ConfigEntry| ConfigEntry {
        key: entry.key.clone(),
        value: entry.value.clone(),
    };
    Actor {
        id: row.id.clone(),
        name: row.name.clone(),
        kind: row.kind,
        status: row.status,
        account_id: row.account.clone(),
        roles: row.roles.clone(),
        last_seen: (row.last_seen > 0).then(|| Timestamp::from_millis(row.last_seen)),
        online,
        unresponsive: false,
        config: row.config.iter().map(entry).collect(),
    }
}

/// A version of a pipeline.
#[must_use]
pub fn pipeline(row: &PipelineRow) -> PipelineInfo {
    PipelineInfo { id: row.id.clone(), name: row.name.clone(), version: row.version.clone(), status: row.status }
}
