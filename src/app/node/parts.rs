//! What the settings mean for the parts of the house.

use super::descriptors::Fitted;
use rollbook_core::limits::{HEADER_BYTES_MAX, HEADERS_MAX};

use crate::admin;
use crate::app::config::settings::Config;
use crate::app::config::values::Namespaces;
use crate::bus::access::Enabled;
use crate::bus::call::terms;
use crate::bus::roll::registrations;
use crate::bus::write::proposer;
use crate::doors::{socketio, sse, websocket};
use crate::net::http::hosts::Hosts;
use crate::net::http::limits::{ListenerSettings, Refuse};

/// More bytes than a dump adds to an event: `"id":"e_..."`, `"created_at":"..."` and their commas are some 80; of
/// headers each character may need an escape, and each value its quotes and punctuation.
const DUMP_BYTES_MORE: usize = 1024 + 2 * HEADER_BYTES_MAX + 8 * HEADERS_MAX;

pub(in crate::app) fn proposer(config: &Config) -> proposer::Config {
    proposer::Config {
        data: config.node.data.clone(),
        reserve_bytes: config.book.reserve_bytes,
        pending_bytes_max: config.book.pending_bytes_max,
        receiving_bytes_max: config.node.receiving_bytes_max,
    }
}

pub(in crate::app) fn sse(config: &Config) -> sse::Config {
    sse::Config {
        body_bytes_max: config.sse.body_bytes_max,
        restore_bytes_max: restore_bytes_max(config),
        body_timeout: config.sse.body_timeout,
        keep_alive: config.sse.keep_alive,
        streams_max: config.sse.streams_max,
        origins: listed(&config.sse.origins),
    }
}

/// The names of this node: those that are configured, and those that follow from the rest of the configuration.
pub(in crate::app) fn hosts(config: &Config) -> Hosts {
    let addresses = config.cluster.founders.addresses().values().chain([&config.peer.advertise]);
    let named = addresses.filter_map(|address| Some(address.rsplit_once(':')?.0.to_owned()));
    // Where the system does not say it there, the name has to be configured.
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    Hosts::new(listed(&config.node.hosts).into_iter().chain(named).chain(machine))
}

pub(in crate::app) fn log_listener(config: &Config, refuse: Refuse) -> ListenerSettings {
    ListenerSettings {
        name: "sse",
        hosts: hosts(config),
        idle_timeout: config.sse.idle_timeout,
        connections_max: config.sse.connections_max,
        websockets: false,
        refuse,
    }
}

pub(in crate::app) fn web_listener(Fitted { config, spare }: &Fitted, refuse: Refuse) -> ListenerSettings {
    // A client that polls has two, and the operator still gets in.
    let polling = config.socketio.connections_max.saturating_mul(2);
    ListenerSettings {
        name: "web",
        hosts: hosts(config),
        idle_timeout: config.web.idle_timeout,
        connections_max: polling.saturating_add(*spare),
        websockets: true,
        refuse,
    }
}

/// Largest body of a restore: what came in through any door, and what a dump adds to it: an id, a time, and headers
/// that did not come in the body.
fn restore_bytes_max(config: &Config) -> usize {
    let published = [config.sse.body_bytes_max, config.socketio.message_bytes_max, config.websocket.message_bytes_max];
    published.into_iter().max().unwrap_or_default().saturating_add(DUMP_BYTES_MORE)
}

pub(in crate::app) fn enabled(config: &Config) -> Enabled {
    match &config.book.namespaces {
        Namespaces::Any => Enabled::Any,
        Namespaces::Listed(names) => Enabled::Listed(names.clone()),
    }
}

pub(in crate::app) fn socketio(config: &Config) -> socketio::Config {
    let door = &config.socketio;
    socketio::Config {
        ping_interval: door.ping_interval,
        ping_timeout: door.ping_timeout,
        upgrade_timeout: door.upgrade_timeout,
        connect_timeout: door.connect_timeout,
        message_bytes_max: door.message_bytes_max,
        queue_bytes_max: door.queue_bytes_max,
        connections_max: door.connections_max,
        max_disconnection: door.max_disconnection,
        origins: listed(&door.origins),
    }
}

pub(in crate::app) fn websocket(config: &Config) -> websocket::config::Config {
    let door = &config.websocket;
    websocket::config::Config {
        ping_interval: door.ping_interval,
        silence_max: door.silence_max,
        register_timeout: door.register_timeout,
        drain_timeout: door.drain_timeout,
        message_bytes_max: door.message_bytes_max,
        queue_bytes_max: door.queue_bytes_max,
        in_flight_max: door.in_flight_max,
        connections_max: door.connections_max,
        origins: listed(&door.origins),
    }
}

pub(in crate::app) fn admin(config: &Config) -> admin::Config {
    admin::Config { origins: listed(&config.web.origins), metrics_namespaces_max: config.web.metrics_namespaces_max }
}

/// The words of a list with commas.
fn listed(text: &str) -> Vec<String> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

pub(in crate::app) fn roll(config: &Config) -> registrations::Config {
    let roll = &config.roll;
    registrations::Config {
        grace: roll.grace,
        heartbeat_timeout: roll.heartbeat_timeout,
        heartbeat_drop: roll.heartbeat_drop,
        heartbeat_required: roll.heartbeat_required,
    }
}

pub(in crate::app) fn calls(config: &Config) -> terms::Config {
    let calls = &config.calls;
    terms::Config {
        timeout: calls.timeout,
        timeout_max: calls.timeout_max,
        in_flight_max: calls.in_flight_max,
        in_flight_bytes_max: calls.in_flight_bytes_max,
        in_flight_per_instance: calls.in_flight_per_instance,
        strategies: calls.strategies.clone(),
    }
}
