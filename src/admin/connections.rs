//! `/api/connections` and `/api/stats`: who is connected to which node, and how much there is of everything.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::collections::BTreeSet;

use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use rollbook_core::error::Refusal;
use rollbook_core::machine::Machine;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::Admin;
use super::common::Answer;
use super::page::{List, Page};
use super::problem::{Problem, Problems, resource};
use crate::bus::survey::{ClientView, Survey, Wanted};

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/connections", "GET").route(web::get().to(list)))
        .service(
            resource("/api/connections/{id}", "GET, DELETE").route(web::get().to(show)).route(web::delete().to(kick)),
        )
        .service(resource("/api/stats", "GET").route(web::get().to(stats)));
}

/// All nodes that are up.
fn nodes(admin: &Admin) -> BTreeSet<u64> {
    let node = admin.bus.node();
    node.others_up().into_iter().chain([node.id()]).collect()
}

/// What each of these nodes says of those wanted of it; nodes that do not answer are missing.
async fn surveys(admin: &Admin, asked: impl Iterator<Item = (u64, Wanted)>) -> Vec<(u64, Survey)> {
    let (services, own) = (&admin.services, admin.bus.node().id());
    let ask = |(node, wanted): (u64, Wanted)| async move {
        if node == own {
            return Some((node, services.survey(&wanted)));
        }
        let said = services.peers.survey(node, wanted).await.ok()?;
        Some((node, serde_json::from_slice(&said).ok()?))
    };
    join_all(asked.map(ask)).await.into_iter().flatten().collect()
}

/// The clients that are wanted of each node.
pub(super) async fn survey(admin: &Admin, asked: impl Iterator<Item = (u64, Wanted)>) -> Vec<ClientView> {
    surveys(admin, asked).await.into_iter().flat_map(|(_, survey)| survey.clients).collect()
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    node: Option<u64>,
    service: Option<String>,
    door: Option<String>,
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    cursor: Option<String>,
    /// Seen by [`super::consistency`].
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

#[utoipa::path(get, path = "/api/connections", operation_id = "connections_list", tag = "connections", params(ListQuery), responses((status = 200, description = "done", body = List<ClientView>), Problems))]
pub(super) async fn list(admin: web::Data<Admin>, query: web::Query<ListQuery>) -> Answer {
    let page = Page::new(query.limit, query.cursor.clone())?;
    let wanted = nodes(&admin).into_iter().filter(|node| query.node.is_none_or(|one| one == *node));
    let mut clients = survey(&admin, wanted.map(|node| (node, Wanted::all()))).await;
    clients.retain(|client| {
        query.service.as_ref().is_none_or(|service| client.service.as_ref() == Some(service))
            && query.door.as_ref().is_none_or(|door| *door == client.door)
    });
    clients.sort_by(|one, two| one.id.cmp(&two.id));
    Ok(page.of(clients, |client| client.id.clone()))
}

async fn find(admin: &Admin, id: &str) -> Result<ClientView, Problem> {
    let clients = survey(admin, nodes(admin).into_iter().map(|node| (node, Wanted::called(id)))).await;
    let missing = || Problem::new(404, "connection_not_found", format!("connection not found: {id}"));
    clients.into_iter().next().ok_or_else(missing)
}

#[utoipa::path(get, path = "/api/connections/{id}", operation_id = "connections_show", tag = "connections", params(("id" = String, Path)), responses((status = 200, description = "done", body = ClientView), Problems))]
pub(super) async fn show(admin: web::Data<Admin>, id: web::Path<String>) -> Answer {
    Ok(HttpResponse::Ok().json(find(&admin, &id).await?))
}

/// Ends a connection; a Socket.IO client stays away.
#[utoipa::path(delete, path = "/api/connections/{id}", operation_id = "connections_kick", tag = "connections", params(("id" = String, Path)), responses((status = 204, description = "done"), Problems))]
pub(super) async fn kick(admin: web::Data<Admin>, id: web::Path<String>) -> Answer {
    let client = find(&admin, &id).await?;
    let kicked = admin.services.kick(client.node, client.serial, &client.id).await?;
    if kicked { Ok(HttpResponse::NoContent().finish()) } else { Err(Refusal::Overloaded(id.into_inner()).into()) }
}

/// How much there is of everything.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Stats {
    services: OfServices,
    instances: OfInstances,
    connections: usize,
    requests: OfRequests,
    events: OfEvents,
    config_revision: u64,
    /// Those that answered.
    nodes: Vec<OfNode>,
    uptime_seconds: u64,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct OfServices {
    total: u64,
    online: u64,
    offline: u64,
}

#[derive(Debug, Default, Serialize, ToSchema)]
struct OfInstances {
    total: u64,
    unhealthy: u64,
    draining: u64,
}

/// Of the instances that are connected now.
#[derive(Debug, Serialize, ToSchema)]
struct OfRequests {
    in_flight: usize,
    answered: u64,
    failed: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct OfEvents {
    namespaces: usize,
    stored: u64,
}

#[derive(Debug, Serialize, ToSchema)]
struct OfNode {
    id: u64,
    connections: usize,
    requests_in_flight: usize,
}

fn count_roll(machine: &Machine) -> (OfServices, OfInstances) {
    let (mut services, mut instances) = (OfServices::default(), OfInstances::default());
    let add = |count: &mut u64, one: bool| *count = count.saturating_add(u64::from(one));
    for service in machine.services() {
        add(&mut services.total, true);
        add(if service.online { &mut services.online } else { &mut services.offline }, true);
        for instance in machine.instances(&service.id) {
            add(&mut instances.total, true);
            add(&mut instances.unhealthy, instance.unhealthy);
            add(&mut instances.draining, instance.draining);
        }
    }
    (services, instances)
}

#[utoipa::path(get, path = "/api/stats", operation_id = "connections_stats", tag = "connections", responses((status = 200, description = "done", body = Stats), Problems))]
pub(super) async fn stats(admin: web::Data<Admin>) -> Answer {
    let node = admin.bus.node();
    let surveys = surveys(&admin, nodes(&admin).into_iter().map(|node| (node, Wanted::all()))).await;
    let (services, instances) = node.with_machine(count_roll);
    let heads = node.namespaces();
    let of = |(id, survey): &(u64, Survey)| OfNode {
        id: *id,
        connections: survey.clients.len(),
        requests_in_flight: survey.in_flight,
    };
    let nodes: Vec<OfNode> = surveys.iter().map(of).collect();
    let clients = || surveys.iter().flat_map(|(_, survey)| &survey.clients);
    let sum = |pick: fn(&ClientView) -> u64| clients().fold(0_u64, |sum, client| sum.saturating_add(pick(client)));
    Ok(HttpResponse::Ok().json(Stats {
        services,
        instances,
        connections: clients().count(),
        requests: OfRequests {
            in_flight: nodes.iter().map(|node| node.requests_in_flight).sum(),
            answered: sum(|client| client.requests.answered),
            failed: sum(|client| client.requests.failed),
        },
        events: OfEvents {
            namespaces: heads.len(),
            stored: heads.iter().fold(0_u64, |sum, head| sum.saturating_add(head.events())),
        },
        config_revision: node.config().revision,
        nodes,
        uptime_seconds: admin.began.elapsed().as_secs(),
    }))
}
