//! What all connections of the door share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize};

use bytes::Bytes;

use super::nodes::Nodes;
use super::settings::Settings;
use super::wire::encode;
use super::wire::info::Info;
use super::xbus::service::XbusService;
use crate::bus::access::Access;
use crate::bus::live_events::LiveEvents;
use crate::bus::roll::services::Services;
use crate::bus::security::credentials::nkey;
use crate::bus::xbus::jobs::engine::Engine;
use crate::net::peer::Peer;

/// The version of nats-server whose behaviour clients may expect.
const VERSION: &str = "2.11.0";
/// The language of the server. Clients ignore what it says.
const LANGUAGE: &str = "rust";
/// The revision of the protocol: the server may send INFO again at any time.
const PROTOCOL: u8 = 1;

/// What all connections of the door share.
#[derive(Debug)]
pub(super) struct DoorContext {
    pub(super) settings: Settings,
    /// The book and the live subjects, for nobody: each connection gets its own when its client is admitted.
    pub(super) access: Access,
    pub(super) services: Services,
    /// Gives events of the book to live subscriptions.
    pub(super) events: Arc<LiveEvents>,
    /// Where other nodes can be reached.
    pub(super) nodes: Arc<Nodes>,
    /// Answers clients of Xbus.
    pub(super) xbus: XbusService,
    /// Brings jobs to actors of Xbus.
    pub(super) engine: Engine,
    /// The number of the next connection.
    pub(super) next: AtomicU64,
    /// The number of connections.
    pub(super) count: AtomicUsize,
    /// Whether the node stops.
    pub(super) draining: AtomicBool,
}

impl DoorContext {
    /// What the node says of itself to a client.
    pub(super) fn info(&self, connection: u64, peer: &Peer, tls_required: bool) -> Info {
        let node = self.services.bus.node();
        let (host, port) = self.nodes.own_host_and_port();
        Info {
            server_id: format!("rollbook-{}-{}", node.id(), node.owner().incarnation),
            server_name: format!("node-{}", node.id()),
            version: VERSION.to_owned(),
            go: LANGUAGE.to_owned(),
            host,
            port,
            proto: PROTOCOL,
            headers: true,
            max_payload: self.settings.message_bytes_max,
            client_id: connection,
            client_ip: peer.address.ip().to_string(),
            auth_required: self.auth_required(peer),
            tls_required,
            connect_urls: self.nodes.urls(),
            lame_duck: self.draining.load(std::sync::atomic::Ordering::Relaxed),
            jetstream: true,
            ..Info::default()
        }
    }

    /// What a node that stops says to a client, which should go to another node.
    pub(super) fn farewell(&self, connection: u64, peer: &Peer) -> Info {
        let connect_urls = self.nodes.others();
        Info { lame_duck: true, connect_urls, ..self.info(connection, peer, peer.tls) }
    }

    /// Whether clients from there need a credential.
    fn auth_required(&self, peer: &Peer) -> bool {
        !self.services.bus.authority().is_open_to(peer.local)
    }

    /// What a client with a key signs. None while nobody has a key.
    fn nonce(&self) -> Option<String> {
        if !self.services.bus.authority().takes_nkeys() {
            return None;
        }
        nkey::nonce().inspect_err(|error| tracing::error!(%error, "clients with an nkey cannot connect")).ok()
    }

    /// The line that a connection begins with.
    pub(super) fn greeting(&self, connection: u64, peer: &Peer, tls_required: bool) -> Bytes {
        let mut out = bytes::BytesMut::new();
        let info = Info { nonce: self.nonce(), ..self.info(connection, peer, tls_required) };
        match info.json() {
            Ok(json) => encode::info(&mut out, &json),
            Err(error) => tracing::error!(%error, "the description of the node is no JSON"),
        }
        out.freeze()
    }
}
