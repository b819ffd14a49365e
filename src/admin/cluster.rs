//! `/api/cluster`: who is in the cluster, and changes of that.

use actix_web::{HttpResponse, web};
use rollbook_cluster::status::Member;
use rollbook_core::error::Refusal;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::Admin;
use super::body::{self, Object};
use super::common::Answer;
use super::problem::{Problem, Problems, resource};

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/cluster", "GET").route(web::get().to(cluster)))
        .service(resource("/api/cluster/nodes", "POST").route(web::post().to(join)))
        .service(resource("/api/cluster/nodes/{id}", "DELETE").route(web::delete().to(remove)))
        .service(resource("/api/cluster/nodes/{id}/promote", "POST").route(web::post().to(promote)))
        .service(resource("/api/cluster/transfer", "POST").route(web::post().to(transfer)));
}

/// A node of the cluster, as this one sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct MemberView {
    id: u64,
    address: String,
    role: String,
    state: String,
    incarnation: u64,
    last_index: Option<u64>,
    applied_index: Option<u64>,
}

/// The cluster, as this node sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ClusterView {
    cluster_id: String,
    /// This node.
    node: u64,
    leader: Option<u64>,
    term: u64,
    /// Why nothing can be published through this node; null when it can.
    warning: Option<String>,
    nodes: Vec<MemberView>,
}

fn show(member: &Member) -> MemberView {
    MemberView {
        id: member.id,
        address: member.address.clone(),
        role: member.role.to_string(),
        state: member.state.to_string(),
        incarnation: member.incarnation,
        last_index: member.last_index,
        applied_index: member.applied_index,
    }
}

#[utoipa::path(get, path = "/api/cluster", operation_id = "cluster_cluster", tag = "cluster", responses((status = 200, description = "done", body = ClusterView), Problems))]
pub(super) async fn cluster(admin: web::Data<Admin>) -> Answer {
    let node = admin.bus.node();
    let status = node.status();
    let members = node.members().await;
    Ok(HttpResponse::Ok().json(ClusterView {
        cluster_id: status.cluster_id,
        node: status.id,
        leader: status.leader,
        term: status.term,
        warning: node.ready().err().map(|refusal| match refusal {
            Refusal::Unavailable(text) => text,
            other => other.to_string(),
        }),
        nodes: members.iter().map(show).collect(),
    }))
}

/// A node that wants to join.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct JoinJson {
    address: String,
}

/// `HOST:PORT` as other nodes will dial it.
fn check_address(address: &str) -> Result<(), Problem> {
    let good = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !matches!(host, "0.0.0.0" | "[::]") && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good {
        Ok(())
    } else {
        Err(Problem::new(400, "bad_request", "address: write HOST:PORT as other nodes reach it"))
    }
}

#[utoipa::path(post, path = "/api/cluster/nodes", operation_id = "cluster_join", tag = "cluster", request_body = JoinJson, responses((status = 201, description = "done", body = Object), Problems))]
pub(super) async fn join(admin: web::Data<Admin>, Object(body): Object<JoinJson>) -> Answer {
    let address = body.address;
    check_address(&address)?;
    let node = admin.bus.node();
    let joined = node.join(address).await.map_err(Problem::from)?;
    let body = json!({ "id": joined.id, "cluster_id": node.status().cluster_id, "address": joined.address });
    Ok(HttpResponse::Created().json(body))
}

#[utoipa::path(post, path = "/api/cluster/nodes/{id}/promote", operation_id = "cluster_promote", tag = "cluster", params(("id" = u64, Path)), responses((status = 200, description = "done", body = MemberView), Problems))]
pub(super) async fn promote(admin: web::Data<Admin>, id: web::Path<u64>) -> Answer {
    let node = admin.bus.node();
    node.promote(*id).await.map_err(Problem::from)?;
    let members = node.members().await;
    let missing = || Problem::new(404, "node_not_found", format!("node not found: {id}"));
    let member = members.iter().find(|member| member.id == *id).ok_or_else(missing)?;
    Ok(HttpResponse::Ok().json(show(member)))
}

#[utoipa::path(delete, path = "/api/cluster/nodes/{id}", operation_id = "cluster_remove", tag = "cluster", params(("id" = u64, Path)), responses((status = 204, description = "done"), Problems))]
pub(super) async fn remove(admin: web::Data<Admin>, id: web::Path<u64>) -> Answer {
    admin.bus.node().remove(*id).await.map_err(Problem::from)?;
    Ok(HttpResponse::NoContent().finish())
}

/// Who is to lead; whoever is best when nobody is named.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct TransferJson {
    to: Option<u64>,
}

#[utoipa::path(post, path = "/api/cluster/transfer", operation_id = "cluster_transfer", tag = "cluster", request_body = Option<TransferJson>, responses((status = 200, description = "done", body = Object), Problems))]
pub(super) async fn transfer(admin: web::Data<Admin>, body: web::Bytes) -> Answer {
    // An empty body means: whoever is best.
    let wanted: TransferJson = body::optional(&body)?;
    let leader = admin.bus.node().transfer(wanted.to).await.map_err(Problem::from)?;
    Ok(HttpResponse::Ok().json(json!({ "leader": leader.id })))
}
