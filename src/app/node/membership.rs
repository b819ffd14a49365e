//! Finds the number and the addresses of this node in its cluster, from the settings, the data directory and the
//! listener.

use std::net::{SocketAddr, TcpListener};

use anyhow::Context as _;
use rollbook_cluster::running::{NodeConfig, recorded_node};
use rollbook_cluster::tls::{Tls, TlsFiles};
use rollbook_core::level::FeatureLevel;

use crate::app::cli::usage;
use crate::app::config::layers::{Loaded, Origin};
use crate::app::config::settings::Config;
use crate::app::config::values::is_host_port;
use crate::net::listen::Listen;

/// The number of a node that founds a cluster alone and has no configured number.
const FIRST_NODE: u64 = 1;

/// The number of this node: the configured one, else that of the data directory, else the default.
fn number(loaded: &Loaded) -> u64 {
    let config = &loaded.config;
    let told = !matches!(loaded.origins.get("node.id"), None | Some(Origin::Default));
    if told { config.node.id } else { recorded_node(&config.node.data).unwrap_or(config.node.id) }
}

/// The address for other nodes: the configured one, else that of this node among the founders, else the default.
fn listen_address(loaded: &Loaded, id: u64) -> anyhow::Result<Option<SocketAddr>> {
    let config = &loaded.config;
    let told = !matches!(loaded.origins.get("peer.listen"), None | Some(Origin::Default));
    let Some(own) = config.cluster.founders.addresses().get(&id).filter(|_| !told) else {
        return Ok(config.peer.listen.addr());
    };
    let address: SocketAddr = own.parse().map_err(|_| {
        usage(format!("--cluster names this node {own}, which is a name; say with --peer IP:PORT where to listen"))
    })?;
    if Listen::Addr(address).is_exposed() && !config.peer.has_certificates() && !config.node.insecure {
        let text = format!(
            "peer.listen: {address} can be reached from other machines and there are no certificates for calls between nodes; pass --insecure if the network is trusted"
        );
        return Err(usage(text));
    }
    Ok(Some(address))
}

fn advertised(config: &Config, id: u64, listener: Option<&TcpListener>) -> anyhow::Result<String> {
    if !config.peer.advertise.is_empty() {
        if !is_host_port(&config.peer.advertise) {
            return Err(usage(format!("peer.advertise: `{}` is not HOST:PORT", config.peer.advertise)));
        }
        return Ok(config.peer.advertise.clone());
    }
    if let Some(own) = config.cluster.founders.addresses().get(&id) {
        return Ok(own.clone());
    }
    let Some(listener) = listener else { return Ok("none".to_owned()) };
    let address = listener.local_addr()?.to_string();
    if !is_host_port(&address) {
        return Err(usage(format!("other nodes cannot call {address}; say with --advertise HOST:PORT how they can")));
    }
    Ok(address)
}

/// The feature level that this node supports. A test of an upgrade lets some nodes report the level of the release
/// before; no other setting names the level.
fn known_level() -> FeatureLevel {
    let level = std::env::var("ROLLBOOK_TEST_LEVEL").ok().and_then(|text| text.parse().ok());
    level.and_then(FeatureLevel::new).unwrap_or(FeatureLevel::LATEST)
}

/// Builds the configuration of the cluster node, and binds the listener for other nodes.
///
/// # Errors
/// The settings contradict each other, or the address is in use.
pub(in crate::app) fn node_config(loaded: &Loaded) -> anyhow::Result<NodeConfig> {
    let config = &loaded.config;
    let id = number(loaded);
    let founders = config.cluster.founders.addresses().clone();
    let joined = config.node.data.join("CLUSTER").exists();
    if founders.is_empty() && !joined && id != FIRST_NODE && recorded_node(&config.node.data).is_none() {
        // A single node would accept writes as a cluster of its own, without the knowledge of its former members.
        anyhow::bail!(
            "node {id} has no data in {}, and no cluster to belong to. If its data is lost, it joins again under a new number: `rollbook cluster join`. To begin a cluster with node {id} alone, name it: --cluster {id}=HOST:PORT",
            config.node.data.display()
        );
    }
    if !founders.is_empty() && !founders.contains_key(&id) && !joined {
        return Err(usage(format!(
            "node {id} is not in --cluster; a node that is to join later needs a number from `rollbook cluster join`"
        )));
    }
    let listener = match listen_address(loaded, id)? {
        None => None,
        Some(address) => Some(TcpListener::bind(address).with_context(|| {
            format!("cannot listen on {address} for peer; choose another address with --peer, or --peer off")
        })?),
    };
    let tls = config.peer.has_certificates().then(|| TlsFiles {
        ca: config.peer.ca.clone(),
        certificate: config.peer.certificate.clone(),
        key: config.peer.key.clone(),
    });
    if let Some(files) = &tls {
        // The files are checked now, so that the error names the file, and not at the first connection of another
        // node.
        Tls::load(files)?.check(id)?;
    }
    Ok(NodeConfig {
        id,
        data: config.node.data.clone(),
        address: advertised(config, id, listener.as_ref())?,
        listener,
        founders,
        tls,
        timeout: config.book.publish_timeout,
        node_timeout: config.cluster.node_timeout,
        heartbeat: config.cluster.heartbeat,
        log_keep_bytes: config.cluster.log_keep_bytes,
        level: known_level(),
        accept_lost_mark: false,
    })
}
