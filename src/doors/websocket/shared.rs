//! What the connections of a door share.

use std::sync::atomic::AtomicUsize;

use super::settings::Settings;
use super::snapshot::Snapshots;
use super::throttle::Throttle;
use crate::bus::access::Access;
use crate::bus::roll::services::Services;

/// What the connections of a door share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) services: Services,
    pub(super) access: Access,
    pub(super) settings: Settings,
    pub(super) snapshots: Snapshots,
    pub(super) throttle: Throttle,
    pub(super) count: AtomicUsize,
}
