//! `/api/connections` and `/api/stats`: who is connected to which node, and how much there is of everything.

use std::collections::BTreeSet;

use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use rollbook_core::error::Refusal;
use serde::Deserialize;
use serde_json::json;

use super::api::Answer;
use super::page::Page;
use super::{Admin, problem};
use crate::bus::survey::{self, ClientView, Survey};
use problem::Problem;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    let resource = |path: &str| web::resource(path).default_service(web::to(problem::method_not_allowed));
    services
        .service(resource("/api/connections").route(web::get().to(list)))
        .service(resource("/api/connections/{id}").route(web::get().to(show)).route(web::delete().to(kick)))
        .service(resource("/api/stats").route(web::get().to(stats)));
}

/// All nodes that are up.
fn nodes(admin: &Admin) -> BTreeSet<u64> {
    let node = admin.bus.node();
    node.others_up().into_iter().chain([node.id()]).collect()
}

/// What each of these nodes says; those that do not answer are missing.
async fn surveys(admin: &Admin, nodes: BTreeSet<u64>) -> Vec<(u64, Survey)> {
    let (services, own) = (&admin.services, admin.bus.node().id());
    let ask = |node: u64| async move {
        if node == own {
            return Some((node, survey::of(own, &services.clients, &services.router)));
        }
        let said = services.peers.survey(node).await.ok()?;
        Some((node, serde_json::from_slice(&said).ok()?))
    };
    join_all(nodes.into_iter().map(ask)).await.into_iter().flatten().collect()
}

/// The clients of these nodes.
pub(super) async fn survey(admin: &Admin, nodes: BTreeSet<u64>) -> Vec<ClientView> {
    surveys(admin, nodes).await.into_iter().flat_map(|(_, survey)| survey.clients).collect()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ListQuery {
    node: Option<u64>,
    service: Option<String>,
    door: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
    /// Seen by [`super::consistency`].
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

async fn list(admin: web::Data<Admin>, query: web::Query<ListQuery>) -> Answer {
    let page = Page::new(query.limit, query.cursor.clone())?;
    let wanted = nodes(&admin).into_iter().filter(|node| query.node.is_none_or(|one| one == *node)).collect();
    let mut clients = survey(&admin, wanted).await;
    clients.retain(|client| {
        query.service.as_ref().is_none_or(|service| client.service.as_ref() == Some(service))
            && query.door.as_ref().is_none_or(|door| *door == client.door)
    });
    clients.sort_by(|one, two| one.id.cmp(&two.id));
    Ok(page.of(clients.into_iter(), |client| &client.id))
}

async fn find(admin: &Admin, id: &str) -> Result<ClientView, Problem> {
    let clients = survey(admin, nodes(admin)).await;
    let missing = || Problem::new(404, "connection_not_found", format!("connection not found: {id}"));
    clients.into_iter().find(|client| client.id == id).ok_or_else(missing)
}

async fn show(admin: web::Data<Admin>, id: web::Path<String>) -> Answer {
    Ok(HttpResponse::Ok().json(find(&admin, &id).await?))
}

/// Ends a connection; a Socket.IO client stays away.
async fn kick(admin: web::Data<Admin>, id: web::Path<String>) -> Answer {
    let client = find(&admin, &id).await?;
    let kicked = admin.services.kick(client.node, client.serial).await?;
    if kicked { Ok(HttpResponse::NoContent().finish()) } else { Err(Refusal::Overloaded(id.into_inner()).into()) }
}

async fn stats(admin: web::Data<Admin>) -> Answer {
    let node = admin.bus.node();
    let surveys = surveys(&admin, nodes(&admin)).await;
    let (services, online, instances, unhealthy, draining) = node.with_machine(|machine| {
        let mut counts = (0_u64, 0_u64, 0_u64, 0_u64, 0_u64);
        for service in machine.services() {
            counts.0 = counts.0.saturating_add(1);
            counts.1 = counts.1.saturating_add(u64::from(service.online));
            for instance in machine.instances(&service.id) {
                counts.2 = counts.2.saturating_add(1);
                counts.3 = counts.3.saturating_add(u64::from(instance.unhealthy));
                counts.4 = counts.4.saturating_add(u64::from(instance.draining));
            }
        }
        counts
    });
    let heads = node.namespaces();
    let of = |(node, survey): &(u64, Survey)| json!({ "id": node, "connections": survey.clients.len(), "requests_in_flight": survey.in_flight });
    let connections: usize = surveys.iter().map(|(_, survey)| survey.clients.len()).sum();
    let in_flight: usize = surveys.iter().map(|(_, survey)| survey.in_flight).sum();
    let ended = |pick: fn(&ClientView) -> u64| {
        surveys
            .iter()
            .flat_map(|(_, survey)| &survey.clients)
            .fold(0_u64, |sum, client| sum.saturating_add(pick(client)))
    };
    Ok(HttpResponse::Ok().json(json!({
        "services": { "total": services, "online": online, "offline": services.saturating_sub(online) },
        "instances": { "total": instances, "unhealthy": unhealthy, "draining": draining },
        "connections": connections,
        "requests": {
            "in_flight": in_flight,
            "answered": ended(|client| client.requests.answered),
            "failed": ended(|client| client.requests.failed),
        },
        "events": {
            "namespaces": heads.len(),
            "stored": heads.iter().fold(0_u64, |sum, head| sum.saturating_add(head.events())),
        },
        "config_revision": node.config().revision,
        "nodes": surveys.iter().map(of).collect::<Vec<_>>(),
        "uptime_seconds": admin.began.elapsed().as_secs(),
    })))
}
