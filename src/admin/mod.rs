//! REST administration, health and metrics on the web listener.

pub mod answers;
mod body;
mod common;
pub mod consistency;
pub mod keys;
mod merge;
mod page;
mod preconditions;
mod problem;
mod query;
pub mod request_log;
mod routes;
pub mod same_origin;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use actix::Addr;
use actix_web::{HttpResponse, ResponseError as _, web};
use rollbook_cluster::live::Live;
use serde::Serialize;

use crate::base::clock;
use crate::bus::handle::Bus;
use crate::bus::relay::Relay;
use crate::bus::roll::services::Services;
use crate::net::http::head::Fault;

/// What the administration can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Origins of web pages that may use REST beside its own; `*` is any.
    pub origins: Vec<String>,
    /// Most namespaces that have samples of their own in `/metrics`.
    pub metrics_namespaces_max: usize,
    /// The doors of the node.
    pub doors: Vec<DoorView>,
}

/// A door, as the first page shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoorView {
    /// Its name, which is that of its listener when it has one.
    pub name: &'static str,
    /// Where it is on the web listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// What it speaks.
    pub protocol: &'static str,
    /// What it is for.
    pub purpose: &'static str,
}

/// What the handlers share.
pub struct Admin {
    config: Config,
    bus: Bus,
    services: Services,
    relay: Addr<Relay>,
    metrics: prometheus_client::registry::Registry,
    draining: AtomicBool,
    keys: keys::Keys,
    began: Instant,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Administration of this bus.
    #[must_use]
    pub fn new(services: Services, relay: Addr<Relay>, config: Config) -> Arc<Self> {
        let bus = services.bus.clone();
        let mut metrics = prometheus_client::registry::Registry::default();
        bus.metrics().register(&mut metrics);
        Arc::new(Self {
            config,
            bus,
            services,
            relay,
            metrics,
            draining: AtomicBool::new(false),
            keys: keys::Keys::default(),
            began: clock::now(),
        })
    }

    /// What other nodes ask the administration.
    #[must_use]
    pub fn live(&self) -> Arc<dyn Live> {
        Arc::new(self.keys.clone())
    }

    /// From now on the node is not ready.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }
}

/// What a request is answered that reaches no handler.
#[must_use]
pub fn refuse(fault: &Fault) -> HttpResponse {
    let code = match fault.status {
        421 => "unknown_host",
        503 => "overloaded",
        _ => "bad_request",
    };
    problem::Problem::new(fault.status, code, fault.text.clone()).error_response()
}

/// Lets a server answer with the administration.
pub fn mount(admin: &Arc<Admin>, services: &mut web::ServiceConfig) {
    services
        .app_data(web::Data::from(Arc::clone(admin)))
        .app_data(body::at_most(body::BYTES_MAX))
        .app_data(web::PathConfig::default().error_handler(problem::path))
        .configure(routes::root::mount)
        .configure(routes::metrics::mount)
        .configure(routes::health::mount)
        .configure(routes::namespaces::mount)
        .configure(routes::consumers::mount)
        .configure(routes::cluster::mount)
        .configure(routes::config::mount)
        // Before the services: `restart-all` is a command, and may be a service.
        .configure(routes::commands::mount)
        .configure(routes::services::mount)
        .configure(routes::connections::mount)
        .configure(routes::openapi::mount)
        .default_service(web::to(problem::not_found));
}
