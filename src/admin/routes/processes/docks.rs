//! `/api/docks` and `/api/processes`: the docks of all nodes, and what runs on them.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::admin::Admin;
use crate::admin::caller;
use crate::admin::common::Answer;
use crate::admin::operation::{Need, get, get_for};
use crate::admin::page::List;
use crate::admin::problem::Problems;
use crate::admin::query::{ConsistencyQuery, Query};
use crate::admin::resource::resource;
use crate::base::process_name::ProcessName;
use crate::bus::docks::table::DockInfo;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/docks", [get("docks")]).route(web::get().to(list)))
        .service(resource("/api/processes", [get_for(Need::Caller)]).route(web::get().to(processes)));
}

/// A connected dock.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct DockView {
    id: String,
    /// Its version, as it said.
    version: String,
    /// The name of its host, as it said.
    hostname: String,
    tags: Vec<String>,
    /// Whether it runs processes without tags.
    default: bool,
    /// The node that it is connected to.
    node: u64,
    address: String,
    /// The principal whose credential it has shown.
    principal: String,
    /// Since when, milliseconds since 1970.
    connected_at_ms: u64,
}

impl From<DockInfo> for DockView {
    fn from(info: DockInfo) -> Self {
        let DockInfo { id, version, hostname, tags, default, node, address, principal, since } = info;
        Self { id, version, hostname, tags, default, node, address, principal, connected_at_ms: since }
    }
}

/// The docks that are connected to any node. A node that does not answer is named in `unanswered_nodes`.
#[utoipa::path(get, path = "/api/docks", operation_id = "docks_list", tag = "processes", params(ConsistencyQuery), responses((status = 200, description = "the docks", body = List<DockView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, _: Query<ConsistencyQuery>) -> Answer {
    let (docks, unanswered) = admin.docks.fleet().infos().await;
    let views = docks.into_iter().map(DockView::from).collect();
    Ok(HttpResponse::Ok().json(List::whole(views).without(unanswered)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ProcessesQuery {
    /// Of docks with this id or tag only.
    route: Option<String>,
    /// Of this definition only.
    definition: Option<String>,
}

/// A process, as its dock tells of it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct DockProcessView {
    /// The dock.
    dock: String,
    /// The definition.
    definition: String,
    /// `running`, `sleeping`, `stopping`, `stopped` or `crashed`.
    status: Option<String>,
    pid: Option<u64>,
    /// When it began.
    started: Option<String>,
    /// The revision that is deployed.
    revision: Option<String>,
    /// When that was deployed.
    deployed: Option<String>,
    /// How often the dock has started it again.
    restarts: Option<u64>,
    /// Share of one processor, percent.
    cpu: Option<f64>,
    /// Bytes of memory.
    rss: Option<u64>,
    /// The instances of services that this process is, `SERVICE/INSTANCE`.
    services: Vec<String>,
    /// Why nothing is known of the dock: the members above are empty then.
    error: Option<String>,
}

impl DockProcessView {
    fn new(dock: &str, process: &Value) -> Self {
        let text = |name: &str| process.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| process.get(name).and_then(Value::as_u64);
        Self {
            dock: dock.to_owned(),
            definition: text("id").unwrap_or_default(),
            status: text("status"),
            pid: number("pid"),
            started: text("started"),
            revision: text("revision"),
            deployed: text("deployed"),
            restarts: number("restarts"),
            cpu: process.get("cpu").and_then(Value::as_f64),
            rss: number("rss"),
            services: Vec::new(),
            error: None,
        }
    }

    fn silent(dock: &str, error: &str) -> Self {
        Self { error: Some(error.to_owned()), definition: String::new(), ..Self::new(dock, &Value::Null) }
    }
}

/// What runs on the docks, as they tell at this moment. A dock that does not answer has one item with an `error`, and a
/// node that does not answer is named in `unanswered_nodes`. What the caller may not see is left out.
#[utoipa::path(get, path = "/api/processes", operation_id = "processes_list", tag = "processes", params(ProcessesQuery), responses((status = 200, description = "the processes", body = List<DockProcessView>), Problems))]
pub(in crate::admin) async fn processes(admin: web::Data<Admin>, Query(query): Query<ProcessesQuery>) -> Answer {
    let (told, unanswered) = admin.docks.ps(&caller::identity(), query.route.as_deref()).await;
    let mut views = Vec::new();
    for dock in &told {
        let id = dock.get("id").and_then(Value::as_str).unwrap_or_default();
        if let Some(error) = dock.get("error").and_then(Value::as_str) {
            views.push(DockProcessView::silent(id, error));
        }
        let list = dock.get("list").and_then(Value::as_array).into_iter().flatten();
        views.extend(list.map(|process| DockProcessView::new(id, process)));
    }
    name_services(&admin, &mut views);
    views.retain(|view| query.definition.as_ref().is_none_or(|wanted| *wanted == view.definition));
    Ok(HttpResponse::Ok().json(List::whole(views).without(unanswered)))
}

/// Names the instances whose programs say that they are one of these processes.
fn name_services(admin: &Admin, views: &mut [DockProcessView]) {
    let mut instances: BTreeMap<(String, String), Vec<String>> = BTreeMap::new();
    admin.bus.node().state().with_machine(|machine| {
        for service in machine.services() {
            for instance in machine.instances(&service.id) {
                if let Some(process) = ProcessName::of_metadata(&instance.metadata) {
                    instances
                        .entry((process.dock, process.definition))
                        .or_default()
                        .push(format!("{}/{}", service.id, instance.id));
                }
            }
        }
    });
    for view in views {
        view.services = instances.get(&(view.dock.clone(), view.definition.clone())).cloned().unwrap_or_default();
    }
}
