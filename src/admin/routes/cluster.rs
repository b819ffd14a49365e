//! `/api/cluster`: the members of the cluster, and changes of the membership.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use rollbook_cluster::status::Member;
use rollbook_core::error::Refusal;
use rollbook_core::security::right::Verb;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::admin::Admin;
use crate::admin::body::{Object, Optional};
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;

pub(in crate::admin) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(resource("/api/cluster", [get("cluster")]).route(web::get().to(cluster)))
        .service(
            resource("/api/cluster/nodes", [write("POST", "cluster.join", Verb::AdminCluster, "nodes")])
                .route(web::post().to(join)),
        )
        .service(
            resource("/api/cluster/nodes/{id}", [write("DELETE", "cluster.remove", Verb::AdminCluster, "nodes/{id}")])
                .route(web::delete().to(remove)),
        )
        .service(
            resource(
                "/api/cluster/nodes/{id}/promote",
                [write("POST", "cluster.promote", Verb::AdminCluster, "nodes/{id}")],
            )
            .route(web::post().to(promote)),
        )
        .service(
            resource("/api/cluster/transfer", [write("POST", "cluster.transfer", Verb::AdminCluster, "transfer")])
                .route(web::post().to(transfer)),
        );
}

/// A node of the cluster, as this one sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct MemberView {
    id: u64,
    /// Where other nodes reach it.
    address: String,
    /// `leader`, `voter` or `learner`, which gets the log and has no vote. `none`: a number that was given out, but is
    /// no member, as its joining or removal was cut; removing it ends that.
    role: String,
    /// `up`, `down`, `new` when it was never heard, or `unknown` when it is said to be up and does not answer.
    state: String,
    /// Which of its lives this is; 0 before the first.
    incarnation: u64,
    /// Last entry in its log, when it answers.
    last_index: Option<u64>,
    /// Last entry that it applied, when it answers.
    applied_index: Option<u64>,
}

/// The cluster, as this node sees it.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct ClusterView {
    cluster_id: String,
    /// This node.
    node: u64,
    /// Who leads; null without a leader that has a majority.
    leader: Option<u64>,
    term: u64,
    /// Why nothing can be published through this node; null when it can.
    warning: Option<String>,
    /// Whether this node was started with `--insecure`: whoever reaches a listener may use it.
    insecure: bool,
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

/// The cluster as the node that is asked sees it. Answers also without a majority.
#[utoipa::path(get, path = "/api/cluster", operation_id = "cluster_cluster", tag = "cluster", params(ConsistencyQuery), responses((status = 200, description = "the cluster", body = ClusterView), Problems))]
pub(in crate::admin) async fn cluster(admin: web::Data<Admin>, _: Query<ConsistencyQuery>) -> Answer {
    let node = admin.bus.node();
    let status = node.consensus().status();
    let members = node.membership().members().await;
    Ok(HttpResponse::Ok().json(ClusterView {
        cluster_id: status.cluster_id,
        node: status.id,
        leader: status.leader,
        term: status.term,
        warning: node.consensus().ready().err().map(|refusal| match refusal {
            Refusal::Unavailable(text) => text,
            other => other.to_string(),
        }),
        insecure: admin.bus.metrics().insecure.get() != 0,
        nodes: members.iter().map(show).collect(),
    }))
}

/// A node that wants to join.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct JoinJson {
    /// `HOST:PORT` where the other nodes will reach it.
    #[schema(example = "HOST:PORT")]
    address: String,
}

/// How a change is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct ForceQuery {
    /// Make the change in spite of what speaks against it, as far as raft can.
    #[serde(default)]
    force: bool,
}

/// Checks that an address is a `HOST:PORT` that other nodes can dial.
fn check_address(address: &str) -> Result<(), Problem> {
    let good = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !matches!(host, "0.0.0.0" | "[::]") && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if good { Ok(()) } else { Err(Problem::bad("address: write HOST:PORT as other nodes reach it")) }
}

/// Gives out a number for a new node, which is a learner from then on: it gets the log and has no vote. Asked twice,
/// there are two numbers. Answers within 10 s; 503 `outcome_unknown` means: look at the cluster before asking again.
#[utoipa::path(post, path = "/api/cluster/nodes", operation_id = "cluster_join", tag = "cluster", request_body = JoinJson, responses((status = 201, description = "number, cluster and address of the new node", body = Object), Problems))]
pub(in crate::admin) async fn join(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    Object(body): Object<JoinJson>,
) -> Answer {
    let address = body.address;
    check_address(&address)?;
    let node = admin.bus.node();
    let joined = node.membership().join(address).await.map_err(Problem::from)?;
    let body =
        json!({ "id": joined.id, "cluster_id": node.consensus().status().cluster_id, "address": joined.address });
    Ok(HttpResponse::Created().json(body))
}

/// Gives a learner a vote. 409 with what to do when it was never heard, does not answer or is behind; `force` promotes
/// it all the same. Also with `force`, 409 when the voters would have no majority that answers: raft could not complete
/// the change, and nothing could be written until the missing nodes are back. May be repeated. Answers within 10 s.
#[utoipa::path(post, path = "/api/cluster/nodes/{id}/promote", operation_id = "cluster_promote", tag = "cluster", params(("id" = u64, Path), ForceQuery), responses((status = 200, description = "the node as it is now", body = MemberView), Problems))]
pub(in crate::admin) async fn promote(
    admin: web::Data<Admin>,
    id: web::Path<u64>,
    Query(query): Query<ForceQuery>,
) -> Answer {
    let node = admin.bus.node();
    node.membership().promote(*id, query.force).await.map_err(Problem::from)?;
    let members = node.membership().members().await;
    let missing = || Problem::new(404, "node_not_found", format!("node not found: {id}"));
    let member = members.iter().find(|member| member.id == *id).ok_or_else(missing)?;
    Ok(HttpResponse::Ok().json(show(member)))
}

/// Takes a node out of the cluster for good: its number is never used again, and its process ends by itself. 409 when
/// the voters that are left would have no majority that answers; with `force` those that do not answer lose their votes
/// in the same step and go on as learners. A removal that was cut may be repeated, and so may one that was completed.
/// Answers within 10 s.
#[utoipa::path(delete, path = "/api/cluster/nodes/{id}", operation_id = "cluster_remove", tag = "cluster", params(("id" = u64, Path), ForceQuery), responses((status = 204, description = "the node is no member any more"), Problems))]
pub(in crate::admin) async fn remove(
    admin: web::Data<Admin>,
    id: web::Path<u64>,
    Query(query): Query<ForceQuery>,
) -> Answer {
    admin.bus.node().membership().remove(*id, query.force).await.map_err(Problem::from)?;
    Ok(HttpResponse::NoContent().finish())
}

/// Who is to lead; whoever is best when nobody is named.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(in crate::admin) struct TransferJson {
    /// Number of a voter that answers.
    #[schema(example = json!(null))]
    to: Option<u64>,
}

/// Lets another voter lead, for example before the leader is stopped. 409 when it does not answer or did not take over.
#[utoipa::path(post, path = "/api/cluster/transfer", operation_id = "cluster_transfer", tag = "cluster", request_body = Option<TransferJson>, responses((status = 200, description = "number of the new leader", body = Object), Problems))]
pub(in crate::admin) async fn transfer(
    admin: web::Data<Admin>,
    _: Query<NoParameters>,
    // An empty body lets the leader choose.
    Optional(wanted): Optional<TransferJson>,
) -> Answer {
    let leader = admin.bus.node().membership().transfer(wanted.to).await.map_err(Problem::from)?;
    Ok(HttpResponse::Ok().json(json!({ "leader": leader.id })))
}
