//! Where the clients of a node can reach the other nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use rollbook_cluster::live::Live;
use rollbook_cluster::lock::lock;
use rollbook_core::error::Refusal;
use tokio::sync::watch;

use super::settings::{NAME, Settings};
use crate::bus::relay::peer_client::PeerClient;

/// How often a node says where it can be reached.
const SAY: Duration = Duration::from_secs(2);
/// Longest address.
const ADDRESS_BYTES_MAX: usize = 260;

/// The addresses of the door at all nodes.
#[derive(Debug)]
pub(super) struct Nodes {
    peers: PeerClient,
    /// What the settings say.
    advertise: String,
    /// The address of the listener.
    listen: OnceLock<SocketAddr>,
    others: Mutex<BTreeMap<u64, String>>,
    /// Counts the changes of the addresses that clients are told.
    changes: watch::Sender<u64>,
}

impl Nodes {
    pub(super) fn new(settings: &Settings, peers: PeerClient) -> Self {
        let (advertise, changes) = (settings.advertise.clone(), watch::Sender::new(0));
        Self { peers, advertise, listen: OnceLock::new(), others: Mutex::default(), changes }
    }

    /// The listener has this address.
    pub(super) fn set_listener(&self, address: SocketAddr) {
        if self.listen.set(address).is_err() {
            tracing::error!("the door has a listener already");
        }
    }

    /// The address that this node tells others; `None` when the listener has all addresses and the settings say none.
    fn own(&self) -> Option<String> {
        if !self.advertise.is_empty() {
            return Some(self.advertise.clone());
        }
        self.listen.get().filter(|address| !address.ip().is_unspecified()).map(ToString::to_string)
    }

    /// Host and port of the listener.
    pub(super) fn own_host_and_port(&self) -> (String, u16) {
        self.listen.get().map_or_else(Default::default, |address| (address.ip().to_string(), address.port()))
    }

    /// The addresses of the other nodes that are up.
    pub(super) fn others(&self) -> Vec<String> {
        let up = self.peers.others_up();
        let mut others = lock(&self.others);
        others.retain(|node, _| up.contains(node));
        others.values().cloned().collect()
    }

    /// The addresses of all nodes that are up, this one first; none when there is no other.
    pub(super) fn urls(&self) -> Vec<String> {
        let others = self.others();
        if others.is_empty() { others } else { self.own().into_iter().chain(others).collect() }
    }

    /// Counts the changes of [`Nodes::urls`], at most one in [`SAY`].
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells other nodes where this one can be reached, and clients when the addresses change, for ever.
    pub(super) async fn say(&self) {
        let mut told = Vec::new();
        loop {
            let urls = self.urls();
            if urls != told {
                told = urls;
                self.changes.send_modify(|count| *count = count.wrapping_add(1));
            }
            if let Some(own) = self.own() {
                for node in self.peers.others_up() {
                    self.peers.tell_door(node, NAME, Bytes::from(own.clone()));
                }
            }
            tokio::time::sleep(SAY).await;
        }
    }
}

impl Live for Nodes {
    fn hear(&self, from: u64, message: Bytes) {
        let address = std::str::from_utf8(&message).ok().filter(|text| {
            text.len() <= ADDRESS_BYTES_MAX && !text.contains(|c: char| c.is_whitespace() || c.is_control())
        });
        if let Some(address) = address {
            lock(&self.others).insert(from, address.to_owned());
        }
    }

    fn answer(&self, _: u64, _: Bytes) -> BoxFuture<'static, Result<Bytes, Refusal>> {
        std::future::ready(Err(Refusal::Malformed("this door answers nothing".to_owned()))).boxed()
    }
}
