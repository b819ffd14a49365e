//! What the handlers of a node share.

use crate::bus::handle::Bus;
use crate::bus::xbus::client::XbusClient;

/// What the handlers of a node share.
#[derive(Debug)]
pub struct XbusShared {
    /// The state, and the way to change it.
    pub client: XbusClient,
}

impl XbusShared {
    /// Of this bus.
    #[must_use]
    pub const fn new(bus: Bus) -> Self {
        Self { client: XbusClient::new(bus) }
    }
}
