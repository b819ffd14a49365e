//! Where the nodes are, and which node is where: shared by the lab and by its clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::net;

/// The port of the event log.
pub(crate) const LOG: u16 = 2021;
/// The port of REST and health.
pub(crate) const WEB: u16 = 7440;
/// The port between nodes.
pub(crate) const PEER: u16 = 7441;

/// All hosts of a lab. A host is a machine, numbered from 1; the node that lives there may be replaced by
/// one with another number.
#[derive(Clone, Debug)]
pub(crate) struct Hosts {
    nodes: Arc<[AtomicU64]>,
}

impl Hosts {
    /// The first `founders` hosts have a node of their own number, the rest have none yet.
    pub(crate) fn new(founders: u8, spares: u8) -> Self {
        let number = |host: u8| AtomicU64::new(if host <= founders { u64::from(host) } else { 0 });
        Self { nodes: (1..=founders + spares).map(number).collect() }
    }

    /// Hosts that have a node, up or not.
    pub(crate) fn inhabited(&self) -> Vec<u8> {
        (1..)
            .zip(self.nodes.iter())
            .filter(|(_, node)| node.load(Ordering::Relaxed) > 0)
            .map(|(host, _)| host)
            .collect()
    }

    /// A host that has none.
    pub(crate) fn vacant(&self) -> Option<u8> {
        (1..).zip(self.nodes.iter()).find(|(_, node)| node.load(Ordering::Relaxed) == 0).map(|(host, _)| host)
    }

    /// The number of the node on a host.
    pub(crate) fn node(&self, host: u8) -> u64 {
        self.nodes[usize::from(host) - 1].load(Ordering::Relaxed)
    }

    /// From now on another node lives there; 0: none.
    pub(crate) fn settle(&self, host: u8, node: u64) {
        self.nodes[usize::from(host) - 1].store(node, Ordering::Relaxed);
    }

    /// The host of a node.
    pub(crate) fn host(&self, node: u64) -> Option<u8> {
        self.inhabited().into_iter().find(|host| self.node(*host) == node)
    }

    /// The inhabited host that follows in the round.
    pub(crate) fn after(&self, host: u8) -> u8 {
        let inhabited = self.inhabited();
        let next = inhabited.iter().find(|other| **other > host).or(inhabited.first());
        next.copied().unwrap_or(1)
    }
}

/// The event log of a host.
pub(crate) fn log(host: u8) -> SocketAddr {
    net::address(host, LOG)
}

/// REST of a host.
pub(crate) fn web(host: u8) -> SocketAddr {
    net::address(host, WEB)
}

/// Where other nodes reach it.
pub(crate) fn peer(host: u8) -> SocketAddr {
    net::address(host, PEER)
}
