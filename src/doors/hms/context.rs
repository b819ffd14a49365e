//! What all connections of the door share.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use super::settings::Settings;
use crate::bus::access::Access;
use crate::bus::docks::hub::DockHub;
use crate::bus::roll::services::Services;

/// What all connections of the door share.
#[derive(Debug)]
pub(super) struct DoorContext {
    pub(super) settings: Settings,
    /// The access of nobody.
    pub(super) access: Access,
    pub(super) services: Services,
    pub(super) docks: DockHub,
    /// The number of the next connection.
    pub(super) next: AtomicU64,
    /// Connections that are there.
    pub(super) count: AtomicUsize,
    /// Nobody new comes in.
    pub(super) draining: AtomicBool,
}
