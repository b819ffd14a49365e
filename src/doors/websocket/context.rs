//! The parts of the node that all connections of the door share.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::service_snapshot::SnapshotCache;
use super::settings::Settings;
use super::unhandled_limit::UnhandledLimit;
use crate::bus::access::Access;
use crate::bus::roll::services::Services;
use crate::bus::security::identity::Identity;
use crate::bus::security::usage::Place;

/// Who a client is, and its place among the connections of its principal.
pub(super) type Admitted = (Arc<Identity>, Option<Place>);

/// The parts of the node that all connections of the door share.
#[derive(Debug)]
pub(super) struct ConnectionContext {
    /// The roll, the calls and the notifications.
    pub(super) services: Services,
    /// Publish, subscribe and acknowledge.
    pub(super) access: Access,
    /// The section of the door.
    pub(super) settings: Settings,
    /// The list of services for clients that register, shared by all of them.
    pub(super) snapshots: SnapshotCache,
    /// Limits the notices of unhandled messages of all connections together.
    pub(super) unhandled_limit: UnhandledLimit,
    /// The number of connections, for the bound and for the stop of the node.
    pub(super) count: AtomicUsize,
}
