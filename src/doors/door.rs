//! What a door is to the rest of the node: settings, a way in for clients, an orderly end.
//!
//! Knows no protocol. May import `bus` and `net`. Invariant: whatever differs between protocols is asked through these
//! traits, so that nothing outside a door's folder names the door, but for the list in [`super`].

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use actix_web::web;
use rollbook_cluster::live::Live;

use crate::base::checks::Checks;
use crate::bus::access::Access;
use crate::bus::roll::services::Services;
use crate::net::listen::Listen;
use crate::net::listener::listeners::Listeners;

/// A protocol by which clients come in.
///
/// A door is started in this order: [`DoorSettings::listener`] is bound before anything of the node is opened, the door
/// is built from its settings and a [`Context`], [`Door::routes`] is called on every thread of the web listener, and
/// [`Door::listen`] once.
pub trait Door: Debug + Send + Sync {
    /// Name of the section of its settings, of its listener and of its samples in the metrics.
    fn name(&self) -> &'static str;

    /// What the door speaks, for people.
    fn describe(&self) -> Description;

    /// Puts the door onto the listener that doors over HTTP share with REST.
    fn routes(self: Arc<Self>, _services: &mut web::ServiceConfig) {}

    /// Opens the listener of the door, when it has one and the settings do not close it.
    ///
    /// # Errors
    /// The socket cannot be used.
    fn listen(self: Arc<Self>, _listeners: &mut Listeners) -> anyhow::Result<()> {
        Ok(())
    }

    /// Takes what the same door of other nodes sends; `None`: its nodes have nothing to say to each other.
    fn live(&self) -> Option<Arc<dyn Live>> {
        None
    }

    /// Lets nobody new in from now on: the node stops. Those who are there are told by the bus; streams end, and
    /// requests in flight are waited for by the listener.
    fn drain(&self) {}

    /// How many clients are connected that may have more to end than streams and requests.
    fn connections(&self) -> usize {
        0
    }

    /// How long a node that stops waits for those clients.
    fn drain_timeout(&self) -> Duration {
        Duration::ZERO
    }
}

/// What a door speaks, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Description {
    /// The protocol, as its users call it.
    pub protocol: &'static str,
    /// The path on the web listener, when the door is there.
    pub path: Option<&'static str>,
    /// Who comes in here, in one sentence.
    pub purpose: &'static str,
}

/// What a door is built with, beside its settings.
#[derive(Debug, Clone)]
pub struct Context {
    /// Publish, subscribe and acknowledge.
    pub access: Access,
    /// The roll and requests between services.
    pub services: Services,
    /// Most bytes of one message that any door takes.
    pub message_bytes_max: usize,
}

/// How a door is built.
pub type Build = fn(&Context) -> Arc<dyn Door>;

/// A listener that a door has for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwnListener {
    /// Key of the setting, for messages.
    pub key: &'static str,
    /// Flag of `rollbook serve` that sets it, when there is one.
    pub flag: Option<&'static str>,
    /// Where it listens.
    pub listen: Listen,
}

/// A bound on the number of connections, which is lowered at the start when the system allows too few open files.
#[derive(Debug)]
pub struct ConnectionBound<'a> {
    /// Key of the setting.
    pub key: &'static str,
    /// Its value.
    pub max: &'a mut usize,
    /// Open files of each.
    pub files: usize,
    /// Connections of each that the listener counts; a connection that carries a stream or a WebSocket is counted by
    /// its door alone.
    pub counted: usize,
}

/// The section of a door in the configuration.
pub trait DoorSettings {
    /// Finds what is wrong although each value by itself is fine.
    fn check(&self, checks: &mut Checks);

    /// The listener that the door has for itself; `None`: it is on the web listener.
    fn listener(&self) -> Option<OwnListener> {
        None
    }

    /// Most bytes of one message, with the key of the setting.
    fn message_bytes_max(&self) -> (&'static str, usize);

    /// The bounds on the number of its connections.
    fn connection_bounds(&mut self) -> Vec<ConnectionBound<'_>>;
}

/// Largest message of a client that can be configured, in bytes: it must fit into one message between nodes.
const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Checks the bounds that doors for sockets have: of a message, of what waits for a client, of clients, with the keys of
/// their settings.
pub fn check_socket_bounds(checks: &mut Checks, bounds: [(&'static str, usize); 3]) {
    let [(message_key, message), (queue_key, queue), (connections_key, connections)] = bounds;
    let fits = format!("1 to {MESSAGE_BYTES_MAX}: a message must fit into one message between nodes");
    checks.require((1..=MESSAGE_BYTES_MAX).contains(&message), message_key, fits);
    checks.require(queue >= message, queue_key, format!("must be at least {message_key}"));
    checks.require(connections > 0, connections_key, "must be more than 0");
}
