//! Changes of pipelines: `/api/xbus/pipelines/{name}/{version}` and the path below.

use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use rollbook_core::security::right::Verb;
use rollbook_core::xbus::change::{Change, PipelineSave, PipelineStatusSet};
use rollbook_core::xbus::limits::PIPELINE_BYTES_MAX;
use rollbook_core::xbus::pipeline::version::PipelineStatus;
use serde::Deserialize;
use utoipa::ToSchema;

use super::common::{change, fresh};
use super::pipelines::{ONE, PipelineDetail, find, show, view};
use crate::admin::Admin;
use crate::admin::body::{Object, at_most};
use crate::admin::common::Answer;
use crate::admin::operation::{get, write};
use crate::admin::preconditions::Conditions;
use crate::admin::problem::{Problem, Problems};
use crate::admin::query::{NoParameters, Query};
use crate::admin::resource::resource;
use crate::bus::xbus::actor_calls::new_id;
use crate::bus::xbus::yaml;

/// The target of the verb `pipeline`.
const NAME: &str = "{name}";

pub(super) fn mount(services: &mut web::ServiceConfig) {
    services
        .service(
            resource(
                "/api/xbus/pipelines/{name}/{version}",
                [
                    get(ONE),
                    write("PUT", "xbus.pipeline_save", Verb::Pipeline, NAME),
                    write("DELETE", "xbus.pipeline_delete", Verb::Pipeline, NAME),
                ],
            )
            .app_data(at_most(PIPELINE_BYTES_MAX))
            .route(web::get().to(show))
            .route(web::put().to(save))
            .route(web::delete().to(delete)),
        )
        .service(
            resource(
                "/api/xbus/pipelines/{name}/{version}/status",
                [write("POST", "xbus.pipeline_status", Verb::Pipeline, NAME)],
            )
            .route(web::post().to(set_status)),
        );
}

/// Saves a version: a new draft, or a draft anew. A graph with faults is saved too, and the answer says what is wrong; it
/// cannot become active. A text that cannot be read is refused with its line.
#[utoipa::path(put, path = "/api/xbus/pipelines/{name}/{version}", operation_id = "xbus_pipeline_save", tag = "xbus", params(("name" = String, Path), ("version" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body(content = String, content_type = "application/yaml", description = "the pipeline as YAML or JSON"), responses((status = 200, description = "the version as it is now", body = PipelineDetail), Problems))]
pub(in crate::admin) async fn save(
    admin: web::Data<Admin>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    _: Query<NoParameters>,
    body: Bytes,
) -> Answer {
    let (name, version) = path.into_inner();
    let source = String::from_utf8(body.into()).map_err(|_| Problem::bad("the pipeline is not UTF-8"))?;
    let document = yaml::read(&source).map_err(|error| Problem::bad(error.to_string()))?;
    let present = || Ok(find(&admin, &name, &version).ok().map(|row| row.revision));
    let expected = Conditions::of(&request)?.revision(&admin, present).await?;
    let save = PipelineSave { id: new_id().to_vec(), name, version, source, document };
    let saved = change(&admin, expected, Change::PipelineSave(save)).await?.pipeline.unwrap_or_default();
    view(&saved.row)
}

/// What a version is used for.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum StatusWord {
    /// Envelopes go along it; the version that was active becomes inactive.
    Active,
    /// No new envelope goes along it; processes that began with it go on.
    Inactive,
}

/// The new status of a version.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::admin) struct StatusJson {
    /// `active` or `inactive`.
    status: StatusWord,
}

/// Activates a version, or makes it inactive. The version of the name that was active before becomes inactive by the same
/// change; a version with faults cannot be active.
#[utoipa::path(post, path = "/api/xbus/pipelines/{name}/{version}/status", operation_id = "xbus_pipeline_status", tag = "xbus", params(("name" = String, Path), ("version" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), request_body = StatusJson, responses((status = 200, description = "the version as it is now", body = PipelineDetail), Problems))]
pub(in crate::admin) async fn set_status(
    admin: web::Data<Admin>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    _: Query<NoParameters>,
    Object(body): Object<StatusJson>,
) -> Answer {
    fresh(&admin).await?;
    let row = find(&admin, &path.0, &path.1)?;
    let expected = Conditions::of(&request)?.revision(&admin, || Ok(Some(row.revision))).await?;
    let mut set = PipelineStatusSet { id: row.id, ..PipelineStatusSet::default() };
    set.set_status(match body.status {
        StatusWord::Active => PipelineStatus::Active,
        StatusWord::Inactive => PipelineStatus::Inactive,
    });
    let changed = change(&admin, expected, Change::PipelineStatus(set)).await?.pipeline.unwrap_or_default();
    view(&changed.row)
}

/// Deletes a version of a pipeline. A version that is active, or that a process goes along, is refused.
#[utoipa::path(delete, path = "/api/xbus/pipelines/{name}/{version}", operation_id = "xbus_pipeline_delete", tag = "xbus", params(("name" = String, Path), ("version" = String, Path), ("If-Match" = Option<String>, Header, description = "the ETag of a GET")), responses((status = 204, description = "the version is gone"), Problems))]
pub(in crate::admin) async fn delete(
    admin: web::Data<Admin>,
    request: HttpRequest,
    path: web::Path<(String, String)>,
    _: Query<NoParameters>,
) -> Answer {
    fresh(&admin).await?;
    let row = find(&admin, &path.0, &path.1)?;
    let expected = Conditions::of(&request)?.revision(&admin, || Ok(Some(row.revision))).await?;
    change(&admin, expected, Change::PipelineDelete(row.id)).await?;
    Ok(HttpResponse::NoContent().finish())
}
