//! Translates the configuration into the settings of each part of the node.

use std::num::NonZero;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;

use crate::admin::{self, DoorView};
use crate::app::config::settings::Config;
use crate::app::config::values::Namespaces;
use crate::bus::access::enabled::Enabled;
use crate::bus::call::types::RouterConfig;
use crate::bus::roll::roll::RollConfig;
use crate::bus::security::authority::SecurityConfig;
use crate::bus::security::credentials::account_ca::AccountCa;
use crate::bus::security::credentials::jwt::jwks::JwksSettings;
use crate::bus::security::credentials::seal::SealKey;
use crate::bus::write::proposer;
use crate::doors::door::{Description, Door};
use crate::net::http::hosts::Hosts;

pub(in crate::app) fn proposer(config: &Config) -> proposer::Config {
    proposer::Config {
        data: config.node.data.clone(),
        reserve_bytes: config.book.reserve_bytes,
        pending_bytes_max: config.book.pending_bytes_max,
        receiving_bytes_max: config.node.receiving_bytes_max,
    }
}

/// The host names of this node: the configured ones, and those that follow from other settings.
pub(in crate::app) fn hosts(config: &Config) -> Hosts {
    let addresses = config.cluster.founders.addresses().values().chain([&config.peer.advertise]);
    let named = addresses.filter_map(|address| Some(address.rsplit_once(':')?.0.to_owned()));
    // Where the system does not name the machine in this file, the name has to be configured.
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    Hosts::new(config.node.hosts.iter().cloned().chain(named).chain(machine))
}

pub(in crate::app) fn enabled(config: &Config) -> Enabled {
    match &config.book.namespaces {
        Namespaces::Any => Enabled::Any,
        Namespaces::Listed(names) => Enabled::Listed(names.clone()),
    }
}

pub(in crate::app) fn admin(config: &Config, doors: &[Arc<dyn Door>]) -> admin::Config {
    let view = |door: &Arc<dyn Door>| {
        let (name, Description { protocol, path, purpose }) = (door.name(), door.describe());
        DoorView { name, path, protocol, purpose }
    };
    admin::Config {
        origins: config.web.origins.to_vec(),
        metrics_namespaces_max: config.web.metrics_namespaces_max,
        doors: doors.iter().map(view).collect(),
    }
}

/// Number of threads of each listener of a door.
pub(in crate::app) fn threads(config: &Config) -> usize {
    match config.threads.workers {
        // Raft, the log and the settler share the last core.
        0 => cores().saturating_sub(1).max(1),
        workers => workers,
    }
}

/// Number of threads of the web listener.
pub(in crate::app) fn web_threads(config: &Config) -> usize {
    match config.threads.web {
        // Few threads are enough: a request between two services on one thread wakes no other thread.
        0 => (cores() / 2).max(1),
        threads => threads,
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// The settings of the authority.
///
/// # Errors
/// A file that the settings name cannot be used.
pub(in crate::app) fn security(config: &Config) -> anyhow::Result<SecurityConfig> {
    let security = &config.security;
    let named = |path: &Path| (!path.as_os_str().is_empty()).then(|| path.to_owned());
    let seal_key = named(&security.key_file).map(|path| SealKey::load(&path)).transpose();
    let nats = &config.doors.nats;
    let pair = named(&nats.xbus_ca_certificate).zip(named(&nats.xbus_ca_key));
    let account_ca = pair.map(|(certificate, key)| AccountCa::load(&certificate, &key)).transpose();
    let jwks = JwksSettings { keep: security.jwks_keep, ca_file: named(&security.jwks_ca), ..JwksSettings::default() };
    Ok(SecurityConfig {
        enabled: security.enabled,
        insecure: config.node.insecure,
        jwks,
        seal_key: seal_key.context("security.key_file")?,
        account_ca: account_ca.context("nats.xbus_ca_certificate")?,
    })
}

pub(in crate::app) fn roll(config: &Config) -> RollConfig {
    let roll = &config.roll;
    RollConfig {
        grace: roll.grace,
        heartbeat_timeout: roll.heartbeat_timeout,
        heartbeat_drop: roll.heartbeat_drop,
        heartbeat_required: roll.heartbeat_required,
    }
}

pub(in crate::app) fn calls(config: &Config) -> RouterConfig {
    let calls = &config.calls;
    RouterConfig {
        timeout: calls.timeout,
        timeout_max: calls.timeout_max,
        in_flight_max: calls.in_flight_max,
        in_flight_bytes_max: calls.in_flight_bytes_max,
        in_flight_per_instance: calls.in_flight_per_instance,
        strategies: calls.strategies.clone(),
    }
}
