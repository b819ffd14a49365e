//! What the handlers of a node share.

use crate::bus::xbus::client::XbusClient;
use crate::bus::xbus::engine::Engine;

/// What the handlers of a node share.
#[derive(Debug)]
pub struct XbusShared {
    /// The state, and the way to change it.
    pub client: XbusClient,
    /// Envelopes and processes.
    pub engine: Engine,
}

impl XbusShared {
    /// Of this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self { client: engine.flow().client().clone(), engine }
    }
}
