//! `/api/connections` and `/api/stats`: the connected clients of each node, and counts of everything.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use std::collections::BTreeSet;

use actix_web::{HttpResponse, web};
use futures_util::future::join_all;
use rollbook_core::machine::Machine;
use rollbook_core::security::right::Verb;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::admin::Admin;
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::page::{List, Page};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::call::survey::{ClientView, Survey, Totals, Wanted};

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/connections", [get("connections")]).route(web::get().to(list)))
        .service(
            resource(
                "/api/connections/{id}",
                [get("connections/{id}"), write("DELETE", "connection.kick", Verb::AdminWrite, "connections/{id}")],
            )
            .route(web::get().to(show))
            .route(web::delete().to(kick)),
        )
        .service(resource("/api/stats", [get("stats")]).route(web::get().to(stats)));
}

/// All nodes that are up.
fn nodes(admin: &Admin) -> BTreeSet<u64> {
    let node = admin.bus.node();
    node.state().others_up().into_iter().chain([node.id()]).collect()
}

/// The answers of nodes to a survey.
struct Surveys {
    /// The answer of each node.
    of: Vec<(u64, Survey)>,
    /// The nodes that did not answer.
    unanswered: Vec<u64>,
}

/// Asks each of these nodes for the clients that are wanted of it.
async fn surveys(admin: &Admin, asked: impl Iterator<Item = (u64, Wanted)>) -> Surveys {
    let (services, own) = (&admin.services, admin.bus.node().id());
    let ask = |(node, wanted): (u64, Wanted)| async move {
        if node == own {
            return (node, Some(services.survey(&wanted)));
        }
        let survey = services.peers.survey(node, wanted).await.ok();
        (node, survey.and_then(|survey| serde_json::from_slice(&survey).ok()))
    };
    let mut surveys = Surveys { of: Vec::new(), unanswered: Vec::new() };
    for (node, survey) in join_all(asked.map(ask)).await {
        match survey {
            Some(survey) => surveys.of.push((node, survey)),
            None => surveys.unanswered.push(node),
        }
    }
    surveys.unanswered.sort_unstable();
    surveys
}

/// The wanted clients of each node, and the nodes that did not answer.
pub(in crate::admin) async fn survey(
    admin: &Admin,
    asked: impl Iterator<Item = (u64, Wanted)>,
) -> (Vec<ClientView>, Vec<u64>) {
    let Surveys { of, unanswered } = surveys(admin, asked).await;
    (of.into_iter().flat_map(|(_, survey)| survey.clients).collect(), unanswered)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ListQuery {
    /// Of this node only.
    node: Option<u64>,
    /// Instances of this service only.
    service: Option<String>,
    /// Of this door only, `socketio` or `websocket`.
    door: Option<String>,
    /// Most items of the page; 100 by default.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// The `next_cursor` of the page before.
    cursor: Option<String>,
    /// How fresh the answer is: `linearizable`, which is the default, `leader` or `stale`.
    #[serde(rename = "consistency")]
    _consistency: Option<String>,
}

/// Who is connected to which node, by id, page by page. A node that does not answer is named in `unanswered_nodes`.
#[utoipa::path(get, path = "/api/connections", operation_id = "connections_list", tag = "connections", params(ListQuery), responses((status = 200, description = "a page of connections", body = List<ClientView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, Query(query): Query<ListQuery>) -> Answer {
    let page = Page::new("connections", query.limit, query.cursor.as_deref())?;
    let wanted = nodes(&admin).into_iter().filter(|node| query.node.is_none_or(|one| one == *node));
    let (mut clients, unanswered) = survey(&admin, wanted.map(|node| (node, Wanted::all()))).await;
    clients.retain(|client| {
        query.service.as_ref().is_none_or(|service| client.service.as_ref() == Some(service))
            && query.door.as_ref().is_none_or(|door| *door == client.door)
    });
    clients.sort_by(|one, two| one.id.cmp(&two.id));
    Ok(HttpResponse::Ok().json(page.of(clients, |client| client.id.clone()).without(unanswered)))
}

fn not_found(id: &str) -> Problem {
    Problem::new(404, "connection_not_found", format!("connection not found: {id}"))
}

fn missing(id: &str, unanswered: &[u64]) -> Problem {
    if unanswered.is_empty() {
        return not_found(id);
    }
    let detail = format!("connection not found: {id}; it may be at a node that does not answer: {unanswered:?}");
    Problem::new(503, "unavailable", detail)
}

async fn find(admin: &Admin, id: &str) -> Result<ClientView, Problem> {
    let asked = nodes(admin).into_iter().map(|node| (node, Wanted::called(id)));
    let (clients, unanswered) = survey(admin, asked).await;
    clients.into_iter().next().ok_or_else(|| missing(id, &unanswered))
}

/// One connection, whichever node it is at. 503 instead of 404 when it may be at a node that does not answer.
#[utoipa::path(get, path = "/api/connections/{id}", operation_id = "connections_show", tag = "connections", params(("id" = String, Path), ConsistencyQuery), responses((status = 200, description = "the connection", body = ClientView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    Ok(HttpResponse::Ok().json(find(&admin, &id).await?))
}

/// Ends a connection, whichever node it is at. A client of Socket.IO or of `/ws` stays away by itself; a program that wants
/// to come back may.
#[utoipa::path(delete, path = "/api/connections/{id}", operation_id = "connections_kick", tag = "connections", params(("id" = String, Path)), responses((status = 204, description = "the connection is being closed"), Problems))]
pub(in crate::admin) async fn kick(admin: web::Data<Admin>, id: web::Path<String>, _: Query<NoParameters>) -> Answer {
    let client = find(&admin, &id).await?;
    let kicked = admin.services.kick(client.node, client.serial, &client.id).await?;
    // Otherwise the connection ended after it was found.
    if kicked { Ok(HttpResponse::NoContent().finish()) } else { Err(not_found(&id)) }
}

/// How much there is of everything.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct Stats {
    services: OfServices,
    instances: OfInstances,
    connections: usize,
    requests: OfRequests,
    events: OfEvents,
    config_revision: u64,
    /// Those that answered.
    nodes: Vec<OfNode>,
    /// Those that were asked and did not answer: what is theirs is not counted.
    unanswered_nodes: Vec<u64>,
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

/// How many services, instances, connections, requests and events there are, and on which node. What is at a node that
/// does not answer is not counted; it is named in `unanswered_nodes`.
#[utoipa::path(get, path = "/api/stats", operation_id = "connections_stats", tag = "connections", params(ConsistencyQuery), responses((status = 200, description = "the numbers", body = Stats), Problems))]
pub(in crate::admin) async fn stats(admin: web::Data<Admin>, _: Query<ConsistencyQuery>) -> Answer {
    let node = admin.bus.node();
    let Surveys { of: surveys, unanswered: unanswered_nodes } =
        surveys(&admin, nodes(&admin).into_iter().map(|node| (node, Wanted::totals()))).await;
    let (services, instances) = node.state().with_machine(count_roll);
    let heads = node.state().namespaces();
    let totals = |survey: &Survey| survey.totals.unwrap_or_default();
    let of = |(id, survey): &(u64, Survey)| OfNode {
        id: *id,
        connections: totals(survey).connections,
        requests_in_flight: survey.in_flight,
    };
    let nodes: Vec<OfNode> = surveys.iter().map(of).collect();
    let sum = |pick: fn(Totals) -> u64| {
        surveys.iter().fold(0_u64, |sum, (_, survey)| sum.saturating_add(pick(totals(survey))))
    };
    Ok(HttpResponse::Ok().json(Stats {
        services,
        instances,
        connections: nodes.iter().map(|node| node.connections).sum(),
        requests: OfRequests {
            in_flight: nodes.iter().map(|node| node.requests_in_flight).sum(),
            answered: sum(|totals| totals.answered),
            failed: sum(|totals| totals.failed),
        },
        events: OfEvents {
            namespaces: heads.len(),
            stored: heads.iter().fold(0_u64, |sum, head| sum.saturating_add(head.events())),
        },
        config_revision: node.state().config().revision,
        nodes,
        unanswered_nodes,
        uptime_seconds: admin.began.elapsed().as_secs(),
    }))
}
