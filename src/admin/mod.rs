//! REST administration, health and metrics on the web listener.

mod api;
mod cluster;
mod config;
pub mod consistency;
mod health;
mod problem;
pub mod request_log;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use actix::Addr;
use actix_web::web;

use crate::bus::handle::Bus;
use crate::bus::relay::Relay;

/// What the handlers share.
pub struct Admin {
    bus: Bus,
    relay: Addr<Relay>,
    metrics: prometheus_client::registry::Registry,
    draining: AtomicBool,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Administration of this bus.
    #[must_use]
    pub fn new(bus: Bus, relay: Addr<Relay>) -> Arc<Self> {
        let mut metrics = prometheus_client::registry::Registry::default();
        bus.metrics().register(&mut metrics);
        Arc::new(Self { bus, relay, metrics, draining: AtomicBool::new(false) })
    }

    /// From now on the node is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// Lets a server answer with the administration.
pub fn mount(admin: &Arc<Admin>, services: &mut web::ServiceConfig) {
    let json = web::JsonConfig::default().limit(64 << 10).error_handler(problem::body);
    services
        .app_data(web::Data::from(Arc::clone(admin)))
        .app_data(json)
        .app_data(web::QueryConfig::default().error_handler(problem::query))
        .configure(health::mount)
        .configure(api::mount)
        .configure(cluster::mount)
        .configure(config::mount)
        .default_service(web::to(problem::not_found));
}
