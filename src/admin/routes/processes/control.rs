//! `POST /api/definitions/{id}/start`, `stop`, `restart` and `sync`.

#![expect(unused_qualifications, reason = "the macro that describes a handler writes them")]

use actix_web::{HttpResponse, web};
use serde::Deserialize;
use utoipa::IntoParams;

use super::problem;
use crate::admin::Admin;
use crate::admin::caller;
use crate::admin::common::Answer;
use crate::admin::operation::checked;
use crate::admin::problem::Problems;
use crate::admin::query::Query;
use crate::admin::resource::resource;
use crate::bus::docks::commands::Control;

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(
            resource("/api/definitions/{id}/start", [checked("POST", "process.start")]).route(web::post().to(start)),
        )
        .service(resource("/api/definitions/{id}/stop", [checked("POST", "process.stop")]).route(web::post().to(stop)))
        .service(
            resource("/api/definitions/{id}/restart", [checked("POST", "process.restart")])
                .route(web::post().to(restart)),
        )
        .service(resource("/api/definitions/{id}/sync", [checked("POST", "process.sync")]).route(web::post().to(sync)));
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct RouteQuery {
    /// On docks with this id or tag only.
    route: Option<String>,
}

async fn control(admin: &Admin, id: &str, query: &RouteQuery, control: Control) -> Answer {
    let done = admin.docks.control(&caller::identity(), id, control, query.route.as_deref()).await;
    done.map_err(|fault| problem(id, fault))?;
    Ok(HttpResponse::NoContent().finish())
}

/// Starts a process on the docks that have it. A dock has it after a sync.
#[utoipa::path(post, path = "/api/definitions/{id}/start", operation_id = "process_start", tag = "processes", params(("id" = String, Path), RouteQuery), responses((status = 204, description = "all docks have done it"), Problems))]
pub(in crate::admin) async fn start(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    Query(query): Query<RouteQuery>,
) -> Answer {
    control(&admin, &id, &query, Control::Start).await
}

/// Stops a process on all docks. The answer comes when it has ended everywhere.
#[utoipa::path(post, path = "/api/definitions/{id}/stop", operation_id = "process_stop", tag = "processes", params(("id" = String, Path), RouteQuery), responses((status = 204, description = "all docks have done it"), Problems))]
pub(in crate::admin) async fn stop(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    Query(query): Query<RouteQuery>,
) -> Answer {
    control(&admin, &id, &query, Control::Stop).await
}

/// Restarts a process on all docks. A new process is started at once, and the old one is ended.
#[utoipa::path(post, path = "/api/definitions/{id}/restart", operation_id = "process_restart", tag = "processes", params(("id" = String, Path), RouteQuery), responses((status = 204, description = "all docks have done it"), Problems))]
pub(in crate::admin) async fn restart(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    Query(query): Query<RouteQuery>,
) -> Answer {
    control(&admin, &id, &query, Control::Restart).await
}

/// Brings the newest build to the docks that fit. There the process is started, elsewhere it is ended.
#[utoipa::path(post, path = "/api/definitions/{id}/sync", operation_id = "process_sync", tag = "processes", params(("id" = String, Path), RouteQuery), responses((status = 204, description = "all docks have done it"), Problems))]
pub(in crate::admin) async fn sync(
    admin: web::Data<Admin>,
    id: web::Path<String>,
    Query(query): Query<RouteQuery>,
) -> Answer {
    let done = admin.docks.sync(&caller::identity(), &id, None, query.route.as_deref()).await;
    done.map_err(|fault| problem(&id, fault))?;
    Ok(HttpResponse::NoContent().finish())
}
