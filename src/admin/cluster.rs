//! `/api/cluster`: who is in the cluster, and changes of that.

use actix_web::{HttpResponse, web};
use rollbook_cluster::status::Member;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Admin;
use super::problem::{self, Problem};

type Answer = Result<HttpResponse, Problem>;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    let resource = |path: &str| web::resource(path).default_service(web::to(problem::method_not_allowed));
    services
        .service(resource("/api/cluster").route(web::get().to(cluster)))
        .service(resource("/api/cluster/nodes").route(web::post().to(join)))
        .service(resource("/api/cluster/nodes/{id}").route(web::delete().to(remove)))
        .service(resource("/api/cluster/nodes/{id}/promote").route(web::post().to(promote)))
        .service(resource("/api/cluster/transfer").route(web::post().to(transfer)));
}

fn show(member: &Member) -> Value {
    json!({
        "id": member.id,
        "address": member.address,
        "role": member.role,
        "state": member.state,
        "incarnation": member.incarnation,
        "last_index": member.last_index,
        "applied_index": member.applied_index,
    })
}

async fn cluster(admin: web::Data<Admin>) -> Answer {
    let node = admin.bus.node();
    let status = node.status();
    let members = node.members().await;
    Ok(HttpResponse::Ok().json(json!({
        "cluster_id": status.cluster_id,
        "node": status.id,
        "leader": status.leader,
        "term": status.term,
        "nodes": members.iter().map(show).collect::<Vec<_>>(),
    })))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct JoinJson {
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

async fn join(admin: web::Data<Admin>, body: web::Json<JoinJson>) -> Answer {
    let address = body.into_inner().address;
    check_address(&address)?;
    let node = admin.bus.node();
    let joined = node.join(address).await.map_err(Problem::from)?;
    let body = json!({ "id": joined.id, "cluster_id": node.status().cluster_id, "address": joined.address });
    Ok(HttpResponse::Created().json(body))
}

async fn promote(admin: web::Data<Admin>, id: web::Path<u64>) -> Answer {
    let node = admin.bus.node();
    node.promote(*id).await.map_err(Problem::from)?;
    let members = node.members().await;
    let missing = || Problem::new(404, "node_not_found", format!("node not found: {id}"));
    let member = members.iter().find(|member| member.id == *id).ok_or_else(missing)?;
    Ok(HttpResponse::Ok().json(show(member)))
}

async fn remove(admin: web::Data<Admin>, id: web::Path<u64>) -> Answer {
    admin.bus.node().remove(*id).await.map_err(Problem::from)?;
    Ok(HttpResponse::NoContent().finish())
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct TransferJson {
    to: Option<u64>,
}

async fn transfer(admin: web::Data<Admin>, body: web::Bytes) -> Answer {
    // An empty body means: whoever is best.
    let wanted: TransferJson = match body.is_empty() {
        true => TransferJson::default(),
        false => {
            serde_json::from_slice(&body).map_err(|error| Problem::new(400, "bad_request", format!("body: {error}")))?
        }
    };
    let leader = admin.bus.node().transfer(wanted.to).await.map_err(Problem::from)?;
    Ok(HttpResponse::Ok().json(json!({ "leader": leader.id })))
}
