//! The interface between a door and the rest of the node: settings, routes, listeners, and an orderly stop.
//!
//! Knows no protocol. May import `bus` and `net`. Invariant: the node asks everything that differs between protocols
//! through these traits, so that only the list in [`super`] names a door outside its folder.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use rollbook_cluster::live::Live;

use crate::base::checks::Checks;
use crate::bus::access::Access;
use crate::bus::docks::hub::DockHub;
use crate::bus::roll::services::Services;
use crate::bus::xbus::jobs::engine::Engine;
use crate::net::listen::Listen;
use crate::net::listener::listeners::Listeners;
use crate::net::tls::settings::ListenerTls;

/// A protocol by which clients come in.
///
/// A door is started in this order: [`DoorSettings::listener`] is bound before anything of the node is opened, the door
/// is built from its settings and a [`Context`], [`Door::routes`] is called on every thread of the web listener, and
/// [`Door::listen`] once.
pub trait Door: Debug + Send + Sync {
    /// Name of the section of its settings, of its listener and of its samples in the metrics.
    fn name(&self) -> &'static str;

    /// Describes the protocol of the door for people.
    fn describe(&self) -> Description;

    /// Adds the door to the web listener, which the doors over HTTP share with REST.
    fn routes(self: Arc<Self>, _services: &mut web::ServiceConfig) {}

    /// Opens the listener of the door, if the door has one and the settings do not turn it off.
    ///
    /// # Errors
    /// The socket cannot be used.
    fn listen(self: Arc<Self>, _listeners: &mut Listeners) -> anyhow::Result<()> {
        Ok(())
    }

    /// Handles messages of the same door on other nodes. `None` means that the door sends none.
    fn live(&self) -> Option<Arc<dyn Live>> {
        None
    }

    /// Accepts no new client from now on, because the node stops. The bus tells the connected clients, streams end,
    /// and the listener waits for requests in flight.
    fn drain(&self) {}

    /// The number of connected clients that may have more to finish than streams and requests.
    fn connections(&self) -> usize {
        0
    }

    /// How long a stopping node waits for these clients.
    fn drain_timeout(&self) -> Duration {
        Duration::ZERO
    }
}

/// The description of a door for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// Name of the protocol.
    pub protocol: &'static str,
    /// The path on the web listener, if the door is there.
    pub path: Option<&'static str>,
    /// What clients use the door for, in one sentence.
    pub purpose: &'static str,
}

/// The parts of the node that a door is built with, beside its settings.
#[derive(Debug, Clone)]
pub struct Context {
    /// Publish, subscribe and acknowledge.
    pub access: Access,
    /// The roll and requests between services.
    pub services: Services,
    /// Envelopes and processes of Xbus.
    pub xbus: Engine,
    /// Docks, and what runs on them.
    pub docks: DockHub,
    /// Most bytes of one message at any door.
    pub message_bytes_max: usize,
}

/// The function that builds a door.
pub type Build = fn(&Context) -> Arc<dyn Door>;

/// A listener of one door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnListener {
    /// Key of the setting, for messages.
    pub key: &'static str,
    /// Flag of `rollbook serve` that sets the address, if there is one.
    pub flag: Option<&'static str>,
    /// Address of the listener.
    pub listen: Listen,
    /// Key of the setting that says whether the listener speaks TLS, for messages.
    pub tls_key: &'static str,
    /// What the listener says about TLS.
    pub tls: ListenerTls,
}

/// A bound on the number of connections. The node lowers the bound at its start when the system allows too few open
/// files.
#[derive(Debug)]
pub struct ConnectionBound<'a> {
    /// Key of the setting.
    pub key: &'static str,
    /// The value of the setting.
    pub max: &'a mut usize,
    /// Open files of each connection.
    pub files: usize,
    /// Connections that the listener counts for each. A connection with a stream or a WebSocket is counted by its
    /// door alone.
    pub counted: usize,
}

/// The section of a door in the configuration.
pub trait DoorSettings {
    /// Finds errors of settings that are valid one by one.
    fn check(&self, checks: &mut Checks);

    /// The listener of the door. `None` means that the door is on the web listener.
    fn listener(&self) -> Option<OwnListener> {
        None
    }

    /// Most bytes of one message, with the key of the setting.
    fn message_bytes_max(&self) -> (&'static str, usize);

    /// The bounds on the number of connections of the door.
    fn connection_bounds(&mut self) -> Vec<ConnectionBound<'_>>;
}

/// Largest message of a client that can be configured, bytes. One message between nodes must hold it.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Checks the bounds of a door for sockets: bytes of a message, bytes that wait for a client, and clients. Each bound
/// comes with the key of its setting.
pub fn check_socket_bounds(checks: &mut Checks, bounds: [(&'static str, usize); 3]) {
    let [(message_key, message), (queue_key, queue), (connections_key, connections)] = bounds;
    let fits = format!("1 to {MESSAGE_BYTES_MAX}: a message must fit into one message between nodes");
    checks.require((1..=MESSAGE_BYTES_MAX).contains(&message), message_key, fits);
    checks.require(queue >= message, queue_key, format!("must be at least {message_key}"));
    checks.require(connections > 0, connections_key, "must be more than 0");
}
