//! What the bus has to say to the task of a connection.

use actix::prelude::Recipient;
use tokio::sync::watch;

use crate::bus::client::clients::{ClientMessage, CloseReason};

/// What the bus has to say to the task of a connection.
pub(super) struct Signals {
    /// Why the connection has to end.
    pub(super) closing: watch::Receiver<Option<CloseReason>>,
    /// Moves when rights have changed.
    pub(super) rights: watch::Receiver<u64>,
    /// Where messages for the actor go.
    pub(super) to: Recipient<ClientMessage>,
}
