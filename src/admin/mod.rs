//! REST administration, health and metrics on the web listener.
//!
//! `routes` has a file for each resource; the files here are what all routes share. May import `bus` and `net`, and
//! no door. Invariant: every error is a problem document.

pub mod answers;
mod body;
mod caller;
mod common;
pub mod consistency;
pub mod keys;
mod merge;
mod operation;
mod page;
mod preconditions;
mod problem;
mod query;
pub mod request_log;
mod resource;
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
use crate::bus::consume::letters::jobs::LetterJobs;
use crate::bus::docks::hub::DockHub;
use crate::bus::handle::Bus;
use crate::bus::relay::Relay;
use crate::bus::roll::services::Services;
use crate::bus::schedules::client::ScheduleClient;
use crate::bus::xbus::jobs::engine::Engine;
use crate::bus::xbus::replay::Replays;
use crate::net::http::head::Fault;

/// The settings of the administration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Origins of web pages that may use REST beside the own origin; `*` is any.
    pub origins: Vec<String>,
    /// Most namespaces that have samples of their own in `/metrics`.
    pub metrics_namespaces_max: usize,
    /// The doors of the node, for the first page.
    pub doors: Vec<DoorView>,
}

/// A door on the first page.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DoorView {
    /// Name of the door, which is the name of its listener if there is one.
    pub name: &'static str,
    /// The path on the web listener, if the door is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<&'static str>,
    /// The protocol of the door.
    pub protocol: &'static str,
    /// What clients use the door for.
    pub purpose: &'static str,
}

/// The state that all handlers share.
pub struct Admin {
    config: Config,
    bus: Bus,
    services: Services,
    xbus: Engine,
    docks: DockHub,
    schedules: ScheduleClient,
    relay: Addr<Relay>,
    metrics: prometheus_client::registry::Registry,
    draining: AtomicBool,
    keys: keys::IdempotencyKeys,
    replays: Replays,
    letter_jobs: LetterJobs,
    began: Instant,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").finish_non_exhaustive()
    }
}

impl Admin {
    /// Creates the administration of this bus.
    #[must_use]
    pub fn new(
        (services, xbus, docks, schedules): (Services, Engine, DockHub, ScheduleClient),
        relay: Addr<Relay>,
        config: Config,
    ) -> Arc<Self> {
        let bus = services.bus.clone();
        let mut metrics = prometheus_client::registry::Registry::default();
        bus.metrics().register(&mut metrics);
        Arc::new(Self {
            config,
            bus,
            services,
            xbus,
            docks,
            schedules,
            relay,
            metrics,
            draining: AtomicBool::new(false),
            keys: keys::IdempotencyKeys::default(),
            replays: Replays::default(),
            letter_jobs: LetterJobs::default(),
            began: clock::now(),
        })
    }

    /// Handles the requests of other nodes to the administration.
    #[must_use]
    pub fn live(&self) -> Arc<dyn Live> {
        Arc::new(self.keys.clone())
    }

    /// Marks the node as not ready from now on.
    pub fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
        self.docks.draining().cancel();
    }
}

/// Answers a request that reaches no handler.
#[must_use]
pub fn refuse(fault: &Fault) -> HttpResponse {
    let code = match fault.status {
        421 => "unknown_host",
        503 => "overloaded",
        _ => "bad_request",
    };
    problem::Problem::new(fault.status, code, fault.text.clone()).error_response()
}

/// Adds the administration to a server.
pub fn mount(admin: &Arc<Admin>, services: &mut web::ServiceConfig) {
    services
        .app_data(web::Data::from(Arc::clone(admin)))
        .app_data(body::at_most(body::BYTES_MAX))
        .app_data(web::PathConfig::default().error_handler(problem::path))
        .configure(routes::root::mount)
        .configure(routes::metrics::mount)
        .configure(routes::health::mount)
        .configure(routes::namespaces::mount)
        .configure(routes::book::events::mount)
        .configure(routes::consumers::mount)
        .configure(routes::schedules::operations::mount)
        .configure(routes::dead_letters::mount)
        .configure(routes::book::delayed::mount)
        .configure(routes::cluster::mount)
        .configure(routes::config::mount)
        // The commands come before the services, because `restart-all` is a command and could be the id of a service.
        .configure(routes::commands::mount)
        .configure(routes::services::mount)
        .configure(routes::security::mount)
        .configure(routes::xbus::mount)
        .configure(routes::processes::mount)
        .configure(routes::connections::mount)
        .configure(routes::openapi::mount)
        .default_service(web::to(problem::not_found));
}
