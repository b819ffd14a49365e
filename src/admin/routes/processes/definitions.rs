//! `/api/definitions`: what should run.

use actix_web::{HttpResponse, web};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::problem;
use crate::admin::Admin;
use crate::admin::body::{Object, at_most};
use crate::admin::caller;
use crate::admin::common::Answer;
use crate::admin::operation::{Need, checked, get_for};
use crate::admin::page::{self, List};
use crate::admin::problem::Problems;
use crate::admin::query::{ConsistencyQuery, NoParameters, Query};
use crate::admin::resource::resource;
use crate::base::fault::FaultKind;
use crate::bus::docks::definition::Definition;
use crate::bus::error::Fault;

/// Most bytes of a body.
const BODY_BYTES_MAX: usize = 64 * 1024;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services.service(resource("/api/definitions", [get_for(Need::Caller)]).route(web::get().to(list))).service(
        resource(
            "/api/definitions/{id}",
            [
                get_for(Need::Caller),
                checked("PUT", "definition.set"),
                checked("PATCH", "definition.update"),
                checked("DELETE", "definition.remove"),
            ],
        )
        .app_data(at_most(BODY_BYTES_MAX))
        .route(web::get().to(show))
        .route(web::put().to(add))
        .route(web::patch().to(update))
        .route(web::delete().to(remove)),
    );
}

/// A definition: `id`, and what was set of `start`, `build`, `limit`, `docks`, `tags`, `revision`, `env`, `after`, `ready`,
/// `user`, `stop_timeout`, `nofile`, `memory`, `restart`; `stopped`, and when it was `deployed`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub(in crate::admin) struct DefinitionView(Value);

/// The members to set. Others are left out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(transparent)]
#[schema(value_type = Object)]
pub(in crate::admin) struct DefinitionJson(Map<String, Value>);

/// The definitions that the caller may see. They are in the order in which they were added.
#[utoipa::path(get, path = "/api/definitions", operation_id = "definitions_list", tag = "processes", params(ConsistencyQuery), responses((status = 200, description = "the definitions", body = List<DefinitionView>), Problems))]
pub(in crate::admin) async fn list(admin: web::Data<Admin>, _: Query<ConsistencyQuery>) -> Answer {
    let found = admin.docks.list(&caller::identity()).await?;
    Ok(page::whole(found.iter().map(|definition| DefinitionView(definition.value())).collect()))
}

/// A definition. What runs of it is in `GET /api/processes`.
#[utoipa::path(get, path = "/api/definitions/{id}", operation_id = "definition", tag = "processes", params(("id" = String, Path), ConsistencyQuery), responses((status = 200, description = "the definition", body = DefinitionView), Problems))]
pub(in crate::admin) async fn show(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    _: Query<ConsistencyQuery>,
) -> Answer {
    shown(&id, admin.docks.get(&caller::identity(), &id).await)
}

fn shown(id: &str, found: Result<Definition, Fault>) -> Answer {
    let found = found.map_err(|fault| problem(id, fault))?;
    Ok(HttpResponse::Ok().json(DefinitionView(found.value())))
}

/// Adds a definition, or sets members of the one that is there. Docks hear of it with the next start, restart or sync.
#[utoipa::path(put, path = "/api/definitions/{id}", operation_id = "definition_set", tag = "processes", params(("id" = String, Path)), request_body = DefinitionJson, responses((status = 200, description = "the definition as it is now", body = DefinitionView), Problems))]
pub(in crate::admin) async fn add(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<DefinitionJson>,
) -> Answer {
    let who = caller::identity();
    let set = match admin.docks.add(&who, &id, body.0.clone()).await {
        Err(fault) if fault.kind == FaultKind::Conflict => admin.docks.update(&who, &id, body.0).await,
        other => other,
    };
    shown(&id, set)
}

/// Sets members of a definition. Docks hear of it with the next start, restart or sync.
#[utoipa::path(patch, path = "/api/definitions/{id}", operation_id = "definition_update", tag = "processes", params(("id" = String, Path)), request_body = DefinitionJson, responses((status = 200, description = "the definition as it is now", body = DefinitionView), Problems))]
pub(in crate::admin) async fn update(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    _: Query<NoParameters>,
    Object(body): Object<DefinitionJson>,
) -> Answer {
    let who = caller::identity();
    shown(&id, admin.docks.update(&who, &id, body.0).await)
}

/// Ends the processes of a definition on all docks, and removes it. Its builds go with it.
#[utoipa::path(delete, path = "/api/definitions/{id}", operation_id = "definition_remove", tag = "processes", params(("id" = String, Path)), responses((status = 204, description = "the definition is gone"), Problems))]
pub(in crate::admin) async fn remove(admin: web::Data<Admin>, id: web::Path<String>, _: Query<NoParameters>) -> Answer {
    let who = caller::identity();
    admin.docks.get(&who, &id).await.map_err(|fault| problem(&id, fault))?;
    admin.docks.remove(&who, &id, None).await.map_err(|fault| problem(&id, fault))?;
    Ok(HttpResponse::NoContent().finish())
}
