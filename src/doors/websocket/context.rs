//! The parts of the node that all connections of the door share.

use std::sync::atomic::AtomicUsize;

use super::service_snapshot::SnapshotCache;
use super::settings::Settings;
use super::unhandled_limit::UnhandledLimit;
use crate::bus::access::Access;
use crate::bus::roll::services::Services;

/// The parts of the node that all connections of the door share.
#[derive(Debug)]
pub(super) struct ConnectionContext {
    pub(super) services: Services,
    pub(super) access: Access,
    pub(super) settings: Settings,
    pub(super) snapshots: SnapshotCache,
    pub(super) unhandled_limit: UnhandledLimit,
    pub(super) count: AtomicUsize,
}
